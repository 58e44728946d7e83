"""Labels and effects without a person, at full size: how long they take, and whether what is called confirmed holds on the last documents.

    python recipes/smollm2.py reserved               # testing documents, and those of the last check, once
    python benchmarks/labels.py [SAE] [--features N] [--only names|effects]

1.  Every feature that fires is named and its label tried, in a folder of its own; nothing is written into the label book.
2.  Every label is tried once more on the *final* documents, which no other code reads. Of those that were confirmed: how many
    are confirmed there as well, and of how many F1 lies above the 95th percentile of each null; with another feature's claim in
    their place the same. Too few firings there are counted apart.
3.  Every feature is ablated beside its controls (`evidence.measure_effects`), in float32, in a folder of its own.

Seconds are of the clock and of the processor, one process.
"""

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import report

from interp.evidence import Passages, choose_positions, measure_effects, summarise
from interp.index import FeatureIndex
from interp.labels.automatic import Run
from interp.labels.propose.proposing import Proposal, Proposer
from interp.labels.testing import Ground, Label, try_labels
from interp.models import open_model
from interp.predicates import read_claim
from interp.statistics import wilson
from interp.types import InterpError
from interp.workbench import EMBEDDED, Workbench

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import smollm2

Rows = dict[int, dict[str, Any]]


class Clock:
    """Seconds of the clock and of the processor, phase by phase."""

    def __init__(self) -> None:
        self.took: dict[str, dict[str, float]] = {}
        self._began = time.perf_counter(), time.process_time()

    def phase(self, name: str) -> None:
        now = time.perf_counter(), time.process_time()
        clock, processor = (round(b - a, 1) for a, b in zip(self._began, now, strict=True))
        self.took[name] = {"clock": clock, "processor": processor}
        self._began = time.perf_counter(), time.process_time()


def near(index: FeatureIndex, features: list[int]) -> dict[int, list[int]]:
    return {feature: [int(other) for other in index.row(feature)["nearest"]] for feature in features}


def named(wb: Workbench, some: list[int], clock: Clock) -> tuple[dict[int, Proposal], Rows]:
    """Labels of these features, and a row each of what trying them gave."""
    index = wb.index
    proposer = Proposer(index.passages, index.fired, index.clean, wb.meanings)
    ground = Ground(proposer.text)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        proposals = run.proposals(proposer, some)
        clock.phase("names")
        rows = run.rows(proposals, ground, index.fired, near(index, list(proposals)))
        clock.phase("tests")
    return proposals, rows


def finally_tried(wb: Workbench, proposals: dict[int, Proposal]) -> Rows:
    """The same labels on the final documents."""
    folder = smollm2.WORK / "final-index"
    if not (folder / "index.json").exists():
        raise InterpError(f"there is no index of the final documents in {folder}; run recipes/smollm2.py reserved.")
    final = FeatureIndex.open(folder)
    ground = Ground(final.passages.read_by(wb.meanings), split="final")
    labels = [Label(feature=p.feature, claim=read_claim(p.claim), level=p.level) for p in proposals.values()]
    return {row["feature"]: row for row in try_labels(labels, ground, final.fired, near(wb.index, list(proposals)))}


def held(tested: Rows, final: Rows, verdict: str) -> dict[str, Any]:
    """Of the labels that `verdict` calls confirmed, what became of them on the final documents."""
    confirmed = [feature for feature, row in tested.items() if row[verdict] == "confirmed"]
    judged = [feature for feature in confirmed if final[feature]["verdict"] != "too few"]
    above = sum(_above(final[feature]) for feature in judged)
    again = sum(final[feature]["verdict"] == "confirmed" for feature in judged)
    return {
        "confirmed": len(confirmed),
        "judged": len(judged),
        "above nulls": above,
        "above nulls, share": wilson(above, len(judged)) if judged else None,
        "confirmed again": again,
        "confirmed again, share": wilson(again, len(judged)) if judged else None,
        "verdicts": Counter(final[feature]["verdict"] for feature in confirmed),
    }


def _above(row: dict[str, Any]) -> bool:
    nulls = [row[name] for name in row if name.startswith("null_")]
    return all(math.isfinite(null) and row["f1"][0] > null for null in nulls)


def effects(wb: Workbench, some: list[int], clock: Clock) -> dict[str, Any]:
    """What ablating these features does."""
    model = open_model(wb.card.model, dtype="float32")
    chosen = choose_positions(wb.index, some)
    clock.phase("positions")
    with tempfile.TemporaryDirectory() as folder:
        table = measure_effects(model, wb.sae, Passages.of(wb.index), chosen, folder)
    clock.phase("effects")
    found = summarise(table)
    return vars(found) | {"sentence": found.sentence()}


def main(sae: str, count: int | None, only: str, seed: int) -> None:
    wb = Workbench.open(sae)
    fires_F = wb.index.features["fires"].to_numpy()
    some = np.flatnonzero(fires_F > 0)
    if count is not None:
        some = np.sort(np.random.default_rng(seed).choice(some, min(count, len(some)), replace=False))
    features, clock = [int(feature) for feature in some], Clock()
    figures: dict[str, Any] = {
        "positions": wb.index.meta["positions"],
        "features": len(features),
        "seconds": clock.took,
    }
    if only != "effects":
        proposals, rows = named(wb, features, clock)
        figures |= {
            "methods": Counter(one.method for one in proposals.values()),
            "verdicts": Counter(row["verdict"] for row in rows.values()),
            "shuffled": Counter(row["shuffled_verdict"] for row in rows.values()),
            "f1": round(float(np.nanmean([row["f1"][0] for row in rows.values()])), 3),
        }
        final = finally_tried(wb, proposals)
        clock.phase("final")
        figures["final"] = held(rows, final, "verdict")
    if only != "names":
        figures["effects"] = effects(wb, features, clock)
    report("labels", figures)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("sae", nargs="?", default=EMBEDDED)
    asked.add_argument("--features", type=int)
    asked.add_argument("--only", choices=["names", "effects"], default="")
    asked.add_argument("--seed", type=int, default=7)
    given = asked.parse_args()
    try:
        main(given.sae, given.features, given.only, given.seed)
    except InterpError as error:
        sys.exit(str(error))
