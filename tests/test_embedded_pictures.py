"""The shipped SAE of pictures: shown where neither its pictures nor its model are, opened by sae-lens, with licences of all that it shows."""

import re

import pyarrow.parquet as pq
import pytest
import torch

from interp.checkpoint import Card, load
from interp.index import FeatureIndex
from interp.index.pictures import open_copy
from interp.render.look import Look
from interp.verification import verify
from interp.workbench import Workbench
from interp.workbench.looking import looks
from tests.conftest import PICTURES, ROOT

FOLDER = ROOT / "saes" / PICTURES


@pytest.fixture(scope="module")
def index():
    return FeatureIndex.open(FOLDER / "index")


def test_every_example_is_shown_from_its_copy_where_there_is_no_model(index):
    wb = Workbench.open(FOLDER, labels="sqlite://")
    features = index.features["fires"].sort_values(ascending=False).index[::200]
    assert len(features) > 5
    for feature in features:
        page = wb.feature(int(feature))
        found = looks(wb, int(feature), page.examples)
        for example in page.examples:
            look = found[example.position]
            assert isinstance(look, Look), look
            assert look.of.copy
            assert look.values[look.peak] == pytest.approx(example.value, rel=2e-3)
        if page.examples:
            assert re.match("fires on (‘.*’ most, )?patches of ", index.describe(int(feature)))
    told = [feature for feature, one in index.preferences.items() if one.told]
    assert len(told) > 100
    assert f"fires on ‘{index.preferences[told[0]].folder}’ most, patches of" in index.describe(told[0])
    assert "data:image/jpeg;base64" in wb.feature(int(features[0]))._repr_html_()


def test_every_copy_is_a_small_picture_of_a_document_that_may_be_passed_on(index):
    documents = index.documents
    assert 250 <= len(index.pictures) <= len(documents)
    assert documents["passes_on"].all()
    for copy in index.pictures.values():
        assert max(open_copy(copy).size) == 128


def test_sources_have_licences_and_the_index_has_pictures_that_training_did_not_see(index):
    card, whole = Card.read(FOLDER), (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for source in set(index.documents["source"]) | set(card.corpus["shares"]):
        said = card.licences[f"pictures: {source}"]
        package = said.partition("Debian's ")[2].rstrip(")")
        assert package
        assert package in whole
    assert "GNU GENERAL PUBLIC LICENSE" in whole
    trained = index.documents["trained_on"]
    assert set(trained) == {"yes", "no"}
    assert (trained[index.documents["split"] == "train"] == "yes").mean() > 0.99
    assert (trained[index.documents["split"] == "heldout"] == "no").all()
    held = card.metrics["held_out_pictures"]
    assert held["pictures"] > 90
    assert held["fvu"] < 0.25


def test_sae_lens_encodes_and_decodes_as_we_do():
    import sae_lens

    ours, theirs = load(FOLDER), sae_lens.SAE.load_from_disk(FOLDER)
    rows = torch.randn(64, ours.d_in, generator=torch.Generator().manual_seed(0))
    x = ours.b_dec + rows * float(ours.W_dec.norm(dim=1).mean()) * 4
    with torch.no_grad():
        mine, dense = ours.encode(x), theirs.encode(x)
        assert float((mine > 0).sum(1).float().mean()) > 1
        assert torch.allclose(mine, dense, atol=1e-3)
        assert torch.allclose(ours.decode(mine), theirs.decode(dense), atol=1e-2)


def test_nothing_differs_and_no_file_says_where_it_was_made():
    found = verify(FOLDER)
    assert not found.differs
    assert found.verdict in ("verified", "files only")  # the model is a package that few have
    for path in FOLDER.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert not any(place in raw for place in (b"/root/", b"/work/", b"/tmp/", b"/home/")), path
    for path in FOLDER.rglob("*.parquet"):
        assert "file" not in pq.read_schema(path).names
