"""The sections of a report that need other texts, other seeds and another model."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.corpus import archives as kept_archives
from interp.corpus import open_corpus
from interp.recipe.worlds import PLANTED
from interp.sae import SAE
from interp.types import InterpError
from interp.workbench import Workbench, elsewhere


@pytest.fixture
def bench(wb, tmp_path, monkeypatch):
    """The tiny SAE, on a machine that has one other text and no archive."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(elsewhere, "TEXTS", ("python", "sotu"))
    return wb


def changed(folder, into, by: float):
    """A copy of a model whose weights were moved a little, as fine-tuning does."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * weights.std() * by)
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(folder).save_pretrained(into)


def test_transfer_is_measured_on_what_is_here_and_the_rest_is_named(bench, text_folder, tiny_folder, tmp_path):
    changed(tiny_folder, tmp_path / "nulls" / "sibling", 0.3)
    text = open_corpus(text_folder)
    made = bench.report(text, 2_048, only=("transfer",), nulls=str(tmp_path / "nulls"))["transfer"]
    rows = {row["place"]: row for row in made.rows}
    assert list(rows) == [text.name, "python", "sibling model"]
    assert rows["sibling model"]["paired"]
    assert not rows["python"]["paired"]
    # What was learnt on one model explains less of a changed one, and of code where it read sentences.
    assert made["ev sibling model"].value < 0
    assert made["ev python"].value < 0
    without = made.of["not measured"]
    assert set(without) == {"sotu", "chat"}
    assert "setup --texts" in without["sotu"]
    assert kept_archives.missing(["chatterbot"])


def test_a_model_with_another_vocabulary_is_no_sibling(bench, text_folder, tiny_folder, tmp_path):
    folder = tmp_path / "nulls" / "sibling"
    changed(tiny_folder, folder, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InterpError, match="another vocabulary"):
        bench.report(open_corpus(text_folder), 1_024, only=("transfer",), nulls=str(tmp_path / "nulls"))


def test_stability_is_by_the_seeds_that_lie_in_the_folder(bench, text_folder, tmp_path):
    text = open_corpus(text_folder)
    with pytest.raises(InterpError, match="FOLDER/seeds/"):
        bench.report(text, 1_024, only=("stability",))
    other = tmp_path / "nulls" / "seeds" / "seed-1"
    shutil.copytree(bench.folder, other, ignore=shutil.ignore_patterns("index"))
    turned(bench.sae, other)
    made = bench.report(text, 1_024, only=("stability",), nulls=str(tmp_path / "nulls"))["stability"]
    assert made["mcc"].value == pytest.approx(1, abs=1e-3)  # the same rows in another order
    assert len(made.of["others"]) == 1


def turned(sae: SAE, into):
    """The SAE with its features in another order, in a folder that has its card."""
    from interp.checkpoint import Card, save

    order = torch.arange(sae.d_sae).roll(3)
    other = SAE(
        W_enc=sae.W_enc[:, order], b_enc=sae.b_enc[order], W_dec=sae.W_dec[order], b_dec=sae.b_dec,
        threshold=sae.threshold[order], k=sae.k, reads=sae.reads, writes=sae.writes, centred=sae.centred, name=sae.name,
    )  # fmt: skip
    card = Card.read(into)
    shutil.rmtree(into)
    save(other, into, card)


@pytest.mark.slow
def test_the_recipe_of_an_sae_is_measured_in_a_planted_world(bench, text_folder, monkeypatch):
    monkeypatch.setattr("interp.recipe.worlds.ROWS", 65_536)
    made = Workbench.report(bench, open_corpus(text_folder), 1_024, only=("planted",), extra=(PLANTED,))
    assert 0 < made["planted"]["mcc"].value < 1
