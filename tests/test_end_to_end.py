"""benchmarks/end_to_end.py: its arithmetic by hand, and its stages of ours on a tiny model."""

import json
import sys

import pyarrow.parquet as pq
import pytest

from interp import cli
from tests.conftest import HOOK, ROOT


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import end_to_end

    return end_to_end


def test_a_part_is_scaled_by_what_it_was_measured_on_and_what_is_done_once_is_not(bench):
    rows = [
        {"stage": "start", "seconds": 5.0, "busy": 4.0},
        {"stage": "forward", "seconds": 10.0, "busy": 8.0, "measured": 100, "unit": "tokens"},
        {"stage": "pages", "seconds": 3.0, "busy": 2.0, "measured": 2, "unit": "batches"},
    ]
    start, forward, pages = bench.told({"stages": rows}, 70.0, {"tokens": 1000, "batches": 2})
    assert (start.at_whole().seconds, forward.at_whole().seconds, pages.at_whole().seconds) == (5.0, 100.0, 3.0)
    assert (forward.at_whole().busy, forward.seconds) == (80.0, 10.0)
    assert start.said() == "measured"
    assert forward.said() == "scaled from 100 to 1,000 tokens"
    assert pages.said() == "measured on all 2 batches"
    mine = [
        bench.Stage(stage="harvest", seconds=20.0, busy=40.0, peak_mib=90.0),
        bench.Stage(stage="train", seconds=16.0, busy=3.0, peak_mib=10.0),
    ]
    found = bench.compared(mine, [start, forward, pages])
    assert found["interp"]["whole"] == {"seconds": 36.0, "processor seconds": 43.0, "peak MiB": 90.0}
    assert found["times as fast, by the clock"] == 3.0  # 108 s against 36
    assert found["times as fast, by processors"] == 2.0  # 86 s against 43
    assert found["without our names, by the clock"] == 3.0  # there are none
    names = bench.Stage(stage="names", seconds=12.0, busy=43.0, peak_mib=1.0)
    again = bench.compared([*mine, names], [start, forward, pages])
    assert again["times as fast, by the clock"] == 2.25  # 108 s against 48
    assert again["without our names, by processors"] == 2.0
    assert found["of theirs, seconds that are scaled"] == 100.0
    table = bench.page(found)
    assert "| forward | 100 | 80 | 70 | scaled from 100 to 1,000 tokens |" in table
    assert "| **interp, whole** | 36 | 43 | 90 | |" in table


def test_a_stages_memory_and_time_are_its_processs_own(bench):
    work = "import time; kept = bytearray(80 << 20); time.sleep(0.3); print('done')"
    stage, printed = bench.measure("work", [sys.executable, "-c", work], {})
    assert printed == "done\n"
    assert 80 < stage.peak_mib < 160
    assert stage.seconds > 0.3 > stage.busy
    with pytest.raises(SystemExit, match=r"(?s)work failed: .*ZeroDivisionError"):
        bench.measure("work", [sys.executable, "-c", "1 / 0"], {})


def test_ours_goes_from_text_to_a_label_that_is_found(bench, monkeypatch, capsys, tiny_folder, text_folder, tmp_path):
    words = bench.commands(str(tiny_folder), text_folder, HOOK, tmp_path, 8192, 64, 4)
    for typed in words.values():
        monkeypatch.setattr(sys, "argv", ["interp", *map(str, typed)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, typed
    assert json.loads(capsys.readouterr().out)
    rows = bench.write_sequences(tmp_path / "acts", tmp_path / "sequences.parquet")
    sequences = pq.read_table(tmp_path / "sequences.parquet")["input_ids"].to_pylist()
    assert (rows, {len(each) for each in sequences}) == (8192, {256})
    assert sequences[3] == pq.read_table(tmp_path / "acts" / "tokens.parquet")["token"].to_pylist()[768:1024]


def test_the_documented_table_is_the_results(bench):
    figures = json.loads((ROOT / "benchmarks" / "results" / "end_to_end.json").read_text(encoding="utf-8"))
    docs = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert bench.page(figures) in docs
    assert f"{figures['times as fast, by the clock']} times as fast by the clock" in docs
    assert f"{figures['times as fast, by processors']} by processors' time" in docs
