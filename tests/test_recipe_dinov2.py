"""The recipe of the embedded SAE of pictures, whole and small: packages made here, a tiny model of random weights."""

import hashlib
import importlib.util
import io
import sys

import numpy as np
import pytest
from PIL import Image

from interp.checkpoint import Card
from interp.corpus import archives
from interp.corpus.documents import split_of
from interp.corpus.pins import Archive
from interp.index import FeatureIndex
from interp.models import open_model
from interp.types import InterpError
from interp.verification import verify
from tests.conftest import ROOT
from tests.families import save_media
from tests.test_archives import deb


def png(number, opaque=True):
    draw = np.random.default_rng(number)
    pixels = np.full((90, 120, 4), 255, dtype=np.uint8)
    pixels[..., :3] = draw.integers(0, 255, 3, dtype=np.uint8)
    row, column = draw.integers(0, 60, 2)
    pixels[row : row + 30, column : column + 30, :3] = draw.integers(0, 255, (30, 30, 3), dtype=np.uint8)
    pixels[:10, :, 3] = 255 if opaque else 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def package(recipe, name, files, **about):
    """A Debian package of these files, where those that were fetched lie."""
    content = deb(files)
    archive = Archive(
        kind="debian", name=name, version="1.0", file=f"{name}.deb", sha256=hashlib.sha256(content).hexdigest(), size=9
    )  # fmt: skip
    archives.folder().mkdir(parents=True, exist_ok=True)
    (archives.folder() / archive.file).write_bytes(content)
    return recipe.Package(archive=archive, **about)


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """The recipe over two small packages."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    spec = importlib.util.spec_from_file_location("dinov2_recipe", ROOT / "recipes" / "dinov2.py")
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "dinov2_recipe", made)
    spec.loader.exec_module(made)
    things = {f"usr/share/things/animals/cat{n}.png": png(n, opaque=False) for n in range(20)}
    views = {f"usr/share/views/view{n}.png": png(100 + n) for n in range(6)}
    both = {
        "things": package(
            made, "the-things", things | {"usr/share/things/symbols/a.png": png(50), "usr/share/doc/x/copyright": b"GPL-9"},
            pattern=r"usr/share/things/((?!symbols/).+)\.png", licence="GPL-9", crops=2, objects=True,
        ),
        "views": package(
            made, "the-views", views | {"usr/share/doc/y/copyright": b"BSD-9"},
            pattern=r"usr/share/views/(.+)\.png", licence="BSD-9", crops=3,
        ),
    }  # fmt: skip
    (tmp_path / "GPL").write_text("GNU")
    model = save_media("dinov2_with_registers", tmp_path / "model")
    small = {"PACKAGES": both, "WORK": tmp_path / "work", "INTO": tmp_path / "sae", "GPL": tmp_path / "GPL"}
    small |= {"HOOK": "blocks.1.hook_resid_post", "D_SAE": 64, "K": 8, "SIDE": 40, "INDEXED": 10, "NAME": "small"}
    for name, value in small.items():
        monkeypatch.setattr(made, name, value)
    monkeypatch.setattr(made, "open_model", lambda name: open_model(str(model), dtype="float32"))
    return made


def test_the_whole_recipe(recipe):
    for stage in recipe.STAGES.values():
        stage()
    files = sorted((recipe.WORK / "pictures").rglob("*.jpg"))
    assert not [file for file in files if "symbols" in str(file)]
    train, held = ({file for file in files if split in file.parts} for split in ("train", "heldout"))
    assert train
    assert held
    for split, own in (("train", train), ("heldout", held)):  # what a file's hash says is what its picture's says
        assert {split_of(hashlib.sha256(file.read_bytes()).digest()) for file in own} == {split}
    names = [{(file.parts[-3], file.name.rpartition("-")[0]) for file in own} for own in (train, held)]
    assert not names[0] & names[1]
    whole = next(file for file in files if file.name == "cat0-0.jpg")
    with Image.open(whole) as opened:
        assert np.asarray(opened)[:3].min() > 240  # a thing stands on white
    card, index = Card.read(recipe.INTO), FeatureIndex.open(recipe.INTO / "index")
    found = card.metrics["held_out_pictures"]
    assert found["pictures"] == len(names[1])
    assert found["patches"] == 16 * len(held) == sum(one["patches"] for one in found["by_source"].values())
    assert card.licences["pictures: views"] == "BSD-9 (Debian's the-views 1.0)"
    said = (recipe.INTO / "LICENSE").read_text()
    assert [said.count(text) for text in ("==== the-things 1.0\n\nGPL-9", "==== the-views 1.0\n\nBSD-9", "GNU")] == [
        1,
        1,
        2,
    ]
    assert set(index.documents["trained_on"]) == {"yes", "no"}
    assert (index.documents["trained_on"] == "yes").tolist() == (index.documents["split"] == "train").tolist()
    assert len(index.pictures) == len(index.documents) <= 10
    assert verify(recipe.INTO).verdict == "verified"


def test_a_package_that_is_another_is_refused_by_its_own_name(recipe):
    (archives.folder() / "the-views.deb").write_bytes(deb({"usr/share/views/view.png": png(1)}))
    with pytest.raises(InterpError, match=r"the-views\.deb is not the-views 1\.0 as it was read before"):
        recipe.stage_pictures()
