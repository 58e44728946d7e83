"""The map of features: near ones near, kept once, found by an outline, and refused when it is of other weights."""

import json
import shutil

import numpy as np
import pytest
import torch

from interp.checkpoint import Card
from interp.commands.mapping import drawn_map, map_features, map_version
from interp.commands.opening import open_sae
from interp.index.glimpse import glimpse
from interp.index.layout import inside, lay_out, load_layout, roughly, save_layout
from interp.places import sha256_file
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench import mapping as maps


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    return tmp_path


def clusters():
    """Three bundles of twenty directions each, and one direction that never fires."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.eye(8)[:3].repeat_interleave(20, 0) + 0.1 * torch.randn(60, 8, generator=generator)
    return torch.cat([rows, torch.randn(1, 8, generator=generator)]), np.arange(61) < 60


def test_features_of_one_bundle_stand_nearer_than_those_of_two_and_silent_ones_nowhere():
    rows, fires = clusters()
    placed = lay_out(rows, fires)
    assert np.isnan(placed.xy_F2[60]).all()
    xy = placed.xy_F2[:60]
    assert ((xy >= 0) & (xy <= 1)).all()
    bundle = np.arange(60) // 20
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    same = bundle[:, None] == bundle[None]
    nearest = np.where(np.eye(60, dtype=bool), np.inf, apart).argmin(1)
    assert (bundle[nearest] == bundle).all()
    assert np.median(apart[same]) < np.median(apart[~same])


def test_features_beyond_those_that_are_laid_out_stand_among_their_nearest(monkeypatch):
    monkeypatch.setattr("interp.index.layout.LAID", 30)
    rows, fires = clusters()
    xy = lay_out(rows, fires).xy_F2[:60]
    assert np.isfinite(xy).all()
    bundle = np.arange(60) // 20
    apart = np.where(np.eye(60, dtype=bool), np.inf, np.linalg.norm(xy[:, None] - xy[None], axis=-1))
    assert (bundle[apart.argmin(1)] == bundle).mean() > 0.9


def test_the_same_seed_gives_the_same_map():
    rows, fires = clusters()
    assert np.array_equal(lay_out(rows, fires).xy_F2, lay_out(rows, fires).xy_F2, equal_nan=True)


def test_principal_components_stand_in_for_a_map_that_was_not_made():
    placed = roughly(torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]]), np.ones(4, dtype=bool))
    assert placed.xy_F2[0] == pytest.approx(1 - placed.xy_F2[1], abs=1e-5)
    assert np.isnan(roughly(torch.randn(4, 3), np.zeros(4, dtype=bool)).xy_F2).all()


def test_inside_an_outline_is_what_a_ray_crosses_an_odd_number_of_times():
    square = np.array([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]])
    hook = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.1]])
    places = np.array([[0.5, 0.5], [0.1, 0.5], [0.9, 0.9], [np.nan, np.nan], [0.9, 0.5]], dtype=np.float32)
    assert inside(places, square).tolist() == [True, False, False, False, False]
    assert inside(places, hook).tolist() == [False, False, False, False, True]


def test_a_map_is_kept_to_the_step_and_refused_of_other_weights_or_damaged(tmp_path):
    rows, fires = clusters()
    placed, path = lay_out(rows, fires), tmp_path / "map.safetensors"
    save_layout(path, placed, "a" * 64)
    again = load_layout(path, "a" * 64, 61)
    assert np.allclose(again.xy_F2, placed.xy_F2, atol=1 / 60_000, equal_nan=True)
    with pytest.raises(InterpError, match="is no map of these 61 features"):
        load_layout(path, "b" * 64, 61)
    with pytest.raises(InterpError, match="is no map of these 60 features"):
        load_layout(path, "a" * 64, 60)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InterpError, match="cannot be read"):
        load_layout(path, "a" * 64, 61)


def test_interp_map_makes_a_map_once_and_hands_it_on_beside_the_sae(checkpoint, home, monkeypatch):
    own = home / "tiny"
    shutil.copytree(checkpoint, own)
    card = Card.read(own)
    before = map_version(str(own))
    rough = json.loads(drawn_map(str(own)))
    assert "principal components" in rough["how"]
    made = map_features(str(own), beside=True)
    assert made.where == str(own / maps.FILE)
    assert made.features == len(rough["feature"])
    assert map_version(str(own)) != before
    if card.files:
        assert Card.read(own).files[maps.FILE] == sha256_file(own / maps.FILE)
    laid = json.loads(drawn_map(str(own)))
    assert "t-SNE" in laid["how"]
    assert laid["topics"][-1] == "mixed"
    monkeypatch.setattr(maps, "lay_out", lambda *_, **__: pytest.fail("it was there"))
    map_features(str(own))
    monkeypatch.setenv("INTERP_HOME", str(home / "another"))  # where only the one beside the SAE is
    assert json.loads(drawn_map(str(own)))["x"] == laid["x"]


def test_an_outline_is_a_condition_of_a_search(checkpoint, home):
    wb = Workbench.open(checkpoint)
    drawn = json.loads(drawn_map(str(checkpoint)))
    everywhere = wb.search("map:0,0;1000,0;1000,1000;0,1000", limit=100)
    assert {hit.feature for hit in everywhere} <= set(drawn["feature"])
    left = {hit.feature for hit in wb.search("map:0,0;500,0;500,1000;0,1000 dead:no", limit=100)}
    wanted = {
        f for f, x, y in zip(drawn["feature"], drawn["x"], drawn["y"], strict=True) if 0 < x < 4990 and 0 < y < 9990
    }
    assert wanted <= left
    assert not left & {f for f, x in zip(drawn["feature"], drawn["x"], strict=True) if x > 5010}
    for bad in ("1,2;3", "1,2;3,4", "1,2;3,4;5,1001", "a,b;c,d;e,f", ";".join(["1,1"] * 201)):
        with pytest.raises(InterpError, match="is no outline"):
            wb.search(f"map:{bad}")


def test_a_glimpse_shows_the_strongest_example_that_may_be_passed_on(checkpoint, home):
    index = open_sae(str(checkpoint)).index
    for feature in range(index.d_sae):
        examples = [e for e in index.examples(feature) if e.band == 0]
        seen = glimpse(index, feature)
        assert (seen is None) == (not examples)
        if seen is not None:
            assert seen.position == examples[0].position
            assert seen.tokens[seen.peak] == examples[0].tokens[examples[0].peak]
            assert seen.values[seen.peak] == pytest.approx(examples[0].value, rel=1e-3)
