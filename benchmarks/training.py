"""A training step against the trainers of other libraries, in one run on the same rows.

    make bench-peers                                # the other libraries' environment, once
    python benchmarks/training.py                   # everything, about a quarter of an hour
    python benchmarks/training.py --quick --json    # TopK and BatchTopK beside SAELens, under 50 s

B 4096, d_in 576, d_sae 9216, k 32; whole steps with the optimiser, in turns, medians of paired ratios. Rows are
SmolLM2's (layer 15), with --quick sparse mixtures of random directions. Quality after the same tokens: quality.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate, cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Peers, alternate, peak_mib, ratio, report
from safetensors.torch import save_file

from interp.device import keeping_freed_memory
from interp.sae import make_architecture
from interp.training import TrainConfig, steps
from interp.training.optimise import optimise
from interp.training.state import initial

HOOK, B, D_IN, D_SAE, K = "blocks.15.hook_resid_post", 4096, 576, 9216, 32
KINDS = ("topk", "batchtopk", "matryoshka", "jumprelu", "gated", "standard")
BURST = 20
"""Steps of ours in a row, about as long as one of the others': after another process the first finds every cache cold."""
WIDTHS = (2304, 4608, 9216, 18432)


def planted(batches: int) -> list[torch.Tensor]:
    """Sparse mixtures of 4,608 random directions, 32 a row."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(4608, D_IN, generator=draw), dim=1)
    made = []
    for _ in range(batches):
        chosen = torch.randint(4608, (B, 32), generator=draw)
        strengths = torch.rand(B, 32, generator=draw) + 0.5
        made.append(torch.nn.functional.embedding_bag(chosen, truth, mode="sum", per_sample_weights=strengths))
    return made


def harvested(batches: int) -> list[torch.Tensor]:
    from interp.activations import stream
    from interp.corpus import open_corpus
    from interp.models import open_model

    source = stream(open_model("smollm2"), open_corpus("wiki-en"), HOOK, int(B * batches * 1.1))
    return list(source.batches(HOOK, B))[:batches]


def product(d_sae: int = D_SAE) -> Callable[[], Any]:
    """The encoder's bfloat16 product into a matrix that is there already."""
    x, W, out = torch.randn(B, D_IN).bfloat16(), torch.randn(d_sae, D_IN).bfloat16(), torch.empty(B, d_sae).bfloat16()
    return lambda: torch.mm(x, W.T, out=out)


def ours(kind: str, batches: list[torch.Tensor], d_sae: int = D_SAE, begin: int = 40) -> Callable[[], Any]:
    """One step at a time of a run that has begun; without AuxK, which has nothing to do yet in the others' either."""
    options: dict[str, Any] = {"k": K} if kind in ("topk", "batchtopk", "matryoshka") else {}
    rule = make_architecture(kind, d_in=D_IN, d_sae=d_sae, **options)
    config = TrainConfig(tokens=B * 1000, aux_alpha=0.0).resolved(rule, B * 1000)
    rows = torch.cat(batches[:4])
    state, turn = initial(rows, rows, rule, 0), cycle(batches)

    def step() -> None:
        # The warmed-up, annealed middle of a run.
        optimise(state, rule, config, next(turn), 0.5)

    for _ in range(begin):
        step()
    return step


def quick() -> dict[str, float]:
    batches = planted(4)
    with tempfile.TemporaryDirectory() as folder:
        save_file({"x": torch.cat(batches)}, Path(folder) / "rows.safetensors")
        peers = Peers(sys.executable, torch.get_num_threads())
        own = {kind: ours(kind, batches, begin=12) for kind in ("topk", "batchtopk")}
        work = {kind: burst(step, BURST // 2) for kind, step in own.items()}
        for kind in ("topk", "batchtopk"):
            work[f"saelens {kind}"] = peer(peers, folder, "saelens", kind, autocast=False)
        seconds = alternate(work, 1)  # one round after one unmeasured: all that 50 seconds allow
        peers.close()
    times = alternate({"product": product(), **own}, 20)
    worst = max(median(times["topk"]), median(times["batchtopk"]))
    found = {
        f"{kind}_vs_saelens": ratio(seconds[f"saelens {kind}"], seconds[kind])[0] * (BURST // 2) for kind in KINDS[:2]
    }
    return {name: round(x, 2) for name, x in (found | {"step_vs_product": worst / median(times["product"])}).items()}


def peer(peers: Peers, folder: str, library: str, kind: str, autocast: bool) -> Callable[[], Any]:
    name = f"{library} {kind} {autocast}"
    rows = str(Path(folder) / "rows.safetensors")
    what = {"library": library, "architecture": kind, "rows": rows, "d_sae": D_SAE, "k": K}
    peers.ask(do="make", id=name, **what, batch=B, tokens=B * 1000, autocast=autocast, seed=0)
    return lambda: peers.ask(do="step", id=name)


def burst(step: Callable[[], Any], count: int = BURST) -> Callable[[], Any]:
    """Steps in a row, as in training."""

    def run() -> None:
        for _ in range(count):
            step()

    return run


def against_peers(batches: list[torch.Tensor], rounds: int) -> dict[str, Any]:
    """For each architecture, milliseconds a step and the paired ratios to each library that has it."""
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_file({"x": torch.cat(batches)}, Path(folder) / "rows.safetensors")
        for kind in KINDS:
            rivals = [("saelens", False), ("saelens", True), ("dictionary_learning", False)]
            rivals += [("sparsify", False)] if kind == "topk" else []
            work = {"product": product(), "interp": burst(ours(kind, batches))}
            # Each in a process of its own, as it is used: beside others it finds memory that they have made ready.
            each = [Peers(threads=torch.get_num_threads()) for _ in rivals]
            for peers, (library, autocast) in zip(each, rivals, strict=True):
                name = f"{library}, autocast" if autocast else library
                work[name] = peer(peers, folder, library, kind, autocast)
            seconds = alternate(work, rounds)
            for peers in each:
                peers.close()
            seconds["interp"] = [each / BURST for each in seconds["interp"]]
            row = {name: round(1000 * median(times), 1) for name, times in seconds.items()}
            ratios = {
                n: [round(x, 2) for x in ratio(t, seconds["interp"])] for n, t in seconds.items() if n != "interp"
            }
            table[kind] = {"ms": row, "times as fast as": ratios}
            print(kind, json.dumps(table[kind]), flush=True)
    return table


def against_product(batches: list[torch.Tensor]) -> dict[str, Any]:
    """Steps in units of their own bfloat16 product, 20 rounds: two architectures at the main size, and four widths."""
    found: dict[str, Any] = {}
    for kind in ("topk", "batchtopk"):
        for d_sae in WIDTHS:
            times = alternate({"product": product(d_sae), "step": ours(kind, batches, d_sae)}, 20)
            middle, low, high = ratio(times["step"], times["product"])
            ms = {name: round(1000 * median(each), 1) for name, each in times.items()}
            found[f"{kind} {d_sae}"] = ms | {"ratio": [round(x, 2) for x in (middle, low, high)]}
            print(kind, d_sae, found[f"{kind} {d_sae}"], flush=True)
    return found


def memory(kind: str) -> None:
    """Print what a run's steps need, beside its parameters and moments; a process of its own.

    `tensors` are those alive at the fullest moment of a step, parameters and moments among them; `process` is what
    the process grew by in all, with what its libraries and its allocator keep.
    """
    batches = planted(4)
    before = peak_mib()
    step = ours(kind, batches, begin=30)
    grown = peak_mib() - before
    # A run's first steps and later ones differ: codes become sparse. The very first makes the moments, which are held.
    transient = max(alive_mib(step), *(alive_mib(ours(kind, batches, begin=begin)) for begin in (1, 15)))
    held = (2 * D_IN * D_SAE + D_SAE + D_IN) * 4 * 3 / 2**20
    found = {"parameters and moments": held, "tensors": held + transient, "process": grown}
    print(json.dumps({f"{name}, MiB": round(mib) for name, mib in found.items()}))


def alive_mib(step: Callable[[], Any]) -> float:
    """The most that a step's own tensors take at a time, by the profiler's record of what is made and freed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    record = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(record, key=lambda e: e.start_ns()))) / 2**20


def expectation() -> None:
    """Print what a run expects beforehand and what it takes; a process of its own."""
    batches = planted(8)
    rule = make_architecture("batchtopk", d_in=D_IN, d_sae=D_SAE, k=K)
    before, began, first = peak_mib(), 0.0, ""
    run = [batches[i % 8] for i in range(240)]
    for step in steps(run, rule, TrainConfig(tokens=B * 240), held_out=batches[0]):
        first = first or step.notes[0]
        began = began or time.perf_counter() - step.seconds
        if step.step == 240 and step.sae is None:
            taken, added = (time.perf_counter() - began) / 60, (peak_mib() - before) / 1024
    print(json.dumps({"said": first, "took min": round(taken, 2), "took GiB": round(added, 2)}))


def alone(*arguments: str) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def flat(batches: list[torch.Tensor]) -> dict[str, float]:
    """Median milliseconds a step in each quarter of a run over a million tokens."""
    rule = make_architecture("batchtopk", d_in=D_IN, d_sae=D_SAE, k=K)
    run = [batches[i % len(batches)] for i in range(244)]
    times = [s.seconds for s in steps(run, rule, TrainConfig(tokens=B * 244), held_out=batches[0]) if s.sae is None]
    return {f"quarter {i + 1}": round(1000 * median(times[61 * i : 61 * (i + 1)]), 1) for i in range(4)}


@keeping_freed_memory()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="with --quick: one line of JSON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=KINDS)
    parser.add_argument("--expectation", action="store_true")
    given = parser.parse_args()
    if given.memory:
        return memory(given.memory)
    if given.expectation:
        return expectation()
    if given.quick:
        found = quick()
        print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
        return None
    batches = harvested(12)
    figures: dict[str, Any] = {"a step in units of the bfloat16 product": against_product(batches)}
    figures["ms a step over a run of a million tokens"] = flat(batches)
    figures["memory of steps"] = {kind: alone("--memory", kind) for kind in KINDS}
    figures["said beforehand"] = alone("--expectation")
    figures["against other libraries"] = against_peers(batches, given.rounds)
    report("training", figures | {"rounds": given.rounds})
    return None


if __name__ == "__main__":
    main()
