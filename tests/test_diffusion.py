"""Blocks of diffusion models as modules of one's own: a U-Net and a diffusion transformer of diffusers, tiny, of random weights."""

import pytest
import torch

from interp.activations import stream
from interp.corpus import open_corpus
from interp.models import Edit, open_module
from interp.recipe import train_checkpoint
from interp.workbench import Workbench

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed; it is no dependency of interp")
torch.set_num_threads(1)
NOISY = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STEP = 10
"""The time step at which the models denoise."""


def unet():
    torch.manual_seed(1)
    return diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def dit():
    torch.manual_seed(1)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10,
    )  # fmt: skip
    with torch.no_grad():  # its blocks begin as gates that are shut
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def denoise(net, x):
    return net(x, STEP).sample


def denoise_class(net, x):
    step, kind = torch.full((len(x),), STEP), torch.zeros(len(x), dtype=torch.int64)
    return net(x, timestep=step, class_labels=kind).sample


CASES = {  # model, how it is called, where its positions are, their names, a block's activation by position
    "unet": (unet, denoise, "mid_block", ["y0x0", "y0x1"], lambda x: x.flatten(2).transpose(1, 2)),
    "dit": (dit, denoise_class, "transformer_blocks.1", ["p0", "p1"], lambda x: x),
}


@pytest.mark.parametrize("case", CASES)
def test_a_block_is_read_edited_and_trained_on(case, tmp_path):
    make, call, hook, names, arranged = CASES[case]
    net = make().eval()
    seen = []
    handle = net.get_submodule(hook).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        expected = call(net, NOISY[:2])
    handle.remove()
    model = open_module(net, NOISY, name=case, at=hook, call=call)
    assert model.vocabulary[1:3] == names
    items = [model.prompt(str(row)) for row in range(2)]
    places_BT, given = torch.tensor(items), torch.stack([item.given for item in items])
    x_BTD = model.run(places_BT, [hook], given=given).activations[hook]
    assert torch.equal(x_BTD[:, 1:], arranged(seen[0]))
    plain = model.run(places_BT, given=given).logits  # the whole picture at every position of the block
    assert torch.equal(plain[:, 0].reshape(expected.shape), expected)
    same = model.run(places_BT, edits=[Edit(hook, lambda x, site: x.clone())], given=given).logits
    assert torch.equal(same, plain)
    gone = model.run(places_BT, edits=[Edit(hook, lambda x, site: torch.zeros_like(x))], given=given).logits
    assert float((gone - plain).abs().max()) > 1e-3
    corpus = open_corpus(NOISY)
    train_checkpoint(stream(model, corpus, [hook], 10_000), hook, tmp_path / "sae", d_sae=32, k=4, batch=64)
    wb = Workbench.open(tmp_path / "sae", model=model, labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(corpus, 10_000, beside=True)
    spectrum = wb.spectrum("3")
    fires = int(spectrum.features[spectrum.values.argmax()])
    assert fires in [hit.feature for hit in wb.search('fires:"3"', limit=32)]
    assert wb.search(f"token:/{names[1]}/")
    ablation = wb.ablate("3", fires)
    assert ablation.largest > 0
    if case == "unet":  # whose output has other positions than the block, so that it is one change
        assert f"by {ablation.mean:.3g} (change relative to the vector); the same" in ablation.sentence()
