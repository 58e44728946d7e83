"""Labels and effects of all features: how long they take, and whether what is called confirmed holds on the last documents.

    python recipes/smollm2.py reserved           # testing documents, and those of the last check, once
    python benchmarks/labels.py [--only labels|final|effects]

1.  `labels`: every feature that fires is named and its label tried, anew (`interp evidence --parts labels --restart`).
2.  `final`: the same claims on the *final* documents, which no other code reads; a part of the evidence. Of those that were
    confirmed: how many are confirmed there as well, and of how many F1 lies above the 95th percentile of each null.
    Labels that fire too seldom there are counted apart.
3.  `effects`: every feature ablated beside its controls, in float32, anew (`interp evidence --parts effects --restart`).

Seconds of the clock, one process; the file of results keeps what is not asked for.
"""

import argparse
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import RESULTS, report

from interp import places
from interp.evidence.card import evidence_folder
from interp.evidence.labels import FINAL, FINAL_COLUMNS, FORMAT, PART
from interp.evidence.part import make_part, write_part
from interp.index import FeatureIndex
from interp.labels.testing import Ground, Label, try_labels
from interp.predicates import read_claim
from interp.predicates.windows import subjects
from interp.statistics import wilson
from interp.types import InterpError
from interp.workbench import EMBEDDED, Workbench
from interp.workbench.evidencing import build_evidence

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import smollm2

STEPS = ("labels", "final", "effects")
Row = dict[str, Any]


def made(wb: Workbench, part: str) -> dict[str, Any]:
    """A part made anew: seconds, and what the evidence comes to."""
    built = build_evidence(wb, [part], restart=True)
    return {"seconds": round(built.took[part], 1), "sentences": list(built.sentences)}


def counted_labels(wb: Workbench) -> dict[str, Any]:
    table = wb.evidence.table
    told = {name: Counter(table[PART.own[name]].to_pylist()) for name in ("method", "verdict", "shuffled_verdict")}
    return {name: {str(value): n for value, n in found.items() if value} for name, found in told.items()}


def final(wb: Workbench) -> dict[str, Any]:
    """The labels of the evidence on the final documents; what came of it is a part of the evidence."""
    folder = smollm2.WORK / "final-index"
    if not (folder / "index.json").exists():
        raise InterpError(f"there is no index of the final documents in {folder}; run recipes/smollm2.py reserved.")
    began, last, table = time.perf_counter(), FeatureIndex.open(folder), wb.evidence.table
    text = last.passages.read_by(wb.meanings)
    # What is common to contexts, and how near is near, stay those of the text that the names were made from.
    text.remembered["subjects"] = subjects(wb.index.passages.read_by(wb.meanings)).elsewhere(text)
    wanted = ("feature", *(PART.own[name] for name in ("claim", "level", "verdict")))
    rows = [row for row in zip(*(table[name].to_pylist() for name in wanted), strict=True) if row[1]]
    labels = [Label(feature=feature, claim=read_claim(claim), level=level) for feature, claim, level, _ in rows]
    near = {label.feature: [int(other) for other in wb.index.row(label.feature)["nearest"]] for label in labels}
    found = try_labels(labels, Ground(text, split="final"), last.fired, near)
    _keep(wb, found, last)
    confirmed = {feature for feature, _, _, verdict in rows if verdict == "confirmed"}
    return {"seconds": round(time.perf_counter() - began, 1)} | held(
        [row for row in found if row["feature"] in confirmed]
    )


def _keep(wb: Workbench, found: list[Row], last: FeatureIndex) -> None:
    values: dict[str, list[Any]] = {"feature": [row["feature"] for row in found]}
    for name in ("verdict", "fires", "documents"):
        values[f"final_{name}"] = [row[name] for row in found]
    for name in ("f1", "precision", "recall"):
        for place, end in enumerate(("", "_low", "_high")):
            values[f"final_{name}{end}"] = [row[name][place] for row in found]
    values["final_holds"] = [None if row["verdict"] == "too few" else row["verdict"] == "confirmed" for row in found]
    about = {"sae_sha256": wb.card.sae_sha256, "index_files": last.meta["files"], "split": "final"}
    path = evidence_folder(wb.card.sae_sha256) / FINAL.file
    with places.whole_file(path) as partial:
        write_part(make_part(FINAL.name, FORMAT, FINAL_COLUMNS, values, about), partial)
    build_evidence(wb, ["labels"])  # which is there, and is joined with this


def held(rows: list[Row]) -> dict[str, Any]:
    """What became on the final documents of labels that had been confirmed."""
    judged = [row for row in rows if row["verdict"] != "too few"]
    above = sum(
        all(math.isfinite(row[n]) and row["f1"][0] > row[n] for n in row if n.startswith("null_")) for row in judged
    )
    again = sum(row["verdict"] == "confirmed" for row in judged)
    return {
        "confirmed before": len(rows),
        "judged": len(judged),
        "confirmed again": again,
        "confirmed again, share": wilson(again, len(judged)) if judged else None,
        "F1 above each null": above,
        "F1 above each null, share": wilson(above, len(judged)) if judged else None,
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STEPS)
    only = parser.parse_args().only
    file, wb = RESULTS / "labels.json", Workbench.open(EMBEDDED)
    figures: dict[str, Any] = places.read_json(file) if file.exists() else {}
    figures |= {"sae_sha256": wb.card.sae_sha256, "positions": wb.index.meta["positions"]}
    try:
        for step in [only] if only else STEPS:
            figures[step] = final(wb) if step == "final" else made(wb, step)
            if step == "labels":
                figures[step] |= counted_labels(wb)
    except InterpError as error:
        sys.exit(str(error))
    report("labels", figures)


if __name__ == "__main__":
    main()
