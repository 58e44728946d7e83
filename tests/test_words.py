import json
import math
import re

import pytest

from interp import places
from interp.progress import Progress, bar, listen
from interp.render.words import counted, duration, size


def test_one_thing_is_not_many():
    said = [counted(count, "document") for count in (0, 1, 2, 12_345)]
    assert said == ["0 documents", "1 document", "2 documents", "12,345 documents"]
    assert counted(2, "index", "indices") == "2 indices"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (2048, "2.0 KiB"), (3 * 2**20, "3.0 MiB"), (2**30, "1.0 GiB"), (41 * 2**30, "41 GiB")],
)  # fmt: skip
def test_bytes_are_said_in_a_unit_that_shows_them(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.01, "under a second"), (12, "12 s"), (150, "2.5 min"), (7200, "2.0 h")]
)
def test_times_are_said_in_a_unit_that_shows_them(seconds, said):
    assert duration(seconds) == said


def test_work_that_took_no_time_is_given_no_speed(capsys):
    with bar("read", 5_000_000) as step:
        step(5_000_000)
    assert capsys.readouterr().err == "read: 5,000,000 of 5,000,000 tokens, under a second in all\n"


def test_work_that_took_time_is_given_its_speed_without_what_was_done_before(capsys, monkeypatch):
    clock = iter([0.0, *[10.0] * 5])
    monkeypatch.setattr("interp.progress.time.perf_counter", lambda: next(clock))
    with bar("read", 1_000, done=500) as step:
        step(500, "done")
    assert re.fullmatch(r"read: 1,000 of 1,000 tokens, 50 tokens/s, 10 s in all, done\n", capsys.readouterr().err)


def test_progress_is_told_at_once_then_twice_a_second_and_at_the_end(monkeypatch):
    heard, clock = [], [0.0]
    monkeypatch.setattr("interp.progress.time.perf_counter", lambda: clock[0])
    listen(heard.append)
    try:
        with bar("read", 40, "texts", done=10) as step:
            for _ in range(30):
                clock[0] += 0.125
                step(1, "all well")
    finally:
        listen(None)
    assert [each.done for each in heard] == [10, 14, 18, 22, 26, 30, 34, 38, 40]
    assert heard[0] == Progress(what="read", done=10, total=40, unit="texts", rate=None, left=None)
    assert heard[1] == Progress(what="read", done=14, total=40, unit="texts", rate=8.0, left=3.25, note="all well")


def test_json_has_no_number_that_is_not_finite(tmp_path):
    places.write_json(tmp_path / "a.json", {"a": [math.inf, -math.inf, (math.nan, 1.5)]})
    text = (tmp_path / "a.json").read_text()
    assert "Infinity" not in text
    assert json.loads(text) == {"a": [None, None, [None, 1.5]]}
