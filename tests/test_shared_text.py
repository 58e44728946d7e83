"""Several SAEs over the same text keep its tokens once, and each is whole wherever it goes."""

import shutil

import pytest

from interp import places
from interp.checkpoint import pack, unpack
from interp.checkpoint.files import pin, present
from interp.checkpoint.shared import SHARED, located, share
from interp.corpus import open_corpus
from interp.index import FeatureIndex
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.types import InterpError
from interp.verification import Asked, check_files, verify
from interp.workbench import Workbench
from tests.conftest import HOOK


@pytest.fixture
def two(store, text_folder, tmp_path):
    """Two SAEs of one model and hook point, laid out as the shipped ones are."""
    folders = [tmp_path / "saes" / "tiny" / HOOK / name for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        options = {"epochs": 1, "batch": 256, "config": TrainConfig(lr=5e-3, seed=seed)}
        train_checkpoint(store, HOOK, folder, d_sae=32, k=4, **options)
        wb = Workbench.open(folder, labels="sqlite://")
        wb.build_index(open_corpus(text_folder), 2_048, keep="examples", beside=True)
    return folders


def bytes_of(files):
    return {name: path.read_bytes() for name, path in files.items()}


def test_two_indexes_keep_one_text_and_say_what_they_said(two, tmp_path):
    before = [(bytes_of(present(folder)[0]), FeatureIndex.open(folder / "index").examples(3)) for folder in two]
    for folder in two:
        assert len(share(folder, HOOK)) == len(SHARED)
    assert share(two[0], HOOK) == []
    text = sorted(path.name for path in (tmp_path / "saes" / "tiny" / "text").iterdir())
    assert [name.partition("-")[0] for name in text] == ["documents", "tokens", "vocabulary"]
    for folder, (files, examples) in zip(two, before, strict=True):
        assert not {path.name for path in (folder / "index").iterdir()} & set(SHARED)
        assert bytes_of(present(folder)[0]) == files
        index = FeatureIndex.open(folder / "index")
        index.verify()
        assert index.examples(3) == examples
        assert verify(folder, Asked(numbers=False)).differs == []


def test_one_of_them_goes_whole(two, tmp_path):
    own = pin(present(two[0])[0])
    for folder in two:
        share(folder, HOOK)
    packed = pack(two[0], tmp_path / "a.interp.tar")
    assert {f"index/{name}" for name in SHARED} <= set(packed.files)
    away = tmp_path / "elsewhere" / "a"
    assert unpack(tmp_path / "a.interp.tar", away).pin == own == packed.pin
    assert set(SHARED) <= {path.name for path in (away / "index").iterdir()}
    assert FeatureIndex.open(away / "index").examples(3) == FeatureIndex.open(two[0] / "index").examples(3)
    Workbench.open(two[1], labels="sqlite://").publish(tmp_path / "published")
    assert set(SHARED) <= {path.name for path in (tmp_path / "published" / "index").iterdir()}
    assert verify(tmp_path / "published", Asked(numbers=False)).differs == []


def test_shared_text_that_is_gone_or_changed_is_named(two, tmp_path):
    share(two[0], HOOK)
    tokens = next((tmp_path / "saes" / "tiny" / "text").glob("tokens-*"))
    raw = tokens.read_bytes()
    tokens.write_bytes(raw[:-9] + b"x" + raw[-8:])
    with pytest.raises(InterpError, match=f"{tokens.name} is not the file that was written with this index"):
        FeatureIndex.open(two[0] / "index").tokens  # noqa: B018
    assert {c.what for c in check_files(two[0]) if c.verdict == "differs"} == {"file index/tokens.parquet"}
    tokens.unlink()
    with pytest.raises(InterpError, match=r"there is no index in .*tokens\.parquet is missing"):
        FeatureIndex.open(two[0] / "index")
    with pytest.raises(InterpError, match=r"index/tokens\.parquet is named, with its hash"):
        pack(two[0], tmp_path / "a.interp.tar")


def test_a_hash_that_is_none_leads_nowhere(tmp_path):
    (tmp_path / "secret.parquet").write_bytes(b"PAR1 PAR1")
    (tmp_path / "a" / "text" / "tokens-").mkdir(parents=True)
    index = tmp_path / "a" / "b" / "index"
    for digest in ("../../../secret", "", "0" * 63, "Z" * 64):
        assert located(index, "tokens.parquet", digest) == index / "tokens.parquet"


def test_a_text_is_not_shared_with_what_lies_beside_by_chance(two, tmp_path):
    """A file of that name and other content is replaced; an index that is built anew has its text inside."""
    digest = places.read_json(two[0] / "index" / "index.json")["files"]["tokens.parquet"]
    planted = tmp_path / "saes" / "tiny" / "text" / f"tokens-{digest[:12]}.parquet"
    planted.parent.mkdir()
    planted.write_bytes(b"PAR1 other PAR1")
    share(two[0], HOOK)
    assert places.sha256_file(planted) == digest
    shutil.rmtree(two[0] / "index")
    wb = Workbench.open(two[0], labels="sqlite://")
    wb.build_index("wiki-en", 1_024, keep="examples", beside=True, share=True)
    names = {path.name for path in planted.parent.iterdir()}
    assert len(names) == 5  # the vocabulary is the same
    FeatureIndex.open(two[0] / "index").verify()
