"""Milliseconds of 200 mixed queries (search_queries.txt: every key at least ten times, a tenth over 5 % of the tokens).

    python benchmarks/search.py                  # all, on a full index of 2 million tokens, built first if there is none
    python benchmarks/search.py --quick --json   # without contrast:, on the full index if there is one, else the embedded

In the order of the file, after one query of each kind has read the files. What a query takes that is the first one after
opening is measured in a process of its own, fires: among them, which also opens the model. The
80 ms are for queries that run no language model; fires: and only: run it over their text, contrast: over 1,000 + 1,000
texts of at most 64 tokens. Labels: 500, made up, in a store of the benchmark's own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report

from interp import places
from interp.index import FeatureIndex, IndexConfig, build_index
from interp.search import parse
from interp.workbench import EMBEDDED, Workbench

QUERIES = Path(__file__).with_name("search_queries.txt")
TOKENS = 2_000_000
RUNS = ("fires", "only", "contrast")
"""Keys that run the language model."""
FIRST = ("token:/^ Paris$/", 'context:"capital of"', "european capitals", 'promotes:" France"', "like:17", "with:17")
FIRST_WITH_MODEL = 'fires:"The first text opens the model."'


def labelled(wb: Workbench) -> None:
    draw = np.random.default_rng(0)
    for feature in draw.choice(wb.sae.d_sae, 500, replace=False):
        status = str(draw.choice(["proposed", "confirmed", "refuted"]))
        author = str(draw.choice(["ada", "grace"]))
        wb.labels.set(int(feature), wb.index.describe(int(feature)), author=author, status=status)


def full_index(wb: Workbench) -> None:
    """Two million tokens of packaged text, under INTERP_HOME, unless a full index is there."""
    stores = places.cache() / "recipes" / "smollm2" / "train"
    folder = wb.full_index_folder
    if (folder / "index.json").exists() and FeatureIndex.open(folder).meta["positions"] >= TOKENS:
        return
    if (stores / "manifest.json").exists():  # harvested already
        from interp.activations import ActivationStore

        store = ActivationStore.open(stores)
        options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
        build_index(wb.sae, store.head(-(-TOKENS // 65_536)), wb.model, folder, IndexConfig(), **options)
    else:
        wb.build_index("wiki-en + wiki-fr + wiki-es + python", TOKENS)


def milliseconds(wb: Workbench, query: str) -> float:
    began = time.perf_counter()
    wb.search(query)
    return 1e3 * (time.perf_counter() - began)


def fresh(query: str) -> int:
    """Milliseconds of a query in a new process, after opening the workbench."""
    call = [sys.executable, __file__, "--first", query]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def kind(query: str) -> str:
    """contrast, fires (one forward pass), or index (no model)."""
    keys = {term.key for term in parse(query).terms}
    return "contrast" if "contrast" in keys else "fires" if keys & set(RUNS) else "index"


def measure(wb: Workbench, *, quick: bool) -> dict[str, Any]:
    queries = QUERIES.read_text(encoding="utf-8").splitlines()
    asked = (*FIRST[:2], *(() if quick else (*FIRST[2:], FIRST_WITH_MODEL)))
    first = {query: fresh(query) for query in asked}
    for query in (*FIRST, FIRST_WITH_MODEL):
        milliseconds(wb, query)
    if not quick:
        milliseconds(wb, "contrast:wiki-en,wiki-fr")
    taken: dict[str, list[float]] = {"index": [], "fires": [], "contrast": []}
    slowest: list[tuple[float, str]] = []
    for query in queries:
        if quick and kind(query) == "contrast":
            continue
        taken[kind(query)].append(milliseconds(wb, query))
        slowest.append((round(taken[kind(query)][-1], 1), query))
    index = wb.index
    share = int(np.count_nonzero(index.kept))
    figures: dict[str, Any] = {
        "p95_ms": round(float(np.percentile(taken["index"], 95)), 1),
        "median_ms": round(float(np.median(taken["index"])), 1),
        "queries": len(taken["index"]),
        "fires_p95_ms": round(float(np.percentile(taken["fires"], 95)), 1),
        "forward_ms": round(forward(wb), 1),
        "fires_queries": len(taken["fires"]),
        "contrast_s": [round(ms / 1e3, 1) for ms in taken["contrast"]],
        "first_ms": first,
        "tokens": index.meta["positions"],
        "counted_tokens": share,
        "activations": int(index.features["fires"].sum()),
        "index": "examples" if index.partial else "full",
        "slowest": sorted(slowest, reverse=True)[:8] if quick else [x for x in sorted(slowest)[::-1] if x[0] < 5e3][:8],
    }
    return figures


def forward(wb: Workbench) -> float:
    """Milliseconds of the spectrum of a text, which is what fires: adds; median of 20."""
    times = []
    for number in range(20):
        began = time.perf_counter()
        wb.spectrum(f"The Eiffel Tower is in Paris, the capital of France, number {number}.")
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--first", help="one query after opening, and nothing else")
    given = parser.parse_args()
    if given.first:
        print(round(milliseconds(Workbench.open(EMBEDDED, labels="sqlite://"), given.first)))
        return
    with tempfile.TemporaryDirectory() as made:
        opening = time.perf_counter()
        wb = Workbench.open(EMBEDDED, labels=f"sqlite:///{made}/labels.sqlite")
        opening = time.perf_counter() - opening
        if not given.quick:
            full_index(wb)
            wb = Workbench.open(EMBEDDED, labels=f"sqlite:///{made}/labels.sqlite")
        labelled(wb)
        figures = measure(wb, quick=given.quick)
    if given.quick:
        print(json.dumps(figures, indent=None if given.json else 2))
    else:
        report("search", figures | {"open_ms": round(1e3 * opening)})


if __name__ == "__main__":
    main()
