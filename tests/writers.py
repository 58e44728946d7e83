"""Many processes that write into one label book at once, and what must be true of it afterwards."""

import os
import subprocess
import sys
import time

from interp.labels import LabelBook
from tests.conftest import ROOT

SECONDS = float(os.environ.get("INTERP_TEST_SECONDS", "3"))
"""How long they write."""
SHARED = 5
"""Features that all of them name."""
WRITER = """
import sys, time
from pathlib import Path
from interp.labels import LabelBook
gate, number, seconds, url = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
book = LabelBook("sha", 1000, url=url)
(gate / f"ready-{number}").touch()
while not (gate / "go").exists():
    time.sleep(0.01)
until, count = time.monotonic() + seconds, 0
while time.monotonic() < until:
    book.set(count % 5, f"{number}:{count}", author=str(number))
    count += 1
print(count)
"""


def write_for(gate, url, *, processes=20, seconds=SECONDS):
    """Let so many processes name the same features again and again; how many revisions each was told are kept.

    Meanwhile a reader looks on; what it sees at the end is what there is.
    """
    reader = LabelBook("sha", 1000, url=url)
    for feature in range(SHARED):
        reader.revise(feature, tags=["kept"], starred=feature == 0)
    call = [sys.executable, "-c", WRITER, str(gate)]
    running = [
        subprocess.Popen(
            [*call, str(number), str(seconds), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        for number in range(processes)
    ]
    while len(list(gate.glob("ready-*"))) < processes:
        assert not [process for process in running if process.poll()], "a writer ended before it began"
        time.sleep(0.05)
    (gate / "go").touch()
    counts = []
    for process in running:
        while process.poll() is None:
            assert set(reader.newest()) == set(range(SHARED))
            time.sleep(0.1)
        out, error = process.communicate()
        assert process.returncode == 0, error
        counts.append(int(out))
    assert reader.newest() == LabelBook("sha", 1000, url=url).newest()
    return counts


def check_all_kept(url, counts):
    """Every revision that was written is there, once and in its writer's order, and no tag or star was lost between them."""
    histories = LabelBook("sha", 1000, url=url).histories()
    for number, count in enumerate(counts):
        assert count > 0, number
        for feature in range(SHARED):
            own = [label.text for label in histories[feature] if label.author == str(number)]
            assert own == [f"{number}:{each}" for each in range(feature, count, SHARED)]
    assert sum(map(len, histories.values())) == sum(counts) + SHARED
    assert {label.tags for versions in histories.values() for label in versions} == {("kept",)}
    assert {label.starred for label in histories[0]} == {True}
