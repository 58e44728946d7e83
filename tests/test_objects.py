"""Stores and indexes at a URL: sent shard by shard, fetched as they are read, and what becomes of both when the store fails."""

import errno
import random
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import torch

from interp import objects, places
from interp.activations import ActivationStore, harvest, harvesting, open_stores
from interp.corpus import open_corpus
from interp.index import FeatureIndex, parts
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from tests import crew
from tests.conftest import HOOK
from tests.failing import FailingFileSystem as Failing
from tests.test_cli import call

TOKENS, SHARD, SHARDS = 4096, 512, 8
URL = "failing://bucket/acts"
FULL = OSError(errno.ENOSPC, "No space left on device")
DENIED = PermissionError("Access Denied")
VANISHED = FileNotFoundError("The specified bucket does not exist")
UNREACHABLE = ConnectionError("Could not connect to the endpoint URL: https://key:secret@store/")


@pytest.fixture(autouse=True)
def _small_shards_in_a_home_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", SHARD)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    yield
    Failing.store.clear()
    Failing.mend()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as other processes have
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tiny, text_folder, tmp_path_factory):
    """The store in a folder."""
    folder = tmp_path_factory.mktemp("whole") / "acts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.activations.manifest.SHARD_POSITIONS", SHARD)
        harvest(tiny, open_corpus(text_folder), [HOOK], TOKENS, folder)
    return folder


@pytest.fixture
def send(tiny, text_folder, monkeypatch):
    """Harvests to a URL; `send.made` counts the shards that the model ran over."""
    real = harvesting.run_shard

    def counting(*given):
        again.made += 1
        return real(*given)

    def again(url=URL, tokens=TOKENS, **more):
        return harvest(tiny, open_corpus(text_folder), [HOOK], tokens, url, **more)

    again.made = 0
    monkeypatch.setattr(harvesting, "run_shard", counting)
    return again


@pytest.fixture
def there(whole):
    """The store in the failing object store, as any program copies it there."""
    fsspec.filesystem("failing").put(f"{whole}/", "bucket/acts/", recursive=True)
    return URL


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def here(room: str, pattern: str = "shard-*") -> list[Path]:
    """Files of that room of the cache."""
    return sorted((places.cache() / room).glob(f"*/{pattern}"))


def left_over(room: str) -> list[str]:
    return [path.name for path in (places.cache() / room).rglob("*partial")]


def fail(at_write: int, error: BaseException | None) -> None:
    Failing.at_write, Failing.failure = at_write, error


def test_what_is_sent_is_what_a_folder_gets_and_one_shard_at_a_time_is_here(send, whole):
    most = []
    Failing.watch = staticmethod(lambda mode, path: most.append(len(here("harvests", "*shard-*.safetensors*"))))
    store = send()
    assert Failing.files("bucket/acts") == content(whole)
    assert max(most) == 1
    assert not [path for path in here("harvests", "*") if path.is_file()]
    assert store.where == URL
    assert torch.equal(store.norms(HOOK), ActivationStore.open(whole).norms(HOOK))
    made = send.made
    send()  # which finds all there
    assert (made, send.made) == (SHARDS, SHARDS)


@pytest.mark.parametrize("url", ["memory://acts/sent", "file://HERE/sent"])
def test_any_url_that_fsspec_knows_will_do(send, whole, tmp_path, url):
    url = url.replace("HERE", str(tmp_path))
    store = send(url)
    files, root = fsspec.core.url_to_fs(url)
    assert {Path(name).name: files.cat_file(name) for name in files.ls(root, detail=False)} == content(whole)
    assert torch.equal(store.norms(HOOK), ActivationStore.open(whole).norms(HOOK))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FULL, "the store is full. Make room there."),
        (DENIED, "access is denied: Access Denied"),
        (VANISHED, "there is no such bucket, folder or file"),
        (UNREACHABLE, "Could not connect to the endpoint URL: https://store/"),
    ],
    ids=["full", "denied", "vanished", "unreachable"],
)
@pytest.mark.parametrize("write", [2, 8, 9], ids=["text", "shard", "manifest"])
def test_a_store_that_fails_is_a_sentence_and_the_same_call_goes_on(send, whole, error, sentence, write):
    fail(write, error)
    with pytest.raises(InterpError) as told:
        send()
    assert sentence in str(told.value)
    assert str(told.value).endswith(objects.GOES_ON)
    assert "secret" not in str(told.value)
    with pytest.raises(InterpError) as again:  # it fails still
        send()
    assert str(again.value).startswith(URL)
    Failing.mend()
    send()
    assert Failing.files("bucket/acts") == content(whole)
    # What was made and could not be sent is sent; where there seemed to be no bucket at all, it was begun anew.
    assert send.made <= SHARDS + (error is VANISHED)


def test_a_killed_harvest_goes_on_from_what_the_manifest_there_names(send, whole):
    fail(8, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        send()
    half = Failing.files("bucket/acts")[".shard-00002.safetensors.partial"]
    assert 0 < len(half) < (whole / "shard-00002.safetensors").stat().st_size
    fsspec.filesystem("failing").pipe_file("bucket/acts/shard-00002.safetensors", half)  # as other programs leave one
    with pytest.raises(InterpError, match=rf"the harvest in {URL} is not finished \(2 shards so far\)"):
        ActivationStore.open(URL)
    assert ActivationStore.open(URL, shards=2).positions == 2 * SHARD
    shutil.rmtree(places.cache())  # another machine goes on
    send()
    assert Failing.files("bucket/acts") == content(whole)
    assert send.made == SHARDS + 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_killed_costs_a_shard_at_most(tiny_folder, text_folder, whole, tmp_path, seed):
    marks, url, draw = tmp_path / "marks", f"file://{tmp_path}/there", random.Random(seed)

    def begin():
        given = (tiny_folder, text_folder, HOOK, url, TOKENS)
        return crew.begin(crew.harvests, marks, *given, together=False, slow=0.03)

    for count in (1, 3, 6):
        process = begin()
        crew.until(lambda count=count: crew.begun(marks) >= count, [process])
        time.sleep(draw.random() * 0.1)
        process.kill()
        process.join()
    last = begin()
    assert crew.end([last]) == [0], crew.said(marks, last)
    assert content(tmp_path / "there") == content(whole)
    assert SHARDS <= crew.begun(marks) <= SHARDS + 3


def test_a_shard_that_is_gone_there_is_made_again_and_no_other(send, there, whole):
    Failing.store.pop("/bucket/acts/shard-00003.safetensors")
    with pytest.raises(InterpError, match=f"{URL}/shard-00003.safetensors could not be read: there is no such"):
        ActivationStore.open(there).norms(HOOK)
    send()
    assert Failing.files("bucket/acts") == content(whole)
    assert send.made == 1
    Failing.store.pop("/bucket/acts/tokens.parquet")
    with pytest.raises(InterpError, match=f"{URL} has a manifest and no tokens.parquet; begin again with --restart"):
        send()
    send(restart=True)
    assert Failing.files("bucket/acts") == content(whole)


def test_a_store_that_takes_half_and_says_nothing_is_noticed(send, whole):
    fail(4, None)
    with pytest.raises(
        InterpError, match=r"shard-00000.safetensors could not be written: [\d,]+ of [\d,]+ bytes arrived"
    ):
        send()
    send()
    assert Failing.files("bucket/acts") == content(whole)


def test_another_harvest_there_is_refused_and_replaced_when_it_is_to_be(send, whole):
    send(tokens=1024)
    with pytest.raises(InterpError, match=f"{URL} holds a harvest with tokens = 1024, and 4096 was asked"):
        send()
    assert len(Failing.files("bucket/acts")) == 5
    fail(1, DENIED)
    with pytest.raises(InterpError, match="access is denied"):
        send(restart=True)
    Failing.mend()
    assert "manifest.json" not in Failing.files("bucket/acts")  # so that nothing there is taken for the new one
    send()
    assert Failing.files("bucket/acts") == content(whole)
    Failing.store["/bucket/other/manifest.json"] = Failing.store["/bucket/acts/tokens.parquet"]
    fsspec.filesystem("failing").pipe_file("bucket/other/manifest.json", b'{"name": "a page"}')
    with pytest.raises(InterpError, match="failing://bucket/other/manifest.json is another program's"):
        send("failing://bucket/other", restart=True)


def trained(source, into):
    made = {
        "d_sae": 32,
        "k": 4,
        "epochs": 2,
        "batch": 128,
        "buffer": 1024,
        "config": TrainConfig(lr=5e-3, save_every=1024),
    }
    train_checkpoint(source, HOOK, into, **made)
    return (into / "sae_weights.safetensors").read_bytes()


def test_training_from_the_url_is_training_from_the_folder_and_the_cache_keeps_its_bound(
    there, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("interp.activations.remote.SPARE", 1)
    store = ActivationStore.open(there)
    assert store.fetching.keep == 24
    store.fetching.keep = 2
    held, parts_read = [], []

    def look(mode, path):
        (held if mode == "r" else parts_read).append(len(here("stores")))

    Failing.watch = staticmethod(look)
    assert trained(store, tmp_path / "a") == trained(ActivationStore.open(whole), tmp_path / "b")
    assert store.fetching.keep == 3  # a buffer of two shards, and one more
    assert max(held) == 2  # when the third begins to come
    assert len(here("stores")) == 3
    assert len(held) <= 2 * SHARDS + 1  # two epochs, and what is held out; norms come without the rest
    before = len(held), len(parts_read)
    store.norms(HOOK)  # which stay
    assert (len(held), len(parts_read)) == before
    for first, x in store.in_order(HOOK):
        assert torch.equal(x, dict(ActivationStore.open(whole).in_order(HOOK))[first])
    assert len(here("stores")) == 3


def test_a_bucket_that_vanishes_ends_a_training_which_goes_on_bit_for_bit(there, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.remote.SPARE", 1)
    reads = []

    def vanish(mode, path):
        reads.append(mode)
        Failing.gone = VANISHED if reads.count("r") == 9 else None

    store = ActivationStore.open(there)
    store.fetching.keep = 3
    Failing.watch = staticmethod(vanish)
    with pytest.raises(InterpError, match="could not be read: there is no such bucket"):
        trained(store, tmp_path / "a")
    assert reads.count("r") == 9
    assert not left_over("stores")
    Failing.mend()
    assert trained(ActivationStore.open(there), tmp_path / "a") == trained(ActivationStore.open(whole), tmp_path / "b")


@pytest.mark.parametrize("byte", [-4, -4_000], ids=["norms", "activations"])
def test_a_changed_shard_is_not_read_and_one_that_was_damaged_here_comes_again(there, whole, byte):
    files, changed = fsspec.filesystem("failing"), "bucket/acts/shard-00001.safetensors"
    right = files.cat_file(changed)
    wrong = bytearray(right)
    wrong[byte] ^= 1
    files.pipe_file(changed, bytes(wrong))
    store = ActivationStore.open(there)
    with pytest.raises(InterpError, match=f"{URL}/shard-00001.safetensors is not the file that was sent"):
        store.norms(HOOK), list(store.in_order(HOOK))
    assert "shard-00001.safetensors" not in {path.name for path in here("stores")}
    assert not left_over("stores")
    files.pipe_file(changed, right)
    norms = store.norms(HOOK)
    x = torch.cat([x for _, x in store.in_order(HOOK)])
    here("stores")[1].write_bytes(b"rubbish")
    assert torch.equal(torch.cat([x for _, x in store.in_order(HOOK)]), x)
    assert torch.equal(x.float().norm(dim=1), norms)
    assert here("stores")[1].read_bytes() == right


def test_a_store_of_before_whose_norms_have_no_hash_of_their_own_is_read(there, whole):
    manifest = places.read_json(whole / "manifest.json")
    older = [{key: value for key, value in shard.items() if key != "norms_sha256"} for shard in manifest["shards"]]
    older = {key: value for key, value in manifest.items() if key != "text"} | {"shards": older}
    fsspec.filesystem("failing").pipe_file("bucket/acts/manifest.json", places.strict_json(older).encode())
    store = ActivationStore.open(there)
    assert torch.equal(store.norms(HOOK), ActivationStore.open(whole).norms(HOOK))
    assert len(here("stores", "norms-*")) == len(here("stores")) == SHARDS


def test_a_disk_here_that_is_full_is_told_as_such(there):
    def full(mode, path):
        if "shard-00001" in path:
            raise FULL

    Failing.watch = staticmethod(full)
    store = ActivationStore.open(there)
    with pytest.raises(
        InterpError, match=r"the disk is full while writing .*stores/.*set INTERP_HOME to a folder on a larger"
    ):
        list(store.in_order(HOOK))
    assert not left_over("stores")
    Failing.mend()
    assert len(list(store.in_order(HOOK))) == SHARDS


def test_readers_who_share_what_is_kept_read_what_is_right(there, whole):
    """Threads are strangers to each other, as processes are."""
    right = dict(ActivationStore.open(whole).in_order(HOOK))

    def read(order: list[int]) -> int:
        store = ActivationStore.open(there)
        store.fetching.keep = 1
        shards = [store.shards[number] for number in order]
        return sum(torch.equal(store.read(shard, HOOK), right[shard["first"]]) for shard in shards)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, [[0, 1, 2, 3], [3, 2, 1, 0]])) == [4, 4]
    assert len(here("stores")) == 1
    assert not left_over("stores")


def test_stores_at_urls_are_read_side_by_side(there, whole):
    both = open_stores(f"{there} + {whole}")
    x, y = next(iter(both.batches([f"1:{HOOK}", f"2:{HOOK}"], 64, buffer=1024)))
    assert torch.equal(x, y)
    assert both.parts[0].fetching.keep == 24
    assert open_stores(there).where == URL


@pytest.fixture
def bench(checkpoint, monkeypatch, tmp_path):
    """An SAE whose index is built anew; `bench.encoded` counts the parts."""
    shutil.copytree(checkpoint, tmp_path / "sae", ignore=shutil.ignore_patterns("index"))
    opened = Workbench.open(tmp_path / "sae", labels="sqlite://")
    real, made = parts.encode_rows, []
    monkeypatch.setattr(parts, "encode_rows", lambda *given: made.append(1) or real(*given))
    return opened, made


@pytest.mark.parametrize("write", [1, pytest.param(3, marks=pytest.mark.slow), 10**6], ids=["first", "middle", "last"])
def test_an_index_that_could_not_be_sent_is_sent_by_the_same_call_and_not_built_again(bench, there, whole, write):
    opened, made = bench
    url, store = "failing://bucket/index", ActivationStore.open(there)
    where = opened.build_index(store)
    names = [path.name for path in where.iterdir() if path.is_file() and not path.name.startswith(".")]
    assert len(made) == SHARDS
    fail(min(write, len(names)), FULL)
    with pytest.raises(InterpError, match="the store is full. Make room there"):
        opened.build_index(store, into=url, restart=True)
    Failing.mend()
    assert "index.json" not in Failing.files("bucket/index")
    with pytest.raises(
        InterpError, match="there is no(thing|.*, which is sent last,) at failing://bucket/index; send it"
    ):
        FeatureIndex.open(url)
    sent = []
    Failing.watch = staticmethod(lambda mode, path: sent.append(path.rpartition("/")[2]) if mode == "w" else None)
    assert opened.build_index(store, into=url) == url
    assert len(made) == 2 * SHARDS
    assert len(sent) == len(names) - min(write, len(names)) + 1
    assert sent[-1] == ".index.json.partial"
    there_now = FeatureIndex.open(url)
    there_now.verify()
    assert Failing.files("bucket/index").keys() == set(names)
    sent.clear()
    objects.send_folder(where, url)
    assert not sent


def test_an_index_at_a_url_is_fetched_whole_or_told_of(checkpoint, tmp_path):
    url, files = "failing://bucket/index", fsspec.filesystem("failing")
    objects.send_folder(checkpoint / "index", url)
    reads = []

    def vanish(mode, path):
        reads.append(path)
        Failing.gone = UNREACHABLE if len(reads) == 4 else None

    Failing.watch = staticmethod(vanish)
    with pytest.raises(InterpError, match="could not be read: Could not connect to the endpoint URL: https://store/"):
        FeatureIndex.open(url)
    assert not left_over("remote")
    Failing.mend()
    Failing.watch = staticmethod(lambda mode, path: reads.append(path))
    reads.clear()
    index = FeatureIndex.open(url)
    index.verify()
    assert len(reads) == len(Failing.files("bucket/index")) - 3  # which had come; index.json comes each time
    (index.folder / "features.parquet").write_bytes(b"rubbish")  # on this disk
    FeatureIndex.open(url).verify()
    right = files.cat_file("bucket/index/examples.parquet")
    files.pipe_file("bucket/index/examples.parquet", right[:-4] + b"abcd")
    (index.folder / "examples.parquet").unlink()
    with pytest.raises(InterpError, match="examples.parquet is not the file that was sent"):
        FeatureIndex.open(url)
    assert not (index.folder / "examples.parquet").exists()


def test_what_cannot_be_is_refused_in_a_sentence(send, tmp_path, monkeypatch):
    with pytest.raises(InterpError, match="share a harvest by locks in a folder, and failing://bucket/acts has none"):
        send(together=True)
    with pytest.raises(InterpError, match=r"there are no activations at failing://bucket/nowhere; `interp harvest"):
        ActivationStore.open("failing://bucket/nowhere/")
    with pytest.raises(InterpError, match="nothing://b/a is of no kind that fsspec opens here"):
        send("nothing://user:password@b/a")
    with pytest.raises(InterpError, match="oss://b/a needs ossfs, which is not installed: pip install ossfs"):
        send("oss://b/a")
    monkeypatch.setenv(places.READ_ONLY, "yes")
    with pytest.raises(InterpError, match="nothing was sent to failing://bucket/acts"):
        send()
    assert not Failing.store
    assert not list(Path().glob("failing:*"))


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # where it is installed, as if it were not
    for protocol in ("s3", "s3a"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(InterpError, match="s3://bucket/acts needs s3fs, which is not installed: pip install s3fs"):
        ActivationStore.open("s3://bucket/acts")


def test_the_command_line_ends_with_2_and_goes_on(monkeypatch, capsys, tiny_folder, text_folder, whole, tmp_path):
    line = ("harvest", tiny_folder, text_folder, HOOK, "--tokens", TOKENS, "--into", URL, "--dtype", "float32")
    fail(7, DENIED)
    code, out, err = call(monkeypatch, capsys, *line)
    assert (code, out) == (2, "")
    assert f"{URL}/manifest.json could not be written: access is denied: Access Denied. {objects.GOES_ON}" in err
    assert "Traceback" not in err
    Failing.mend()
    code, out, err = call(monkeypatch, capsys, *line)
    assert (code, out) == (0, f"4,096 positions in {URL}\n")
    assert f"sent to {URL}" in err
    code, out, _ = call(
        monkeypatch, capsys, "train", URL, HOOK, tmp_path / "sae", "--d-sae", "32", "--k", "4", "--batch", "128"
    )
    assert code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call(monkeypatch, capsys, *line)
    assert code == 2
    assert "name a folder that all of them see, or do it in one process, without torchrun" in err
