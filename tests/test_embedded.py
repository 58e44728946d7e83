"""The shipped SAE: opened by sae-lens, true to its card, small enough, with nothing that may not be passed on."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

from interp.corpus import TokenBlocks
from interp.evals import evaluate
from interp.sae.metrics import reconstruction
from tests.conftest import ROOT


def test_sae_lens_encodes_and_decodes_as_we_do(embedded, smollm2):
    import sae_lens

    theirs = sae_lens.SAE.load_from_disk(embedded.folder)
    hook = embedded.card.hook_name
    text = "The Eiffel Tower is in Paris. def f(x): return x + 1"
    x = smollm2.run(torch.tensor([smollm2.prompt(text)]), [hook]).activations[hook][0, 1:].float()
    with torch.no_grad():
        ours, dense = embedded.sae.encode(x), theirs.encode(x)
        assert torch.allclose(ours, dense, atol=1e-3)
        assert torch.equal(ours > 0, dense > 0)
        assert torch.allclose(embedded.sae.decode(ours), theirs.decode(dense), atol=1e-2)
    assert 5 < float((ours > 0).sum(1).float().mean()) < 150


def test_the_card_was_made_on_enough_text(embedded):
    card = embedded.card
    assert card.corpus["positions"] >= 5_000_000
    assert embedded.index.meta["positions"] >= 1_000_000
    assert embedded.sae.d_in == 576
    assert embedded.sae.d_sae == 9216
    sources = set(embedded.index.documents["source"])
    assert sources == {"wiki-en", "wiki-fr", "wiki-es", "python"}  # the texts whose licences allow passing on
    assert "CC BY-SA" in card.licences["index text"]


FIGURES = {"fvu": 0.1301, "l0": 31.41, "delta_ce": 0.0866}
"""Of `held_out_sample`, when this SAE was shipped."""
NEAR = {"fvu": 0.03, "l0": 0.03, "delta_ce": 0.15}
"""Shares by which another dtype or processor may move them; the figures were measured in bfloat16 on a CPU."""


def held_out_sample(index) -> TokenBlocks:
    """12 blocks of the shipped index's own documents that training kept to itself: four each of English and French leads
    and of CPython. No corpus is read, so no change of a corpus moves the figures."""
    split, source = (index.documents[name].to_numpy() for name in ("split", "source"))
    rows = []
    for name in ("wiki-en", "wiki-fr", "python"):
        own = ((split == "heldout") & (source == name))[index.document_at] & (index.tokens != index.separator)
        ids = index.tokens[own][: 4 * (index.block - 1)].astype(np.int64).reshape(4, index.block - 1)
        rows.append(np.concatenate([np.full((4, 1), index.separator), ids], 1))
    tokens_NT = torch.from_numpy(np.concatenate(rows))
    return TokenBlocks(tokens_NT, torch.zeros_like(tokens_NT), pa.table({}), index.separator)


@pytest.fixture(scope="module")
def sample(embedded) -> TokenBlocks:
    return held_out_sample(embedded.index)


def as_recorded(sae, model, blocks, norm_cutoff) -> dict[str, bool]:
    """Which of the recorded figures come out again."""
    report = evaluate(model, sae, blocks, norm_cutoff=norm_cutoff)
    return {name: getattr(report, name) == pytest.approx(FIGURES[name], rel=NEAR[name]) for name in FIGURES}


@pytest.mark.slow
def test_held_out_figures_come_out_as_when_it_was_shipped(embedded, smollm2, sample):
    assert all(as_recorded(embedded.sae, smollm2, sample, embedded.card.norm_cutoff).values())
    held_out = embedded.card.metrics["held_out"]
    # What the card says is of more text and other sources.
    assert FIGURES["fvu"] == pytest.approx(held_out["fvu"], abs=0.03)
    assert FIGURES["l0"] == pytest.approx(held_out["l0"], rel=0.15)


@pytest.mark.slow
def test_weights_that_are_a_tenth_worse_do_not_pass_for_the_shipped_ones(embedded, smollm2, sample):
    """The check above has teeth: decoder rows are perturbed until FVU is 10 % worse, and it fails."""
    hook, cutoff = embedded.card.hook_name, embedded.card.norm_cutoff
    x_NTD = smollm2.run(sample.tokens_NT, [hook]).activations[hook].float()
    x_ND = x_NTD[:, 1:].flatten(0, 1)
    x_ND = x_ND[x_ND.norm(dim=1) <= cutoff]
    noise_FD = torch.randn(embedded.sae.W_dec.shape, generator=torch.Generator().manual_seed(0)) * 0.01

    def worse(size: float):
        made = copy.deepcopy(embedded.sae)
        made.W_dec.data += size * noise_FD
        return made

    before = reconstruction(embedded.sae, x_ND).fvu
    low, high = 0.0, 16.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if reconstruction(worse(middle), x_ND).fvu < 1.1 * before else (low, middle)
    assert reconstruction(worse(high), x_ND).fvu == pytest.approx(1.1 * before, rel=1e-3)
    assert not as_recorded(worse(high), smollm2, sample, cutoff)["fvu"]


def test_examples_can_be_run_again_exactly(embedded, smollm2):
    """An example's block, run anew, fires at its position with its value."""
    index, hook = embedded.index, embedded.card.hook_name
    feature = int(index.features.sort_values("density")["feature"].iloc[-200])
    example = index.examples(feature)[0]
    block = index.block
    start = example.position // block * block
    tokens = torch.tensor(index.tokens[start : start + block].astype("int64"))[None]
    x = smollm2.run(tokens, [hook]).activations[hook][0, example.position - start]
    value = float(embedded.sae.encode_feature(x[None], feature))
    # bfloat16 batches of another size differ in their last bits.
    assert value == pytest.approx(example.value, rel=0.05)


def test_all_of_saes_stays_under_64_mib():
    assert sum(path.stat().st_size for path in (ROOT / "saes").rglob("*") if path.is_file()) < 64 * 2**20
