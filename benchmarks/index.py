"""Tokens a second of building an index from cached activations, and memory as the text grows.

    python benchmarks/index.py [SAE]

The activations are harvested first (not measured). Each size is built in a process of its own, whose peak memory is
read at its end; the work includes the DuckDB sort, statistics, examples, logits and neighbours.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import peak_mib, report

TOKENS, SHARDS = 524_288, (2, 4, 8)


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


def main(sae: str) -> None:
    from interp.activations import harvest
    from interp.corpus import open_corpus
    from interp.workbench import Workbench

    wb = Workbench.open(sae)
    with tempfile.TemporaryDirectory() as acts:
        harvest(wb.model, open_corpus("wiki-en + python"), [wb.card.hook_name], TOKENS, acts)
        rows = []
        for shards in SHARDS:
            run = [sys.executable, __file__, "--build", sae, acts, str(shards)]
            rows.append(json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    report("index", {"sae": Path(sae).name, "sizes": rows})


if __name__ == "__main__":
    from interp.workbench import EMBEDDED

    if "--build" in sys.argv:
        build(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else EMBEDDED)
