"""What `interp plan` says beside what it comes to: memory, time and disk of a harvest and a training.

    python benchmarks/plan.py [--tokens 262144]

The commands run as a user runs them. Their time is that of the first run less that of a second one, which finds everything done:
what is left is the work itself. Memory is the process's own at its fullest, looked at twenty times a second.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import report

from interp.commands.planning import plan

MODEL, HOOK = "smollm2", "blocks.15.hook_resid_post"
D_SAE, K = 9216, 32


def run(*words: object) -> tuple[float, int]:
    """(seconds, the most bytes of its own) of a command."""
    began, most = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, "-m", "interp.cli", *map(str, words)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            break
        most = max(most, memory.rss - memory.shared)
        time.sleep(0.05)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, words))} failed")
    return time.perf_counter() - began, most


def disk(folder: Path, *ends: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(ends))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=262_144)
    tokens = parser.parse_args().tokens
    at = Path(tempfile.mkdtemp())
    try:
        told = {one.stage: one for one in plan(MODEL, HOOK, tokens=tokens, d_sae=D_SAE, k=K).stages}
        acts, sae = at / "acts", at / "sae"
        commands = {
            "harvest": ("harvest", MODEL, "wiki-en", HOOK, "--tokens", tokens, "--into", acts),
            "train": ("train", acts, HOOK, sae, "--d-sae", D_SAE, "--k", K),
        }
        figures: dict[str, object] = {"tokens": tokens}
        for stage, words in commands.items():
            whole, most = run(*words)
            again, _ = run(*words)
            one = told[stage]
            figures |= {
                f"{stage}, seconds told, come to, ratio": [one.seconds, whole - again, one.seconds / (whole - again)],
                f"{stage}, MiB told, come to, ratio": [one.memory / 2**20, most / 2**20, one.memory / most],
            }
        written = disk(acts, ".safetensors")
        figures["harvest, MiB on disk told, come to"] = [told["harvest"].disk / 2**20, written / 2**20]
        report("plan", {name: _short(value) for name, value in figures.items()})
    finally:
        shutil.rmtree(at)


def _short(value: object) -> object:
    return [round(x, 3) for x in value] if isinstance(value, list) else value


main()
