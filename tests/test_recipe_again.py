"""The recipes of other seeds, of a random-weight copy and of nulls, whole and small; in a file of its own, beside the embedded SAEs' own."""

import pytest
import torch

from interp.checkpoint import Card, load
from interp.models import open_model
from interp.training.state import initial_decoder
from interp.workbench import Workbench
from tests.home import own_home
from tests.test_recipe import embedded_recipe


@pytest.mark.slow
def test_the_recipe_of_other_seeds_and_of_a_random_copy(monkeypatch, tmp_path, capsys):
    """Both stages over texts that are installed, with a thousandth of the tokens; called again, all is there."""
    recipe = embedded_recipe(monkeypatch, tmp_path)
    own_home(monkeypatch, tmp_path)
    hook = "blocks.1.hook_resid_post"
    small = {"TRAIN_TOKENS": 8_192, "HELDOUT_TOKENS": 4_096, "INDEX_TOKENS": 8_192, "TESTED": hook, "HOOKS": [hook]}
    small |= {"SAES": {hook: 64}, "TRIALS": {"plain": recipe.Recipe(k=4, batch=512)}, "CHOSEN": "plain"}
    small |= {"MIX": {"wiki-en": 3, "wiki-fr": 1, "reviews": 2}, "RESERVED_TOKENS": 2_048}
    for name, value in small.items():
        monkeypatch.setattr(recipe, name, value)
    again = embedded_recipe(monkeypatch, tmp_path, "smollm2_again")
    monkeypatch.setattr(again, "RANDOM_TRAIN_TOKENS", 4_096)
    monkeypatch.setattr(again, "RANDOM_HELDOUT_TOKENS", 2_048)
    recipe.stage_harvest()
    again.stage_seeds()
    again.stage_random()
    first, second, random = (Workbench.open(f) for f in (*map(again.seed_folder, again.SEEDS), again.random_folder()))
    assert [wb.card.recipe["training"]["seed"] for wb in (first, second, random)] == [1, 2, 0]
    assert not torch.equal(first.sae.W_dec, second.sae.W_dec)
    assert first.card.model == second.card.model == "smollm2"
    assert random.card.model == random.model.source == "random-1:smollm2"
    assert random.card.model_sha256 != first.card.model_sha256
    own, extended = first.index.tokens, random.index.tokens
    assert own.tolist() == extended[: len(own)].tolist()
    assert len(extended) > len(own)
    assert "labels" in set(random.index.documents["split"])
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again.stage_seeds()
    again.stage_random()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    _nulls_are_made(monkeypatch, tmp_path, recipe)


def _nulls_are_made(monkeypatch, tmp_path, recipe):
    """Nulls and trained SAEs of the same length, from the activations that the other recipes left."""
    monkeypatch.setattr(recipe, "TRIAL_SHARDS", 1)
    nulls = embedded_recipe(monkeypatch, tmp_path, "smollm2_nulls")
    monkeypatch.setattr(nulls, "SEEDS", (0, 1))
    monkeypatch.setattr(nulls, "SIBLING_STEPS", 1)
    monkeypatch.setattr("interp.recipe.worlds.ROWS", 16_384)
    for _ in range(2):  # called again, all is there
        for stage in nulls.STAGES.values():
            stage()
    own = nulls.rows()[0].blocks.tokens_NT
    (recipe.WORK / "train").rename(recipe.WORK / "gone")
    harvested = nulls.rows()[0].blocks.tokens_NT  # for block 15 alone: of the same text
    assert torch.equal(harvested, own[: len(harvested)])
    begun = {seed: initial_decoder(Card.read(nulls.folder("frozen", seed)).recipe) for seed in (0, 1)}
    for seed, rows in begun.items():
        trained, frozen = (load(nulls.folder(kind, seed)) for kind in ("trained", "frozen"))
        torch.testing.assert_close(frozen.W_dec, rows, atol=1e-3, rtol=0)  # as float16 holds them
        assert not torch.allclose(trained.W_dec, rows, atol=0.05)
    assert Card.read(nulls.folder("random", 1)).model == "random-1:smollm2"
    recipes = [Card.read(nulls.folder(kind, 1)).recipe for kind in ("trained", "frozen")]
    assert recipes[0]["rows_seen"] == recipes[1]["rows_seen"]
    copies = [load(nulls.NULLS / "seeds" / f"seed-{seed}") for seed in nulls.again.SEEDS]
    assert torch.equal(copies[0].W_dec, load(nulls.again.seed_folder(nulls.again.SEEDS[0])).W_dec)
    sibling = open_model(str(nulls.NULLS / "sibling"))
    assert sibling.tokenizer.get_vocab() == open_model("smollm2").tokenizer.get_vocab()
