"""Tokens a second of building an index from cached activations, and memory as the text grows.

    python benchmarks/index.py                # harvests half a million tokens first (not measured)
    python benchmarks/index.py --acts FOLDER  # uses a harvest, such as the recipe's, for larger sizes

Each size is built in a process of its own, whose peak memory is
read at its end; the work includes the DuckDB sort, statistics, examples, logits and neighbours.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import peak_mib, report

TOKENS, SHARDS = 524_288, (2, 4, 8, 16, 32)


def build(sae: str, acts: str, shards: int) -> None:
    """One build, told as JSON on standard output."""
    from interp.activations import ActivationStore
    from interp.index import build_index
    from interp.workbench import Workbench

    wb, store = Workbench.open(sae), ActivationStore.open(acts).head(shards)
    _ = wb.model
    options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
    with tempfile.TemporaryDirectory() as into:
        began = time.perf_counter()
        build_index(wb.sae, store, wb.model, into, **options)
        seconds = time.perf_counter() - began
    figures = {"tokens": store.positions, "tokens/s": round(store.positions / seconds), "peak MiB": round(peak_mib())}
    print(json.dumps(figures))


def main(sae: str, acts: str | None) -> None:
    from interp.activations import ActivationStore, harvest
    from interp.corpus import open_corpus
    from interp.workbench import Workbench

    wb = Workbench.open(sae)
    with tempfile.TemporaryDirectory() as made:
        if acts is None:
            harvest(wb.model, open_corpus("wiki-en + python"), [wb.card.hook_name], TOKENS, made)
        store = ActivationStore.open(acts or made)
        rows = []
        for shards in [n for n in SHARDS if n <= len(store.shards)]:
            run = [sys.executable, __file__, "--build", sae, str(store.folder), str(shards)]
            rows.append(json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    report("index", {"sae": Path(sae).name, "sizes": rows})


if __name__ == "__main__":
    from interp.workbench import EMBEDDED

    if "--build" in sys.argv:
        build(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(EMBEDDED, sys.argv[2] if sys.argv[1:2] == ["--acts"] else None)
