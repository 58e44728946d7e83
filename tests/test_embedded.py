"""The shipped SAE: opened by sae-lens, true to its card, small enough, with nothing that may not be passed on."""

import pytest
import torch

from interp.corpus import open_corpus, tokenize
from interp.evals import evaluate
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


@pytest.mark.slow
def test_the_cards_figures_hold_on_held_out_text_of_another_draw(embedded, smollm2):
    """20,000 tokens of English leads, CPython and prose, none of them trained on."""
    held_out = embedded.card.metrics["held_out"]
    text = open_corpus("wiki-en + python")
    blocks = tokenize(text, smollm2, 8_192, split="heldout")
    report = evaluate(smollm2, embedded.sae, blocks, norm_cutoff=embedded.card.norm_cutoff)
    assert report.fvu == pytest.approx(held_out["fvu"], abs=0.06)
    assert report.l0 == pytest.approx(held_out["l0"], rel=0.25)
    assert report.delta_ce < 2 * held_out["delta_ce"]


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
