"""What survives a slow collection is out of the way of the next; everything is looked through again now and then."""

import gc
import subprocess
import sys

import pytest

from interp.ui import garbage
from interp.ui.garbage import PATIENCE, SLOW, Keeper
from tests.conftest import ROOT


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a collection takes by the keeper's clock; nothing is frozen before and after, and no other keeper hears."""
    now, before = [0.0], list(gc.callbacks)
    monkeypatch.setattr(garbage.time, "perf_counter", lambda: now[0])
    gc.callbacks[:] = []
    gc.unfreeze()
    yield now
    gc.callbacks[:] = before
    gc.unfreeze()


def collected(keeper: Keeper, clock: list[float], seconds: float, generation: int = 2) -> int:
    """How many objects are frozen after a collection that took so long."""
    keeper("start", {"generation": generation})
    clock[0] += seconds
    keeper("stop", {"generation": generation})
    return gc.get_freeze_count()


def test_survivors_of_a_slow_collection_are_frozen_and_of_a_quick_one_not(clock):
    keeper = Keeper()
    assert collected(keeper, clock, SLOW / 2) == 0
    assert collected(keeper, clock, 2 * SLOW, generation=1) == 0
    assert collected(keeper, clock, 2 * SLOW) > 10_000


def test_now_and_then_everything_is_looked_through_again(clock):
    keeper = Keeper()
    frozen = [collected(keeper, clock, 2 * SLOW) > 0 for _ in range(2 * PATIENCE)]
    assert [at for at, any_ in enumerate(frozen, 1) if not any_] == [PATIENCE, 2 * PATIENCE]


def test_a_circle_that_was_frozen_is_freed_when_everything_is_looked_through(clock):
    class Circle:
        freed = 0

        def __del__(self):
            Circle.freed += 1

    one = Circle()
    one.itself = one
    keeper = Keeper()
    collected(keeper, clock, 2 * SLOW)
    del one
    gc.collect()
    assert Circle.freed == 0
    for _ in range(PATIENCE - 1):
        collected(keeper, clock, 2 * SLOW)
    gc.collect()
    assert Circle.freed == 1


def test_it_is_heard_once():
    before = list(gc.callbacks)
    gc.callbacks[:] = []
    try:
        garbage.keep()
        garbage.keep()
        assert gc.callbacks.count(garbage.keeper) == 1
        gc.collect()  # as Python calls it
    finally:
        gc.callbacks[:] = before
        gc.unfreeze()


@pytest.mark.parametrize("ends", ["", "atexit.unregister(garbage.let_go)"])
def test_at_its_end_python_frees_what_was_frozen_and_no_binding_says_that_it_leaks(ends):
    code = f"import atexit, duckdb; from interp.ui import garbage; duckdb.sql('select 1').fetchall(); garbage.keep(); {ends}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert ("leaked" in done.stderr) == bool(ends)  # without letting go it does, so this can fail
