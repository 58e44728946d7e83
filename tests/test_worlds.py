"""A recipe in a planted world: trained as its card says, measured once, and told from its null."""

import numpy as np
import pytest
import torch

from interp import places
from interp.recipe import worlds
from interp.recipe.worlds import measure_recipe, open_world, small_recipe
from interp.training import TrainConfig
from interp.types import InterpError

CARD = {
    "architecture": {
        "name": "batchtopk",
        "d_in": 576,
        "d_sae": 9216,
        "k": 32,
        "anneal": 0.2,
        "temporal": 0.0,
        "high": 0.2,
    },
    "training": {"tokens": 9, "lr": 0.001, "decay": 0.3, "seed": 5, "dead_after": 7, "later": True, "device": "cuda"},
}


def test_a_recipe_keeps_its_settings_and_loses_its_sizes():
    rule, config = small_recipe(CARD, 96, 3, (), 1_000)
    assert (rule.d_in, rule.d_sae, rule.k, rule.anneal) == (96, 128, 4, 0.2)
    assert config == TrainConfig(tokens=1_000, seed=3, decay=0.3)
    card = {"architecture": {"name": "matryoshka", "d_in": 576, "d_sae": 9216, "k": 32, "prefixes": [512, 9216]}}
    assert small_recipe(card, 96, 0, ("W_dec",), 9)[0].prefixes == (8, 32, 128)
    card = {
        "architecture": {
            "name": "jumprelu",
            "d_in": 576,
            "d_sae": 9,
            "l0": 32.0,
            "coefficient": 576.0,
            "form": "quadratic",
        }
    }
    assert (small_recipe(card, 96, 0, (), 9)[0].l0, small_recipe(card, 96, 0, (), 9)[0].coefficient) == (4.0, 96.0)


def test_a_world_is_not_shared_out_and_what_was_kept_before_there_was_that_setting_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    card = CARD | {"training": CARD["training"] | {"feature_ranks": 2}}
    assert small_recipe(card, 96, 0, (), 9)[1].feature_ranks == 1
    measure_recipe(card, rows=3_000)
    (kept,) = (tmp_path / "cache" / "planted").iterdir()
    assert kept.name == "70d227398b02ec56cc688b35.json", "a setting that changes nothing made a kept measurement anew"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({}, "does not say by which recipe"),
        ({"architecture": {"name": "transcoder"}}, "a transcoder is trained on pairs of rows"),
        ({"architecture": {"name": "batchtopk", "temporal": 0.1}}, "temporal contrast is trained on pairs"),
        ({"architecture": {"name": "topkk"}}, "no architecture 'topkk'"),
    ],
)
def test_a_recipe_that_cannot_be_planted_for_is_refused(recipe, said):
    with pytest.raises(InterpError, match=said):
        small_recipe(recipe, 96, 0, (), 9)


@pytest.fixture(scope="module")
def made():
    return open_world()


@pytest.fixture
def world(made, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr(worlds, "HELD_OUT", 4_000)
    monkeypatch.setattr(worlds, "CALIBRATION", 4_000)
    monkeypatch.setattr(worlds, "open_world", lambda number: made)  # which takes seconds to make
    return made


def test_rows_and_hierarchy_of_a_world_are_what_it_says(world):
    truth = world.truth()
    on = truth.on_NP.numpy()
    assert truth.rows_ND.shape == (4_000, 96)
    assert (truth.parent_P >= 0).sum() == 512 - 16  # all but the roots
    for child in np.flatnonzero(truth.parent_P >= 0)[:60]:
        assert not (on[:, child] & ~on[:, truth.parent_P[child]]).any()  # on only under its parent
    assert torch.equal(world.sample(4_000, worlds.HELD_OUT_SEED)[0], truth.rows_ND)


def test_training_beats_a_frozen_decoder_and_is_measured_once(world, monkeypatch):
    found = measure_recipe(CARD, rows=60_000)
    null = measure_recipe(CARD, rows=60_000, frozen=("W_dec",))
    assert found["mcc_above_floor"].value > null["mcc_above_floor"].value + 0.1
    assert abs(null["mcc_above_floor"].value) < 0.05
    assert found.of["recipe"]["decay"] == 0.3
    assert found.of["world"] == 1
    assert len(list((places.cache() / "planted").glob("*.json"))) == 2
    monkeypatch.setattr(worlds, "train", None)  # nothing is trained again
    assert measure_recipe(CARD, rows=60_000).figures == found.figures
