"""What can be measured of an SAE of pictures or of a module's numbers: all that needs no next token."""

import pytest
import torch
from torch import nn

from interp.activations import stream
from interp.corpus import open_corpus, tokenize
from interp.models import open_model, open_module
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.workbench import Workbench
from tests.families import pictures, save_media

NUMBERS = torch.randn((400, 8), generator=torch.Generator().manual_seed(0))


def of_pictures(root):
    model = open_model(str(save_media("vit", root / "vit")), dtype="float32")
    return model, open_corpus(pictures(root / "p")), "blocks.1.hook_resid_post"


def of_numbers(root):
    torch.manual_seed(0)
    corpus = open_corpus(NUMBERS)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    return open_module(net, corpus, name="mlp"), corpus, "1"


@pytest.mark.parametrize("of", [of_pictures, of_numbers])
def test_reconstruction_is_measured_on_held_out_items_and_the_loss_is_said_to_be_missing(of, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    model, corpus, hook = of(tmp_path)
    source = stream(model, corpus, [hook], 400, split="train")
    train_checkpoint(source, hook, tmp_path / "sae", d_sae=24, k=3, batch=64, config=TrainConfig(lr=3e-3))
    wb = Workbench.open(tmp_path / "sae", model=model)
    found = wb.evaluate(corpus, 5_000)
    # By hand: the held-out items' own activations.
    blocks = tokenize(corpus, model, 5_000, split="heldout")
    given = torch.stack([model.prompt(name).given for name in blocks.files(range(len(blocks.tokens_NT)))])
    x = model.run(blocks.tokens_NT, [hook], given=given).activations[hook][blocks.real_NT()]
    x = x[x.norm(dim=1) <= wb.card.norm_cutoff]
    code = wb.sae.encode(x)
    left = (x - wb.sae.decode(code)).square().sum() / (x - x.mean(0)).square().sum()
    assert found.tokens == len(x) > 30
    assert found.fvu == pytest.approx(float(left), rel=1e-4)
    assert found.l0 == pytest.approx(float((code > 0).sum(1).float().mean()))
    assert found.dead == int((code == 0).all(0).sum())
    assert found.fvu_interval[0] < found.fvu < found.fvu_interval[1]
    assert found.ce is found.delta_ce is found.recovered_mean is None
    report = wb.report(corpus, 5_000, beside=True)
    assert {section.name for section in report.sections} >= {"fidelity", "geometry"}
    assert report["fidelity"]["fvu"].value == pytest.approx(found.fvu)
    loss = report["fidelity"]["delta_ce"]
    assert (loss.value, loss.note) == (None, f"{model.name} predicts no next token, so there is neither loss nor KL")
    page = (tmp_path / "sae" / "report.html").read_text()
    assert "predicts no next token" in page
    assert (tmp_path / "sae" / "report.json").exists()
