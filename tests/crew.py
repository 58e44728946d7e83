"""Processes that share a harvest or an index, and know nothing of each other; what each did lies in files of its own.

What they do stands here and not in a test's file, which they would have to import with all of pytest.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from interp.activations import ActivationStore, harvest, harvesting, manifest
from interp.corpus import open_corpus
from interp.index import IndexConfig, build_index, parts
from interp.index import build as building
from interp.models import open_model
from interp.training.one_folder import see_the_same
from interp.types import InterpError
from interp.workbench import Workbench
from tests.warm import WARM, start, start_server

SHARD = 512
"""Positions of a shard."""


def harvests(
    marks: Path,
    model: Path,
    text: Path,
    hook: str,
    into: Path | str,
    tokens: int,
    *,
    together: bool = True,
    slow: float = 0.0,
    stored: str = "",
) -> None:
    """Harvest into a folder; each shard takes `slow` seconds more, and leaves a mark when it is begun."""
    manifest.SHARD_POSITIONS = SHARD
    harvesting.run_shard = marked(harvesting.run_shard, marks, slow)
    opened = open_model(str(model), dtype="float32")
    harvest(opened, open_corpus(text), [hook], tokens, into, together=together, stored=stored)


def indexes(
    marks: Path, sae: Path, acts: Path, into: Path, *, together: bool = True, slow: float = 0.0, merge: float = 0.0
) -> None:
    """Index the harvested activations; each part takes `slow` seconds more, and putting them together `merge`."""
    bench = Workbench.open(sae, labels="sqlite://")
    parts.encode_rows = marked(parts.encode_rows, marks, slow)
    building._put_together = marked(building._put_together, marks, merge, "together")
    store, norm = ActivationStore.open(acts), bench.card.norm_cutoff
    config = IndexConfig(together=together, threads=1)
    build_index(bench.sae, store, bench.model, into, config, norm_cutoff=norm, sae_sha256=bench.card.sae_sha256)


def marked(work: Callable[..., Any], marks: Path, slow: float, kind: str = "share") -> Callable[..., Any]:
    """The same work, which leaves a mark first and takes so many seconds more."""

    def run(*given: Any) -> Any:
        (marks / f"{kind}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(slow)
        return work(*given)

    return run


def begun(marks: Path, process: BaseProcess | None = None, kind: str = "share") -> int:
    """How many shares (or mergers) were begun, by one process or all."""
    return len(list(marks.glob(f"{kind}-{process.pid if process else '*'}-*")))


def until(holds: Callable[[], bool], processes: list[BaseProcess]) -> None:
    """Returns when it holds; AssertionError when all processes have ended before."""
    while not holds():
        assert any(process.is_alive() for process in processes), "all have ended"
        time.sleep(0.005)


def begin(task: Callable[..., None], marks: Path, *given: Any, **more: Any) -> BaseProcess:
    """A process at the task, begun; what it says lies beside the marks under its number."""
    start_server()
    marks.mkdir(exist_ok=True)
    process = WARM.Process(target=_run, args=(task, marks, given, more))
    start(process)
    return process


def end(processes: list[BaseProcess], seconds: float = 60) -> list[int | None]:
    """Their exit codes, None of one that is still at work after so long: it is killed."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def said(marks: Path, process: BaseProcess) -> str:
    return (marks / f"said.{process.pid}").read_text()


def _run(task: Any, marks: Path, given: tuple[Any, ...], more: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with (marks / f"said.{os.getpid()}").open("w") as said:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
    try:
        task(marks, *given, **more)
    except InterpError as error:
        sys.stderr.write(f"interp: {error}\n")
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


# Of ranks (tests/ranks.py).


def other_folders(rank: int, folder: Path) -> None:
    """Each rank has a folder of its own, as machines without a common one have."""
    see_the_same(folder / "home" / str(rank))
