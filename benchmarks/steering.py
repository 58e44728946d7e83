"""What steering costs: tokens a second with an edit against without, a sweep's seconds, and a clamp's exactness.

    python benchmarks/steering.py            # 20 alternating pairs; about six minutes on two cores
    python benchmarks/steering.py --quick --json    # 5 pairs, one sweep of each kind, on one line; nothing is written

All in one process, in turns. The sweep is 9 strengths x 8 prompts x 40 tokens of feature 8501 of the embedded SAE: bare
(72 rows generated), and with every measure, control and the verdict.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import alternate, ratio, report

from interp.steering import Ablate, Add, Clamp, Sampling, StrengthSweepConfig, model_edit
from interp.steering.apply import editable
from interp.steering.curve import FACTORS
from interp.steering.verdict import OPENINGS
from interp.workbench import EMBEDDED, Workbench

FEATURE, TOKENS, STEPS = 8501, 40, 24


def speed(wb: Workbench, rounds: int) -> dict[str, Any]:
    """Tokens a second of steered over unsteered generation at batch 1 and 8, one edit and three."""
    found: dict[str, Any] = {}
    largest = float(wb.index.row(FEATURE)["max"])
    sets = {
        "clamp": [Clamp(feature=FEATURE, strength=largest)],
        "three edits": [Clamp(feature=FEATURE, strength=largest), Add(feature=100, strength=5.0), Ablate(feature=3)],
    }
    for batch in (1, 8):
        prompts = wb.steered.tokenize(OPENINGS)[:batch]
        made: dict[str, int] = {}
        work = {"unsteered": _generation(wb, prompts, "unsteered", [], made)}
        for name, edits in sets.items():
            work[name] = _generation(wb, prompts, name, wb.steered.compile([edits]), made)
        seconds = alternate(work, rounds)
        per_step = {name: [s / made[name] for s in seconds[name]] for name in work}
        found[f"batch {batch}, unsteered, tokens/s"] = round(batch / statistics.median(per_step["unsteered"]), 1)
        for name in sets:
            middle, low, high = ratio(per_step["unsteered"], per_step[name])
            found[f"batch {batch}, speed with {name} over unsteered"] = [round(x, 3) for x in (middle, low, high)]
    return found


def _generation(
    wb: Workbench, prompts: list[list[int]], name: str, edits: list[Any], made: dict[str, int]
) -> Callable[[], None]:
    def run() -> None:
        # Steps, not tokens: a batch costs a step until its last row ends.
        made[name] = max(map(len, wb.model.generate(prompts, edits=edits, max_new_tokens=STEPS)))

    return run


def sweeps(wb: Workbench, rounds: int) -> dict[str, Any]:
    """Seconds of the bare and of the full sweep."""
    largest = float(wb.index.row(FEATURE)["max"])
    ids = wb.steered.tokenize(OPENINGS)
    held = [[Clamp(feature=FEATURE, strength=f * largest)] for f in FACTORS]
    rows = [(p, variant, 0) for variant in range(len(FACTORS)) for p in range(len(ids))]
    seconds: dict[str, list[float]] = {"bare": [], "full": []}
    tokens = 0
    wb.steered.request(ids, held, Sampling(max_new_tokens=2)).generate(rows[: len(ids)])  # warm
    for turn in range(rounds):
        began = time.perf_counter()
        answers = wb.steered.request(ids, held, Sampling(max_new_tokens=TOKENS)).generate(rows)
        seconds["bare"].append(time.perf_counter() - began)
        tokens = sum(map(len, answers))
        if turn < max(rounds // 2, 1):
            began = time.perf_counter()
            wb.sweep(FEATURE, config=StrengthSweepConfig(), max_new_tokens=TOKENS)
            seconds["full"].append(time.perf_counter() - began)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "bare sweep, s": [round(x, 1) for x in (middle["bare"], min(seconds["bare"]), max(seconds["bare"]))],
        "bare sweep, tokens": tokens,
        "bare sweep, tokens/s": round(tokens / middle["bare"]),
        "sweep with measures, controls and verdict, s": [
            round(x, 1) for x in (middle["full"], min(seconds["full"]), max(seconds["full"]))
        ],
    }


@torch.inference_mode()
def exactness(wb: Workbench, blocks: int) -> dict[str, Any]:
    """The largest distance of a clamp from a slow hook, over the position's norm, float32, on the index's text.

    Measured at every position that should move, whether or not it did; the others (sinks, separators, those that have
    the strength already) must keep their bits.
    """
    hook, sae = wb.card.hook_name, wb.sae
    size = wb.index.block
    tokens = torch.tensor(wb.index.tokens[: blocks * size].astype("int64")).view(blocks, size)
    x_BTD = wb.model.run(tokens, [hook]).activations[hook].float()
    site, _ = wb.model.site(tokens)
    cutoff, separator = wb.card.norm_cutoff, wb.card.separator
    free_BT = editable(x_BTD, site, cutoff, separator)
    worst, moved, wrong = 0.0, 0, 0
    for feature in torch.randint(0, sae.d_sae, (20,), generator=torch.Generator().manual_seed(0)).tolist():
        strength = float(wb.index.row(feature)["max"])
        edit = model_edit(Clamp(feature=feature, strength=strength), sae, norm_cutoff=cutoff, separator=separator)
        got = edit.apply(x_BTD, site)
        code = sae.encode(x_BTD)
        error = x_BTD - sae.decode(code)
        should_BT = free_BT & (code[..., feature] != strength)
        code[..., feature] = strength
        expected = sae.decode(code) + error
        distance = (got - expected).norm(dim=-1) / x_BTD.norm(dim=-1)
        worst = max([worst, *distance[should_BT].tolist()])  # a dead feature's strength is 0 everywhere already
        moved += int(should_BT.sum())
        wrong += int((got != x_BTD).any(-1)[~should_BT].sum())
    return {
        "clamp against a slow hook, over the position's norm": worst,
        "positions": blocks * size,
        "features": 20,
        "positions that should move, over all features": moved,
        "positions that should not": 20 * blocks * size - moved,
        "of these, changed in any bit": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="with --quick: one line of JSON")
    given = parser.parse_args()
    quick = given.quick
    wb = Workbench.open(EMBEDDED, labels="sqlite://")
    figures = exactness(wb, 2 if quick else 8)
    figures |= speed(wb, 5 if quick else 20) | sweeps(wb, 1 if quick else 6)
    figures |= {"dtype": wb.model.dtype_name, "rounds": 5 if quick else 20}
    if quick:
        print(json.dumps(figures, indent=None if given.json else 2))
    else:
        report("steering", figures)


if __name__ == "__main__":
    main()
