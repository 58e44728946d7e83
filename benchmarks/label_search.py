"""Milliseconds of `text:` over 100,000 labels of one SAE, by meaning and by words; aim: 95 of 100 queries under 50.

    python benchmarks/label_search.py          # --json for figures only

The labels are made up (2 to 6 words out of 2,000), in a database of the benchmark's own; their sentence vectors are drawn at
random, for encoding 100,000 texts takes long and is done once. Queries are encoded by the real encoder. Given are times on
the clock and, for a machine that is busy with something else, of the processor.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from common import report

from interp.index import FeatureIndex
from interp.labels import Label, LabelBook
from interp.models.sentence import sentence_encoder
from interp.search import Collection, search
from interp.search.meanings import Meanings

LABELS, WIDTH, QUERIES = 100_000, 384, 100


def made_up_index() -> FeatureIndex:
    """An index as far as `text:` looks at one, with a feature for each label."""
    draw = torch.Generator().manual_seed(0)
    facts = {"fires": np.ones(LABELS, dtype=int), "density": np.full(LABELS, 1e-4), "max": np.ones(LABELS)}
    index = SimpleNamespace(
        d_sae=LABELS,
        descriptions=["fires on ‘,’"] * LABELS,
        features=pd.DataFrame(facts),
        meanings=torch.nn.functional.normalize(torch.randn(LABELS, WIDTH, generator=draw), dim=1),
        describe=lambda feature: "fires on ‘,’",
    )
    return cast(FeatureIndex, index)


def phrases(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    letters = list("aeioulnrstbcdmp")
    words = ["".join(draw.choice(letters, draw.integers(4, 9))) for _ in range(2_000)]
    return [" ".join(draw.choice(words, draw.integers(2, 7))) for _ in range(count)]


def encode(texts: list[str]) -> torch.Tensor:
    """The real encoder's for a query, vectors at random for many labels."""
    if len(texts) < 100:
        return sentence_encoder().encode(texts)
    return torch.nn.functional.normalize(torch.randn(len(texts), WIDTH), dim=1)


def timed(query: str, collection: Collection) -> tuple[float, float]:
    began, used = time.perf_counter(), time.process_time()
    search(query, collection)
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - used)


def measure(folder: Path) -> dict[str, Any]:
    book = LabelBook("sha", LABELS, url=f"sqlite:///{folder}/labels.sqlite")
    texts = phrases(LABELS, 0)
    book.add_after(lambda _: [Label(feature=f, text=text, created="2026-01-01") for f, text in enumerate(texts)])
    meanings = Meanings(encode, folder / "meanings.sqlite")
    collection = Collection(made_up_index(), book, meanings=meanings)
    found: dict[str, Any] = {"labels": LABELS}
    found["first query ms"] = round(timed("warm", collection)[0])
    for name, queries in (
        ("meaning", [" ".join(text.split()[:2]) for text in phrases(QUERIES, 1)]),
        ("words", [f'text:"{text.split()[0]}"' for text in phrases(QUERIES, 0)]),
    ):
        times = np.array([timed(query, collection) for query in queries])
        found[f"{name} p95 ms"], found[f"{name} p95 processor ms"] = np.percentile(times, 95, axis=0).round(1).tolist()
    book.set(7, "said meanwhile")
    found["after another label ms"] = round(timed("meanwhile", collection)[0])
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as made:
        figures = measure(Path(made))
    print(json.dumps(figures, indent=2)) if asked.json else report("label_search", figures)
