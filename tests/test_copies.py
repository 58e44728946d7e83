"""Small copies of pictures in an index that is shared: which are made, which leave, and what hostile ones can do."""

import io
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from interp import places
from interp.activations import stream
from interp.checkpoint import Card, pack, unpack
from interp.checkpoint.files import present
from interp.commands.inspecting import inspect_feature, look_at
from interp.corpus import open_corpus
from interp.index import FeatureIndex
from interp.index.pictures import LARGEST, MOST, NAME, SIDE, WIDEST, read_pictures, used
from interp.models import open_model
from interp.publishing import carries
from interp.recipe import train_checkpoint
from interp.render.look import Look, Unseen
from interp.types import InterpError
from interp.verification import seal, verify
from interp.workbench import Workbench
from interp.workbench.looking import looks
from tests.families import pictures, save_media
from tests.test_cli import call
from tests.test_damaged import describe

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a checkpoint whose index keeps examples, the folder of its pictures)."""
    root = tmp_path_factory.mktemp("copies")
    items = pictures(root / "pictures", 24)
    for file in sorted(items.rglob("*.png"))[:6]:  # of another shape, and with words that nobody is to pass on
        with Image.open(file) as opened:
            opened.resize((60, 40)).save(file, pnginfo=None)
    model = open_model(str(save_media("dinov2_with_registers", root / "model")), dtype="float32")
    train_checkpoint(stream(model, open_corpus(items), [HOOK], 2_000), HOOK, root / "sae", d_sae=64, k=8, batch=128)
    wb = Workbench.open(root / "sae", labels="sqlite://")
    wb.build_index(open_corpus(items), 2_000, beside=True, keep="examples")
    seal(root / "sae")
    return root / "sae", items


@pytest.fixture
def theirs(made, tmp_path):
    """The checkpoint where its pictures are not: they were never named in it."""
    return shutil.copytree(made[0], tmp_path / "theirs" / "sae")


def shown(folder):
    """The looks of a feature's examples, from copies alone."""
    wb = Workbench.open(folder, labels="sqlite://")
    feature = int(wb.index.features["fires"].to_numpy().argmax())
    return looks(wb, feature, wb.feature(feature).examples)


def put(folder, documents, copies):
    """These copies in the place of those that the index has, described anew, so that they are read."""
    pq.write_table(pa.table({"document": documents, "picture": copies}), folder / "index" / NAME)
    describe(folder / "index")


def jpeg(width, height):
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "JPEG")
    return out.getvalue()


def test_an_index_of_examples_is_built_with_copies_of_what_its_examples_are_from(made):
    folder, _ = made
    index = FeatureIndex.open(folder / "index")
    assert set(index.pictures) == set(used(folder / "index" / "examples.parquet", index.document_at))
    for copy in index.pictures.values():
        with Image.open(io.BytesIO(copy)) as opened:
            assert opened.format == "JPEG"
            assert max(opened.size) <= SIDE
            assert not opened.getexif()
    assert "small copies of its pictures" in carries(present(folder)[0])
    found = shown(folder)
    assert found
    assert all(look.of.copy for look in found.values())


def test_the_command_keeps_examples_and_copies(made, monkeypatch, capsys, tmp_path):
    folder, items = made
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    sae = shutil.copytree(folder, tmp_path / "sae", ignore=shutil.ignore_patterns("index"))
    command = ("index", sae, "--corpus", items, "--tokens", "2000", "--beside", "--keep", "examples")
    code, _, err = call(monkeypatch, capsys, *command)
    assert code == 0, err
    assert read_pictures(sae / "index" / NAME) == read_pictures(folder / "index" / NAME)
    page = inspect_feature(str(sae), int(FeatureIndex.open(sae / "index").features["fires"].to_numpy().argmax()))
    found = look_at(str(sae), page)
    assert found
    assert all(look.of.copy for look in found.values())


def test_copies_are_packed_verified_and_unpacked(theirs, tmp_path):
    found = verify(theirs)
    assert (found.verdict, found.differs) == ("verified", [])
    assert [claim.status for claim in found.claims if claim.what == "index: pictures"] == ["only hashed"]
    assert any(check.what == "numbers on the probe: codes" and check.verdict == "holds" for check in found.checks)
    pack(theirs, tmp_path / "a.interp.tar")
    unpack(tmp_path / "a.interp.tar", tmp_path / "back")
    assert read_pictures(tmp_path / "back" / "index" / NAME) == read_pictures(theirs / "index" / NAME)
    with (tmp_path / "back" / "index" / NAME).open("r+b") as file:
        file.seek(40)
        file.write(b"\0\0\0")
    assert [check.what for check in verify(tmp_path / "back").differs] == [f"file index/{NAME}"]


def test_other_weights_do_not_verify_on_noise(theirs):
    from safetensors.torch import load_file, save_file

    weights = load_file(theirs / "sae_weights.safetensors")
    weights["W_enc"] = weights["W_enc"].roll(1, 0)
    save_file(weights, theirs / "sae_weights.safetensors")
    card = Card.read(theirs)
    assert card.files
    assert {"numbers on the probe: codes", "file sae_weights.safetensors"} <= {c.what for c in verify(theirs).differs}


def test_a_copy_of_a_document_that_may_not_be_passed_on_does_not_leave(theirs, tmp_path):
    documents = pq.read_table(theirs / "index" / "documents.parquet")
    column = documents.column_names.index("passes_on")
    closed = documents.set_column(column, "passes_on", pa.array([at > 0 for at in range(len(documents))]))
    pq.write_table(closed, theirs / "index" / "documents.parquet")
    tokens = pq.read_table(theirs / "index" / "tokens.parquet")
    own = (tokens["document"].to_numpy() == 0) & (tokens["token"].to_numpy() != 0)
    without = pa.array(tokens["token"].to_numpy(), mask=own)
    pq.write_table(tokens.set_column(0, "token", without), theirs / "index" / "tokens.parquet")
    describe(theirs / "index")
    seal(theirs)
    copies = read_pictures(theirs / "index" / NAME)
    assert 0 in copies
    with pytest.raises(
        InterpError, match="the index holds small copies of 1 documents whose text may not be passed on"
    ):
        pack(theirs, tmp_path / "a.interp.tar")
    assert not (tmp_path / "a.interp.tar").exists()
    del copies[0]
    put(theirs, list(copies), list(copies.values()))
    seal(theirs)
    pack(theirs, tmp_path / "a.interp.tar")


@pytest.mark.parametrize(
    ("copy", "why"),
    [
        (b"", "cannot be read as a JPEG"),
        (b"no picture", "cannot be read as a JPEG"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be read as a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "cannot be read as a JPEG"),
        (b"../../../../etc/passwd", "cannot be read as a JPEG"),
        (jpeg(64, 64)[:200], "cannot be read as a JPEG"),
        (jpeg(WIDEST + 1, 4), f"has {WIDEST + 1} × 4 pixels, which is no small one"),
    ],
)
def test_a_copy_that_is_no_small_jpeg_is_told_in_a_sentence(theirs, copy, why):
    index = FeatureIndex.open(theirs / "index")
    put(theirs, list(index.pictures), [copy] * len(index.pictures))
    found = shown(theirs)
    assert found
    assert all(isinstance(look, Unseen) and why in look.why for look in found.values())


def test_a_copy_that_claims_a_huge_picture_is_not_decoded(theirs, monkeypatch):
    head = bytearray(jpeg(16, 16))
    at = head.index(b"\xff\xc0") + 5
    head[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    index = FeatureIndex.open(theirs / "index")
    put(theirs, list(index.pictures), [bytes(head)] * len(index.pictures))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    assert all("cannot be read" in look.why or "60000" in look.why for look in shown(theirs).values())


def test_what_a_copy_shows_is_made_anew_and_never_its_own_bytes(theirs):
    index = FeatureIndex.open(theirs / "index")
    picture = Image.new("RGB", (64, 64))
    ImageDraw.Draw(picture).rectangle((0, 0, 20, 20), fill="red")
    out = io.BytesIO()
    picture.save(out, "JPEG", comment=b"</svg><script>alert(1)</script>")
    put(theirs, list(index.pictures), [out.getvalue()] * len(index.pictures))
    for look in shown(theirs).values():
        assert isinstance(look, Look)
        assert b"script" not in look.of.jpeg + look.of.crop


@pytest.mark.parametrize(
    ("documents", "copies", "why"),
    [
        ([0], [b"x" * (LARGEST + 1)], "holds more than small copies"),
        (list(range(MOST + 1)), [b"x"] * (MOST + 1), "holds more than small copies"),
        (["../x"], [b"x"], "has no column document"),
        ([0], ["../x.jpg"], "has no column picture"),
        ([None], [b"x"], "has no column document|rows without document"),
    ],
)
def test_a_file_of_copies_that_is_not_as_it_is_written_is_refused(tmp_path, documents, copies, why):
    pq.write_table(pa.table({"document": documents, "picture": copies}), tmp_path / NAME)
    with pytest.raises(InterpError, match=why):
        read_pictures(tmp_path / NAME)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_is_read(tmp_path, monkeypatch):
    from interp.index import pictures as module

    table = pa.table({"document": range(64), "picture": [bytes(4_000_000)] * 64})
    pq.write_table(table, tmp_path / NAME, compression="zstd", use_dictionary=False)
    assert places.sha256_file(tmp_path / NAME)
    assert (tmp_path / NAME).stat().st_size < 1 << 20
    monkeypatch.setattr(module, "LARGEST", 1 << 10)
    monkeypatch.setattr(module, "read_parquet", lambda *given: pytest.fail("it was read"))
    with pytest.raises(InterpError, match="holds more than small copies"):
        read_pictures(tmp_path / NAME)


def test_copies_of_documents_that_the_index_does_not_have_are_shown_nowhere(theirs):
    put(theirs, [10_000], [jpeg(64, 64)])
    assert all("does not say where it lies" in look.why for look in shown(theirs).values())


torch.set_num_threads(1)
