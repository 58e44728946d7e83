"""Work that is killed at any moment: the same command goes on, and ends with the bytes of one that nobody disturbed.

Three dozen SIGKILLs, spread over harvest, training, a sweep, an index and its extension, labels, packing and unpacking;
and sixty processes that begin together on a new INTERP_HOME.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from interp.labels import LabelBook
from tests.conftest import HOOK, ROOT
from tests.warm import forked, start_server

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def interp(home, *arguments, **more):
    call = [sys.executable, "-c", "from interp.cli import main; main()", *map(str, arguments)]
    environment = os.environ | {"INTERP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | more
    return subprocess.Popen(call, env=environment, text=True, cwd=ROOT, **pipes)


def done(process):
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error
    return error


def content(folder):
    """SHA-256 of every file by name; nothing half-written is among them. Logs say the time, and are left out."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        assert ".partial" not in name, name
        if not name.endswith("log.jsonl"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def killed(begin, kills):
    """Kill the command at so many moments spread over its length, each further on than the one before; then let it end.

    How often it was still running when it was killed comes back. `begin` starts it, on what the last one left, in a process that
    has its imports behind it: every kill falls into the work itself.
    """
    start_server()
    began = time.perf_counter()
    ended(begin("whole"))
    length, hit = time.perf_counter() - began, 0
    for number in range(kills):
        process = begin("broken")
        process.join(length * (0.1 + 0.85 * number / kills))
        hit += process.is_alive()
        process.kill()
        process.join()
    ended(begin("broken"))
    return hit


def ended(process):
    process.join(300)
    assert process.exitcode == 0


def test_a_harvest_ends_with_the_same_bytes(tiny_folder, text_folder, tmp_path):
    def begin(name):
        return forked(
            tmp_path / "home", "harvest", tiny_folder, text_folder, HOOK, "--tokens", 8192, "--into", tmp_path / name
        )

    assert killed(begin, 5)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


@pytest.mark.parametrize("sweep", [False, True])
def test_training_ends_with_the_same_bytes(store, tmp_path, sweep):
    shared = ("--d-sae", 32, "--k", "2,4" if sweep else 2, "--batch", 64, "--epochs", 6, "--set", "save_every=2048")

    def begin(name):
        into = tmp_path / name / "sae"  # the checkpoint takes its folder's name
        if sweep:
            return forked(tmp_path / "home", "sweep", store.folder, into, "--hook", HOOK, *shared)
        return forked(tmp_path / "home", "train", store.folder, HOOK, into, *shared)

    assert killed(begin, 6)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_an_index_ends_with_the_same_bytes(checkpoint, text_folder, tmp_path):
    for name in ("whole", "broken"):
        shutil.copytree(checkpoint, tmp_path / name, ignore=shutil.ignore_patterns("index"))

    def begin(name):
        return forked(
            tmp_path / "home", "index", tmp_path / name, "--corpus", text_folder, "--tokens", 4096, "--beside"
        )

    assert killed(begin, 6)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_an_extended_index_ends_with_the_same_bytes(checkpoint, tmp_path):
    rows = [json.dumps({"text": f"Another text about London and Paris, number {i}."}) for i in range(200)]
    (tmp_path / "more.jsonl").write_text("\n".join(rows))
    for name in ("whole", "broken"):
        shutil.copytree(checkpoint, tmp_path / name)

    def begin(name):
        options = ("--corpus", tmp_path / "more.jsonl", "--tokens", 2048, "--beside", "--extend")
        return forked(tmp_path / "home", "index", tmp_path / name, *options)

    def once(name):  # a build that had ended when it was killed has its documents already, and says so
        meta = json.loads((tmp_path / name / "index" / "index.json").read_text())
        return (
            begin(name)
            if len(meta["texts"]) == 1 or (tmp_path / name / "index" / "commit.json").exists()
            else forked(tmp_path / "home", "keys")
        )

    assert killed(once, 5)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_packing_and_unpacking_leave_the_whole_or_nothing(checkpoint, tmp_path):
    big = tmp_path / "big"
    shutil.copytree(checkpoint, big)

    def packing(name):
        return forked(tmp_path / "home", "pack", big, "--into", tmp_path / f"{name}.interp.tar")

    killed(packing, 4)
    assert (tmp_path / "broken.interp.tar").read_bytes() == (tmp_path / "whole.interp.tar").read_bytes()

    def unpacking(name):
        into = tmp_path / f"out-{name}"
        shutil.rmtree(into, ignore_errors=True)
        return forked(tmp_path / "home", "unpack", tmp_path / "whole.interp.tar", "--into", into)

    killed(unpacking, 4)
    assert content(tmp_path / "out-broken") == content(tmp_path / "out-whole")


def test_every_label_that_was_said_to_be_kept_is_there_after_a_kill(tmp_path):
    code = (
        "import sys; from interp.labels import LabelBook; book = LabelBook('sha', 10, url=sys.argv[1])\n"
        "for each in range(10**6):\n    book.set(3, f'{sys.argv[2]} {each}'); print(each, flush=True)"
    )
    url, kept = f"sqlite:///{tmp_path}/l.sqlite", []
    for number in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", code, url, str(number)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(10 + 7 * number):
            kept.append(f"{number} {process.stdout.readline().strip()}")
        process.kill()
        process.communicate()
    texts = [label.text for label in LabelBook("sha", 10, url=url).history(3)]
    assert set(kept) <= set(texts)
    assert len(texts) == len(set(texts))


def test_sixty_processes_that_begin_together_on_a_new_home_lose_nothing(checkpoint, tmp_path):
    home = tmp_path / "home"
    running = []
    for number in range(60):
        command: tuple = ("label", checkpoint, number, f"label {number}")
        if number % 6 == 5:
            command = ("library", checkpoint.parent) if number % 12 == 5 else ("search", checkpoint, "text:label")
        running.append((command[0], number, interp(home, *command)))
    for _, _, process in running:
        assert "Traceback" not in done(process)
    written = {number for name, number, _ in running if name == "label"}
    os.environ["INTERP_HOME"], before = str(home), os.environ["INTERP_HOME"]
    try:
        assert set(LabelBook.of(checkpoint).all()) == written
    finally:
        os.environ["INTERP_HOME"] = before


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_dashboard_ends_its_server(checkpoint, tmp_path, kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def answers():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    process = interp(tmp_path / "home", "dashboard", checkpoint, "--port", port)
    try:
        deadline = time.monotonic() + 120
        while not answers():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        time.sleep(1)
        process.send_signal(kind)
        error = process.communicate(timeout=20)[1]
        assert not answers()
        assert "Traceback" not in error
    finally:
        process.kill()
        process.wait()
