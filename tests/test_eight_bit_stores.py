"""Activations in 8 bits: half the disk, read as any other by whoever reads a store, and nearly as they were."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from interp.activations import ActivationStore, harvest, open_stores
from interp.activations.eight_bit import in_bytes, read_bytes
from interp.commands.training import sweep, train
from interp.corpus import open_corpus
from interp.types import InterpError
from interp.workbench import Workbench
from tests import crew
from tests.conftest import HOOK


def stored(x: torch.Tensor, folder: Path) -> torch.Tensor:
    """What is read of activations after they were stored."""
    save_file(in_bytes({"h": x, "norm/h": x.float().norm(dim=1)}, ["h"]), folder / "shard")
    with safe_open(folder / "shard", framework="pt") as file:
        return read_bytes(file, "h", str(x.dtype).removeprefix("torch."))


def error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (y.float() - x.float()).norm(dim=1) / x.float().norm(dim=1)


def test_a_row_is_off_by_half_a_step_at_most(tmp_path):
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 25) + 5
    y = stored(x, tmp_path)
    mean, spread = x.double().mean(0), x.double().std(0, correction=0)
    step = ((x - mean) / spread).abs().amax(1, keepdim=True) / 127 * spread
    assert y.dtype == x.dtype
    assert bool(((y - x).abs() <= 0.5 * step + 1e-4).all())
    assert float((y - x).abs().max()) > 0


def test_channels_that_are_always_large_and_sinks_do_not_wreck_rows(tmp_path):
    """As in a residual stream: two channels a hundred times as large as the others in every row, and sinks."""
    x = torch.randn(2000, 64, generator=torch.Generator().manual_seed(1))
    x[:, :2] = 100 + 10 * x[:, :2]
    x[::200] *= 300
    usual = torch.arange(2000) % 200 > 0
    rest = slice(2, None)  # what an SAE is to explain beside the large ones
    assert float(error(x[usual][:, rest], stored(x, tmp_path)[usual][:, rest]).max()) < 0.02
    row = (x.abs().amax(1, keepdim=True) / 127).expand_as(x)  # one scale a row, and nothing else
    assert float(error(x[usual][:, rest], ((x / row).round() * row)[usual][:, rest]).median()) > 0.2
    assert float(error(x[~usual], stored(x, tmp_path)[~usual]).max()) < 0.05


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_when_it_is_read(tmp_path, value):
    x = torch.randn(50, 8)
    x[7, 3] = value
    x[20] = 0
    y = stored(x, tmp_path)
    assert y.isfinite().all(1).tolist() == [row != 7 for row in range(50)]
    assert torch.allclose(stored(torch.full((4, 8), 3.0), tmp_path), torch.full((4, 8), 3.0))
    assert stored(torch.full((4, 8), value), tmp_path).isfinite().sum() == 0


@pytest.fixture(scope="module")
def both(tmp_path_factory, tiny, text_folder):
    """(a store as the model gave it, the same in 8 bits), of several shards."""
    at = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.activations.manifest.SHARD_POSITIONS", crew.SHARD)
        for name in ("", "int8"):
            harvest(tiny, open_corpus(text_folder), [HOOK], 4096, at / f"acts{name}", stored=name)
    return ActivationStore.open(at / "acts"), ActivationStore.open(at / "actsint8")


def test_a_store_in_8_bits_has_the_same_text_and_norms(both):
    plain, eight = both
    assert "stored" not in plain.recipe
    assert eight.recipe == plain.recipe | {"stored": "int8"}
    assert torch.equal(eight.norms(HOOK), plain.norms(HOOK))
    assert torch.equal(eight.keep(HOOK), plain.keep(HOOK))
    for (first, x), (there, y) in zip(plain.in_order(HOOK), eight.in_order(HOOK), strict=True):
        assert first == there
        assert y.dtype == x.dtype
        assert float(error(x, y).max()) < 0.03
    sizes = [sum(path.stat().st_size for path in store.folder.glob("shard-*")) for store in both]
    assert sizes[1] < 0.4 * sizes[0]  # of float32, and the norms beside them


def test_whoever_reads_a_store_reads_one_in_8_bits(both, tmp_path):
    _, eight = both
    url = f"file://{tmp_path / 'there'}"
    shutil.copytree(eight.folder, tmp_path / "there")
    made = train(str(eight.folder), [HOOK], tmp_path / "here", d_sae=32, k=2, batch=64, device="cpu")
    train(url, [HOOK], tmp_path / "far", d_sae=32, k=2, batch=64, device="cpu")
    files = [(tmp_path / name / "sae_weights.safetensors").read_bytes() for name in ("here", "far")]
    assert files[0] == files[1]
    assert json.loads((made.into / "card.json").read_text())["recipe"]["stored"] == "int8"
    sweep(str(eight.folder), tmp_path / "sweep", hook=[HOOK], d_sae=[16, 32], k=[2], batch=64, device="cpu")
    assert len(list((tmp_path / "sweep").rglob("card.json"))) == 2
    beside = open_stores(f"{eight.folder}+{both[0].folder}")
    assert torch.equal(beside.read(beside.shards[0], f"1:{HOOK}"), eight.read(eight.shards[0], HOOK))
    bench = Workbench.open(made.into, labels="sqlite://")
    bench.build_index(eight, 512)
    assert int(bench.index.features["fires"].sum()) > 0


def test_a_run_goes_on_and_an_sae_is_kept_only_where_activations_are_stored_alike(both, tmp_path):
    plain, eight = both
    given = {"d_sae": 32, "k": 2, "batch": 64, "device": "cpu"}
    train(str(eight.folder), [HOOK], tmp_path / "sae", **given)
    with pytest.raises(InterpError, match="stored = 'int8', and '' was asked"):
        train(str(plain.folder), [HOOK], tmp_path / "sae", **given)


def test_a_harvest_of_another_kind_is_refused(both, tiny, text_folder):
    plain, eight = both
    for store, asked, there in ((plain, "int8", "None"), (eight, "", "'int8'")):
        with pytest.raises(InterpError, match=f"with stored = {there}"):
            harvest(tiny, open_corpus(text_folder), [HOOK], 4096, store.folder, stored=asked)
    with pytest.raises(InterpError, match="int4"):
        harvest(tiny, open_corpus(text_folder), [HOOK], 4096, "nowhere", stored="int4")


def test_a_manifest_that_says_another_kind_is_refused(both, tmp_path):
    shutil.copytree(both[1].folder, tmp_path / "acts")
    told = json.loads((tmp_path / "acts" / "manifest.json").read_text())
    told["recipe"]["stored"] = "int4"
    (tmp_path / "acts" / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(InterpError, match="stored is 'int4'"):
        ActivationStore.open(tmp_path / "acts")
