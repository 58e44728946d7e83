"""Two processes at one place: the second is told so in a sentence, at once, and a killed one never stands in the way."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from interp import places
from interp.activations import harvest
from interp.checkpoint import pack, unpack
from interp.checkpoint.files import present
from interp.corpus import open_corpus
from interp.index import build_index
from interp.index.format import COMMIT
from interp.index.read import FeatureIndex
from interp.recipe import train_checkpoint, train_sweep
from interp.training import train
from interp.types import InterpError
from interp.workbench import Workbench, verify
from tests.conftest import HOOK
from tests.test_training import RULES, Rows, planted

HOLDER = """
import sys, time
from pathlib import Path
from interp import places
with places.only_one(Path(sys.argv[1]), "a test"):
    print("held", flush=True)
    time.sleep(120)
"""


@contextlib.contextmanager
def held(folder):
    """Another process at work in the folder; its number."""
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        yield other.pid
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@pytest.fixture
def begin(store, tiny, text_folder, checkpoint, tmp_path):
    """What writes into a folder, each as a function of the folder."""
    wb, text = Workbench.open(checkpoint, labels="sqlite://"), open_corpus(text_folder)
    norm = {"norm_cutoff": wb.card.norm_cutoff}
    grid = {"d_sae": [16], "k": [2]}
    return {
        "train": lambda into: train_checkpoint(store, HOOK, into, d_sae=16, k=2, batch=256),
        "a loop of one's own": lambda into: train(Rows(planted(rows=2560)[0]), RULES[0], into=into),
        "sweep": lambda into: train_sweep(store, [HOOK], into, grid, batch=256),
        "harvest": lambda into: harvest(tiny, text, [HOOK], 1024, into),
        "index": lambda into: build_index(wb.sae, store, tiny, into, **norm),
        "seal": lambda into: verify(into, write=True),
    }


@pytest.mark.parametrize("what", ["train", "a loop of one's own", "sweep", "harvest", "index"])
def test_the_second_of_two_is_told_so_at_once_and_changes_nothing(begin, tmp_path, what):
    into = tmp_path / "place"
    with held(into) as number:
        before, began = sorted(into.rglob("*")), time.perf_counter()
        with pytest.raises(
            InterpError, match=rf"another process \(number {number}\) is at work on .*place, so .* begun"
        ):
            begin[what](into)
        assert time.perf_counter() - began < 10
        assert sorted(into.rglob("*")) == before
    begin[what](into)  # the other was killed: nothing stands in the way
    assert not list(into.rglob(places.LOCK))


def test_a_sweep_leaves_alone_what_is_trained_by_itself(begin, tmp_path, store):
    name = f"batchtopk-{HOOK}-d_sae16-k2"
    with held(tmp_path / name), pytest.raises(InterpError, match=f"at work on .*{name}, so the sweep was not begun"):
        begin["sweep"](tmp_path)


def test_a_lock_is_no_file_of_a_checkpoint(checkpoint, tmp_path):
    with places.only_one(checkpoint, "a test"), places.only_one(checkpoint / "index", "a test"):
        assert (checkpoint / places.LOCK).exists()
        found, other = present(checkpoint)
        assert not [name for name in (*found, *other) if places.LOCK in name]
        with places.only_one(checkpoint, "the same thread's own"):  # which holds it already
            pass
        assert (checkpoint / places.LOCK).exists()
    assert not (checkpoint / places.LOCK).exists()


def at_once(count, work):
    """What `work` said in each of so many threads: the InterpError's sentence, or nothing where it went well."""
    told = []

    def one():
        try:
            work()
            told.append("")
        except InterpError as error:
            told.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_two_threads_are_two(tmp_path):
    def second():
        with places.only_one(tmp_path, "the second"):
            pass

    with places.only_one(tmp_path, "the first"):
        assert at_once(1, second)[0].startswith("another part of this process is at work on")
    assert at_once(1, second) == [""]


def test_a_folder_that_two_make_at_once_is_made_by_one(checkpoint, tmp_path):
    pack(checkpoint, tmp_path / "a.interp.tar")
    into = tmp_path / "out"
    with places.whole_folder(into):
        told = at_once(1, lambda: unpack(tmp_path / "a.interp.tar", into))
    assert "out, so this was not begun" in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.interp.tar", "out"]
    into.rmdir()
    told = at_once(6, lambda: unpack(tmp_path / "a.interp.tar", into))
    assert told.count("") == 1
    assert all("exists already" in text or "is at work on" in text for text in told if text)
    assert present(into)[0].keys() == present(checkpoint)[0].keys()


def test_readers_that_find_a_move_cut_short_finish_it_once(begin, tmp_path, monkeypatch):
    import interp.index.format as form

    with monkeypatch.context() as patch:
        patch.setattr(form, "settle", lambda folder: None)  # killed before anything was moved
        begin["index"](tmp_path)
    assert (tmp_path / COMMIT).exists()
    counts = []
    assert at_once(8, lambda: counts.append(len(FeatureIndex.open(tmp_path).features))) == [""] * 8
    assert counts == [64] * 8
    assert not (tmp_path / COMMIT).exists()
    assert not (tmp_path / ".build").exists()
    FeatureIndex.open(tmp_path).verify()


def test_ctrl_c_lets_go_of_the_folder(tmp_path):
    code = HOLDER.replace(
        'print("held"', 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); print("held"'
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert other.stdout.readline() == b"held\n"
    os.kill(other.pid, signal.SIGINT)
    other.wait(20)
    other.stdout.close()
    with places.only_one(tmp_path, "a test"):
        pass
    assert list(tmp_path.iterdir()) == []
