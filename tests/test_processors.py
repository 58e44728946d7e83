"""How many threads to use, from what the machine says."""

import os

import pytest

from interp import processors


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("2,4", 2), (" 5 ", 5), ("0", 7), ("many", 7), ("", 7), (None, 7)]
)
def test_what_the_user_set_goes_before_what_there_is(monkeypatch, said, threads):
    monkeypatch.setattr(processors, "cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert processors.threads() == threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n", "pod/one/cpu.max": "max 100000\n"}, 3),
        ({"pod/one/cpu.max": "1000 100000\n"}, 1),
        ({"elsewhere/cpu.max": "100000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_containers_quota_is_kept_to(tmp_path, monkeypatch, files, cores):
    """The kernel's files stand in a folder of ours: a quota of one's own needs a container."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text("0::/pod/one\n")
    monkeypatch.setattr(processors, "GROUPS", tmp_path)
    monkeypatch.setattr(processors, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert processors.cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_bound_to_one_core_uses_one():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors.cores() == 1
    finally:
        os.sched_setaffinity(0, before)
