"""Alternating measurements in one process: ratios on a noisy machine, never timed tests."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
RESULTS = Path(__file__).parent / "results"


def alternate(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, in turns, after one unmeasured turn."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Median of the paired ratios, with the smallest and the largest."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def peak_mib() -> float:
    """Peak resident memory of this process (Linux's getrusage would give a child its parent's peak)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_mib() -> float:
    """Memory that is this process's own now: without pages of mapped files, which the system may take back (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@contextmanager
def highest(read: Callable[[], float], every: float = 0.1) -> Iterator[list[float]]:
    """The largest value read while the block runs, as a list of one."""
    seen, done = [read()], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            seen[0] = max(seen[0], read())

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield seen
    finally:
        done.set()


def report(name: str, figures: dict[str, Any]) -> None:
    """Print the figures and keep them beside the benchmark."""
    figures |= {"threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(figures, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


PEERS_PYTHON = Path(__file__).parent.parent / ".peers" / "bin" / "python"


class Peers:
    """A worker (benchmarks/peers.py) that runs other libraries' trainers, in their own environment where there is one."""

    def __init__(self, python: str | Path = PEERS_PYTHON, threads: int = 2) -> None:
        if not Path(python).exists():
            sys.exit(f"there is no {python}; `make bench-peers` makes the environment of the other libraries.")
        script = Path(__file__).parent / "peers.py"
        self.process = subprocess.Popen(
            [str(python), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer; RuntimeError with its sentence when it has none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{request}: {answer['error']}")
        return answer

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
