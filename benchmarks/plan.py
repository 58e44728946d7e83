"""What `interp plan` says beside what it comes to: memory, time and disk of a harvest, a training and an index.

    python benchmarks/plan.py [--tokens 262144]
    python benchmarks/plan.py --paper           # published sizes, which no small machine can try: a table in docs/scale.md

The commands run as a user runs them, with one thread unless OMP_NUM_THREADS says another number. Their time is that of the first
run less that of a second one, which finds everything done: what is left is the work itself. Of one thread it is the processor's
time, which is what a machine would take on which nothing else runs; the clock's is told beside it. Memory is the process's own
at its fullest, looked at a hundred times a second.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from common import report

from interp.commands.planning import plan
from interp.recipe.forecast import sent_a_step
from interp.sae import ARCHITECTURES
from interp.sae.kernels import BLOCK_ROWS

MODEL, HOOK = "smollm2", "blocks.15.hook_resid_post"
D_SAE, K = 9216, 32


def run(*words: object) -> tuple[float, float, int]:
    """(seconds by the clock, seconds of processors, the most bytes of its own) of a command."""
    began, most, busy = time.perf_counter(), 0, 0.0
    process = psutil.Popen([sys.executable, "-m", "interp.cli", *map(str, words)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            memory, times = process.memory_info(), process.cpu_times()
        except psutil.NoSuchProcess:
            break
        most, busy = max(most, memory.rss - memory.shared), max(busy, times.user + times.system)
        time.sleep(0.01)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, words))} failed")
    return time.perf_counter() - began, busy, most


def disk(folder: Path, *ends: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(ends))


PUBLISHED = (
    # What, architecture, d_in, features, k, batch, groups that share rows, ranks that share features.
    ("16 million latents at d 12,288 (Gao et al. 2024)", "topk", 12_288, 2**24, 32, 131_072, 8, 128),
    ("Gemma Scope, layer of 2B, widest", "jumprelu", 2_304, 2**20, 0, 4_096, 1, 4),
    ("Gemma Scope, layer of 9B", "jumprelu", 3_584, 131_072, 0, 4_096, 1, 1),
    ("Llama Scope, one of 256, 8x", "topk", 4_096, 32_768, 50, 4_096, 1, 1),
    ("Llama Scope, one of 256, 32x", "topk", 4_096, 131_072, 50, 4_096, 1, 1),
)


def paper() -> None:
    """Published sizes by arithmetic: what a run holds to its end (parameters, gradients, two moments, in float32) and beside it in a
    step, what each rank sends, and the encoder's product, which is nearly all of a step's work."""
    for what, kind, d_in, d_sae, k, batch, data, features in PUBLISHED:
        rule = ARCHITECTURES[kind](d_in=d_in, d_sae=d_sae, **({"k": k} if k else {}))
        rows, here = batch // data, d_sae // features
        held = 16 * (here * (2 * d_in + 2) + d_in)
        step = 2 * here * (d_in + 2 + BLOCK_ROWS) + 48 * rows * d_in
        cells = (f"{data} x {features}", held / 2**30, step / 2**30, sent_a_step(rule, rows, data, features) / 2**30)
        print(
            f"| {what} | {cells[0]} | {cells[1]:.1f} | {cells[2]:.1f} | {cells[3]:.2f} | {4 * d_in * d_sae / 2**30:.1f} | {2 * d_in * d_sae / 1e9:,.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--paper", action="store_true")
    given = parser.parse_args()
    if given.paper:
        return paper()
    tokens = given.tokens
    at = Path(tempfile.mkdtemp())
    try:
        told = {one.stage: one for one in plan(MODEL, HOOK, tokens=tokens, d_sae=D_SAE, k=K).stages}
        acts, sae, index = at / "acts", at / "sae", at / "sae" / "index"
        commands = {
            "harvest": ("harvest", MODEL, "wiki-en", HOOK, "--tokens", tokens, "--into", acts),
            "train": ("train", acts, HOOK, sae, "--d-sae", D_SAE, "--k", K),
            "index": ("index", sae, "--acts", acts, "--beside", "--together"),
        }
        written = {
            "harvest": lambda: disk(acts, ".safetensors"),
            "index": lambda: disk(index, ".parquet", ".safetensors"),
        }
        figures: dict[str, object] = {"tokens": tokens}
        for stage, words in commands.items():
            wall, busy, most = run(*words)
            wall_again, busy_again, _ = run(*words)
            took = busy - busy_again if torch.get_num_threads() == 1 else wall - wall_again
            one = told[stage]
            figures |= {
                f"{stage}, seconds told, come to, ratio": [one.seconds, took, one.seconds / took],
                f"{stage}, seconds by the clock, other work beside it": [wall - wall_again],
                f"{stage}, MiB told, come to, ratio": [one.memory / 2**20, most / 2**20, one.memory / most],
            }
            if stage in written:
                came = written[stage]()
                figures[f"{stage}, MiB on disk told, come to, ratio"] = [
                    one.disk / 2**20,
                    came / 2**20,
                    one.disk / came,
                ]
        report("plan", {name: _short(value) for name, value in figures.items()})
    finally:
        shutil.rmtree(at)


def _short(value: object) -> object:
    return [round(x, 3) for x in value] if isinstance(value, list) else value


main()
