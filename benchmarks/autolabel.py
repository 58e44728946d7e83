"""How long naming features without a person takes, phase by phase, and how many of its labels hold.

    python benchmarks/autolabel.py SAE --features 500

Some features, drawn with a seed, are named and tried anew in a folder of their own; nothing is written into the label book. Processor seconds of all threads;
`all` is what the same would take for every feature of the SAE: what is read once (contexts, tables) and what each feature takes.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from common import report

from interp.labels.automatic import Run
from interp.labels.propose.proposing import Proposer
from interp.labels.testing import Ground
from interp.predicates.windows import subjects
from interp.workbench import EMBEDDED, Workbench


def main(sae: str, count: int, seed: int) -> None:
    """Print the times as JSON, and keep them."""
    wb = Workbench.open(sae)
    index, took = wb.index, {}
    began = time.process_time()

    def phase(name: str) -> None:
        nonlocal began
        took[name] = round(time.process_time() - began, 2)
        began = time.process_time()

    fires_F = index.features["fires"].to_numpy()
    some = np.flatnonzero(fires_F > 0)
    some = np.sort(np.random.default_rng(seed).choice(some, min(count, len(some)), replace=False)).tolist()
    proposer = Proposer(index.passages, index.fired, index.clean, wb.meanings)
    ground = Ground(proposer.text)
    proposer.propose_batch(some[:1])
    phase("tables")
    read = subjects(proposer.text)
    for places in (proposer.heldout_P, ground.position_P):
        read.vectors(places)
    phase("contexts")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        proposals = run.proposals(proposer, some)
        phase("names")
        near = {feature: [int(other) for other in index.row(feature)["nearest"]] for feature in proposals}
        rows = run.rows(proposals, ground, index.fired, near)
        phase("tests")
    once, each = took["tables"] + took["contexts"], took["names"] + took["tests"]
    figures = {
        "positions": index.meta["positions"],
        "features": len(some),
        "seconds": took,
        "all": round(once + each * (fires_F > 0).sum() / len(some)),
        "methods": Counter(one.method for one in proposals.values()),
        "verdicts": Counter(row["verdict"] for row in rows.values()),
        "shuffled": Counter(row["shuffled_verdict"] for row in rows.values()),
        "f1": round(float(np.nanmean([row["f1"][0] for row in rows.values()])), 3),
    }
    report("autolabel", figures)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("sae", nargs="?", default=EMBEDDED)
    asked.add_argument("--features", type=int, default=500)
    asked.add_argument("--seed", type=int, default=7)
    given = asked.parse_args()
    main(given.sae, given.features, given.seed)
