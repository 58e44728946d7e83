"""Harvests and indexes that several processes share: the bytes of one process, whoever comes, goes or is killed."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from interp import places, progress, several
from interp.activations import ActivationStore, harvest
from interp.commands.indexing import index
from interp.corpus import open_corpus
from interp.index import IndexConfig, build_index
from interp.types import InterpError
from interp.workbench import Workbench
from tests import crew, ranks
from tests.conftest import HOOK, ROOT, SENTENCES

TOKENS, SHARDS = 8192, 16


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others have
    yield
    torch.set_num_threads(before)


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name; whatever was only of use while it was made is none of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tiny_folder, tiny, text_folder, tmp_path_factory):
    """The store of one process alone."""
    folder = tmp_path_factory.mktemp("one") / "acts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.activations.manifest.SHARD_POSITIONS", crew.SHARD)
        harvest(tiny, open_corpus(text_folder), [HOOK], TOKENS, folder)
    return folder


@pytest.fixture
def harvesting(tiny_folder, text_folder, tmp_path):
    """Begins a process that takes part in the harvest."""

    def begin(into: Path = tmp_path / "acts", tokens: int = TOKENS, **more: object):
        return crew.begin(crew.harvests, tmp_path / "marks", tiny_folder, text_folder, HOOK, into, tokens, **more)

    return begin


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_several_processes_write_the_store_of_one(harvesting, whole, tmp_path, count):
    marks = tmp_path / "marks"
    processes = [harvesting(slow=0.1) for _ in range(count)]
    assert crew.end(processes) == [0] * count, crew.said(marks, processes[0])
    assert content(tmp_path / "acts") == content(whole)
    shares = [crew.begun(marks, process) for process in processes]
    assert sum(shares) == SHARDS
    assert min(shares) > 0, shares
    assert len(list(tmp_path.glob("acts/shard-*"))) == SHARDS


def test_two_processes_write_the_same_bytes_in_8_bits(harvesting, tiny, text_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp.activations.manifest.SHARD_POSITIONS", crew.SHARD)
    harvest(tiny, open_corpus(text_folder), [HOOK], TOKENS // 4, tmp_path / "one", stored="int8")
    processes = [harvesting(tokens=TOKENS // 4, slow=0.05, stored="int8") for _ in range(2)]
    assert crew.end(processes) == [0, 0], crew.said(tmp_path / "marks", processes[0])
    assert content(tmp_path / "acts") == content(tmp_path / "one")


def test_a_killed_process_costs_its_shard_and_the_others_make_the_rest(harvesting, whole, tmp_path):
    marks = tmp_path / "marks"
    processes = [harvesting(slow=0.15) for _ in range(3)]
    crew.until(lambda: crew.begun(marks, processes[1]) >= 2, processes)
    processes[1].kill()
    assert crew.end(processes) == [0, -9, 0], crew.said(marks, processes[0])
    assert content(tmp_path / "acts") == content(whole)
    assert SHARDS <= crew.begun(marks) <= SHARDS + 1


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["alone", "two"])
def test_when_all_are_killed_any_number_goes_on(harvesting, whole, tmp_path, after):
    marks = tmp_path / "marks"
    processes = [harvesting(slow=0.15) for _ in range(3)]
    crew.until(lambda: crew.begun(marks) >= 9, processes)
    time.sleep(random.Random(after).random() * 0.1)
    for process in processes:
        process.kill()
    crew.end(processes)
    assert crew.begun(marks) < SHARDS
    processes = [harvesting(together=after > 1) for _ in range(after)]
    assert crew.end(processes) == [0] * after, crew.said(marks, processes[0])
    assert content(tmp_path / "acts") == content(whole)
    assert crew.begun(marks) <= SHARDS + 3


def test_who_comes_alone_or_with_something_else_is_told_so_and_changes_nothing(harvesting, whole, tmp_path):
    marks = tmp_path / "marks"
    first = harvesting(slow=0.3)
    crew.until(lambda: crew.begun(marks) >= 1, [first])
    alone, other = harvesting(together=False), harvesting(tokens=4096)
    assert crew.end([alone, other, first]) == [2, 2, 0]
    sentence = crew.said(marks, alone)
    assert f"another process (number {first.pid} on " in sentence
    assert "so the harvest was not begun; take part in it (--together), wait" in sentence
    assert "holds a harvest with tokens = 8192, and 4096 was asked" in crew.said(marks, other)
    assert content(tmp_path / "acts") == content(whole)


def test_who_takes_part_waits_for_one_who_is_alone(harvesting, whole, tmp_path):
    marks = tmp_path / "marks"
    alone = harvesting(together=False, slow=0.05)
    crew.until(lambda: crew.begun(marks) >= 1, [alone])
    late = harvesting()
    assert crew.end([alone, late]) == [0, 0], crew.said(marks, late)
    assert crew.begun(marks, late) == 0
    assert content(tmp_path / "acts") == content(whole)


def test_several_processes_do_not_begin_anew(tiny, text_folder, tmp_path):
    with pytest.raises(InterpError, match="cannot begin anew together"):
        harvest(tiny, open_corpus(text_folder), [HOOK], 1024, tmp_path / "a", restart=True, together=True)
    assert not (tmp_path / "a").exists()


def test_a_share_is_made_once_though_many_ask_for_it(tmp_path):
    """Threads are strangers to each other, too."""
    from concurrent.futures import ThreadPoolExecutor

    names, made = [f"{number:02d}" for number in range(40)], []

    def take() -> None:
        with several.at_work(tmp_path, "a test", together=True) as work, work.apart():
            for name in work.shares(names, lambda name: (tmp_path / name).exists()):
                made.append(name)
                (tmp_path / name).touch()

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(take) for _ in range(6)]:
            each.result()
    assert sorted(made) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names


# Begun by torchrun.


def test_the_command_line_harvests_on_two_ranks(tiny_folder, text_folder, tiny, tmp_path):
    def call(folder: Path, *more: object) -> list[int | None]:
        folder.mkdir()
        given = ("harvest", tiny_folder, text_folder, HOOK, "--into", folder / "acts", "--dtype", "float32")
        return ranks.end(ranks.begin(2, ranks.command, folder, *given, *more))

    a, b = tmp_path / "a", tmp_path / "b"
    assert call(a, "--tokens", TOKENS) == [0, 0], (a / "said.0").read_text() + (a / "said.1").read_text()
    harvest(tiny, open_corpus(text_folder), [HOOK], TOKENS, tmp_path / "one")
    assert content(a / "acts") == content(tmp_path / "one")
    assert "8,192 positions in" in (a / "said.0").read_text()
    assert "harvest tiny-llama: " not in (a / "said.1").read_text()  # whose bar nobody is shown
    assert call(b, "--tokens", TOKENS, "--restart") == [2, 2]
    assert "cannot begin anew together" in (b / "said.1").read_text()


@pytest.mark.slow
def test_torchrun_begins_a_harvest_anew_when_a_rank_was_killed(tiny_folder, tiny, tmp_path):
    """Shards of the size that they have, and processes of their own, which import everything twice."""
    text, acts = tmp_path / "long.jsonl", tmp_path / "acts"
    rows = (json.dumps({"text": f"{SENTENCES[i % 4]} Part {i} of {i * i}."}) for i in range(20_000))
    text.write_text("\n".join(rows))
    given = ("harvest", tiny_folder, text, HOOK, "--tokens", 400_000, "--into", acts, "--dtype", "float32")
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "interp"]
    begun = subprocess.Popen(
        [*map(str, (*call, *given))], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(acts.glob("shard-*")):
        assert begun.poll() is None, begun.communicate()[1]
        time.sleep(0.02)
    psutil.Process(begun.pid).children()[-1].kill()
    said, error = begun.communicate(timeout=120)
    assert begun.returncode == 0, error
    assert said.count("positions in") == 1
    assert "Signal 9" in error or "exitcode: -9" in error or "-9" in error
    harvest(tiny, open_corpus(text), [HOOK], 400_000, tmp_path / "one")
    assert len(ActivationStore.open(acts).shards) >= 6
    assert content(acts) == content(tmp_path / "one")


def test_bars_are_hidden_from_people_and_not_from_listeners(capsys):
    heard: list[int] = []
    progress.listen(lambda record: heard.append(record.done))
    progress.show(False)
    try:
        with progress.bar("a test", 3) as step:
            step(3)
        assert capsys.readouterr().err == ""
        assert heard[-1] == 3
    finally:
        progress.show(True)
        progress.listen(None)
    with progress.bar("a test", 3) as step:
        step(3)
    assert "a test: 3 of 3" in capsys.readouterr().err


def test_ranks_that_do_not_see_one_folder_are_told_so(tmp_path):
    assert ranks.end(ranks.begin(2, crew.other_folders, tmp_path)) == [2, 2]
    for rank in (0, 1):
        assert "the processes do not see the same folder" in (tmp_path / f"said.{rank}").read_text()
    assert [path.name for path in (tmp_path / "home").iterdir()] == []


# Indexes.


@pytest.fixture(scope="module")
def indexed(checkpoint, whole, tmp_path_factory):
    """The index of one process alone."""
    folder = tmp_path_factory.mktemp("one") / "index"
    bench = Workbench.open(checkpoint, labels="sqlite://")
    given = {"norm_cutoff": bench.card.norm_cutoff, "sae_sha256": bench.card.sae_sha256}
    build_index(bench.sae, ActivationStore.open(whole), bench.model, folder, IndexConfig(threads=1), **given)
    return folder


@pytest.fixture
def indexing(checkpoint, whole, tmp_path):
    """Begins a process that takes part in the index."""
    return partial(crew.begin, crew.indexes, tmp_path / "marks", checkpoint, whole, tmp_path / "index")


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_several_processes_build_the_index_of_one(indexing, indexed, tmp_path, count):
    marks = tmp_path / "marks"
    processes = [indexing(slow=0.1) for _ in range(count)]
    assert crew.end(processes) == [0] * count, crew.said(marks, processes[0])
    assert content(tmp_path / "index") == content(indexed)
    shares = [crew.begun(marks, process) for process in processes]
    assert sum(shares) == SHARDS
    assert min(shares) > 0, shares
    assert crew.begun(marks, kind="together") == 1
    late = indexing()
    assert crew.end([late]) == [0]
    assert crew.begun(marks, late) == 0  # it was there


def test_whoever_is_killed_while_indexing_is_replaced_by_those_that_are_left(indexing, indexed, tmp_path):
    """One is killed at a part, then the one that puts the parts together."""
    marks = tmp_path / "marks"
    processes = [indexing(slow=0.1, merge=1.0) for _ in range(3)]
    crew.until(lambda: crew.begun(marks, processes[0]) >= 2, processes)
    processes[0].kill()
    crew.until(lambda: crew.begun(marks, kind="together") == 1, processes)
    merging = next(process for process in processes if crew.begun(marks, process, "together"))
    merging.kill()
    codes = crew.end(processes)
    assert sorted(codes) == [-9, -9, 0]
    assert content(tmp_path / "index") == content(indexed)
    assert crew.begun(marks) <= SHARDS + 1
    assert crew.begun(marks, kind="together") == 2


@pytest.mark.parametrize("of", ["acts", "corpus"])
def test_the_command_line_indexes_on_two_ranks(checkpoint, whole, text_folder, tmp_path, of):
    folder, one = tmp_path / "tiny", tmp_path / "one" / "tiny"
    for copy in (folder, one):
        shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("index"))
    source = ActivationStore.open(whole) if of == "acts" else open_corpus(text_folder)
    Workbench.open(one, labels="sqlite://").build_index(source, 4096, beside=True)
    given = ("index", folder, f"--{of}", whole if of == "acts" else text_folder, "--tokens", 4096, "--beside")
    assert ranks.end(ranks.begin(2, ranks.command, tmp_path, *given)) == [0, 0], (tmp_path / "said.1").read_text()
    assert content(folder / "index") == content(one / "index")
    assert "index in " in (tmp_path / "said.0").read_text()


def test_an_index_of_neurons_is_built_in_one_process(checkpoint):
    with pytest.raises(InterpError, match="--neurons takes no --beside, --extend, --into or --together"):
        index(str(checkpoint), neurons=1, together=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["harvest", "index"])
def test_ten_kills_at_any_moment_change_no_byte(harvesting, indexing, whole, indexed, tmp_path, what):
    """Three at work at any time: one that is killed is replaced by another."""
    marks, draw = tmp_path / "marks", random.Random(what)
    begin = partial(harvesting, slow=0.25) if what == "harvest" else partial(indexing, slow=0.25, merge=0.5)
    at_work = [begin() for _ in range(3)]
    killed = []
    while len(killed) < 10 and any(process.is_alive() for process in at_work):
        time.sleep(0.02 + draw.random() * 0.3)
        busy = [process for process in at_work if process.is_alive() and crew.begun(marks, process)]
        if busy:
            victim = draw.choice(busy)
            victim.kill()
            killed.append(victim)
            at_work.remove(victim)
            at_work.append(begin())
    assert crew.end(at_work) == [0] * 3, crew.said(marks, at_work[0])
    assert len(killed) >= 5
    crew.end(killed)
    made, one = (tmp_path / "acts", whole) if what == "harvest" else (tmp_path / "index", indexed)
    assert content(made) == content(one)
    assert SHARDS <= crew.begun(marks) <= SHARDS + len(killed)


def test_an_index_of_something_else_is_not_built_together(indexing, checkpoint, store, indexed, tmp_path):
    marks = tmp_path / "marks"
    first = indexing(slow=0.1)
    crew.until(lambda: crew.begun(marks) >= 1, [first])
    meta = places.read_json(tmp_path / "index" / ".build" / "build.json")
    bench = Workbench.open(checkpoint, labels="sqlite://")
    given = {"norm_cutoff": 2 * bench.card.norm_cutoff, "sae_sha256": bench.card.sae_sha256}
    with pytest.raises(InterpError, match=rf"with norm_cutoff = {meta['norm_cutoff']}, .*all must be given the same"):
        build_index(bench.sae, store, bench.model, tmp_path / "index", IndexConfig(together=True), **given)
    with pytest.raises(InterpError, match=rf"number {first.pid} on .* so the index was not begun; take part"):
        build_index(bench.sae, store, bench.model, tmp_path / "index", **given)
    with pytest.raises(InterpError, match="neither extend nor restart"):
        build_index(
            bench.sae, store, bench.model, tmp_path / "index", IndexConfig(together=True, restart=True), **given
        )
    with pytest.raises(InterpError, match="are for one process"):
        bench.build_index(store, together=True, share=True)
    assert crew.end([first]) == [0]
    assert content(tmp_path / "index") == content(indexed)
