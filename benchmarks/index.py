"""Tokens a second of building an index from cached activations, its memory and size, and SAEDashboard beside it.

    python benchmarks/index.py --acts FOLDER   # uses a harvest, such as the recipe's, for sizes up to 8 million tokens
    python benchmarks/index.py                 # harvests half a million tokens first (not measured)
    make bench-peers                           # SAEDashboard's environment, once; without it that part is left out

Each size is built in a process of its own, whose peak memory is read at its end; the work includes the sort, all
statistics, examples, co-activation, logits, neighbours, neurons and meanings, and both orders of all activations.

SAEDashboard runs in its environment on the same SAE, the same cached activations and device, for two batches of 128
features, of which it would need 72. Ours is the whole build of that size, all features.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import highest, own_mib, peak_mib, report

TOKENS, SHARDS = 524_288, (8, 16, 32, 122)
DASHBOARD = Path(__file__).parent.parent / ".peers-dashboard" / "bin" / "python"
PEER_SHARDS = 16
"""Shards of 65,536 tokens for the comparison."""


def build(sae: str, acts: str, shards: int) -> None:
    """One build, told as JSON on standard output."""
    from interp.activations import ActivationStore
    from interp.index import FeatureIndex, build_index
    from interp.workbench import Workbench

    wb, store = Workbench.open(sae), ActivationStore.open(acts).head(shards)
    _ = wb.model
    before = peak_mib()
    options = {"norm_cutoff": wb.card.norm_cutoff, "sae_sha256": wb.card.sae_sha256}
    with tempfile.TemporaryDirectory(dir=acts) as into:
        held = own_mib()
        with highest(own_mib) as peak:
            began = time.perf_counter()
            build_index(wb.sae, store, wb.model, into, **options)
            seconds = time.perf_counter() - began
        index = FeatureIndex.open(into)
        activations = int(index.features["fires"].sum())
        sizes = {path.name: path.stat().st_size for path in Path(into).iterdir()}
        orders = sum(sizes[f"{name}.parquet"] for name in ("activations", "positions", "pairs"))
    figures = {
        "tokens": store.positions,
        "tokens/s": round(store.positions / seconds),
        "seconds": round(seconds, 1),
        "peak MiB": round(peak_mib()),
        "of which the open model and SAE": round(before),
        "beyond them, without pages of mapped files": round(peak[0] - held),
        "bytes an activation, all files": round(sum(sizes.values()) / activations, 2),
        "bytes an activation, both orders and pairs": round(orders / activations, 2),
    }
    print(json.dumps(figures))


def beside_dashboard(sae: str, store: str, shards: int, ours: dict[str, Any]) -> dict[str, Any]:
    """Features a second of both on the same cached activations."""
    if not DASHBOARD.exists():
        return {"left out": "SAEDashboard's environment is not there; `make bench-peers` makes it"}
    from interp.models.embedded import smollm2_folder
    from interp.workbench import Workbench

    wb = Workbench.open(sae)
    script = Path(__file__).with_name("dashboard_peer.py")
    theirs = _told([str(DASHBOARD), str(script), str(wb.folder), str(smollm2_folder()), store, str(shards)])
    rate = round(wb.sae.d_sae / ours["seconds"], 1)
    ratio = round(rate / theirs["features/s"], 1)
    return {"tokens": ours["tokens"], "interp": {"features/s": rate}, "SAEDashboard": theirs, "ratio": ratio}


def _told(call: list[str]) -> dict[str, Any]:
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(sae: str, acts: str | None, *, peer: bool) -> None:
    from interp.activations import ActivationStore, harvest
    from interp.corpus import open_corpus
    from interp.workbench import Workbench

    made = tempfile.mkdtemp()
    try:
        if acts is None:
            wb = Workbench.open(sae)
            harvest(wb.model, open_corpus("wiki-en + python"), [wb.card.hook_name], TOKENS, made)
        store = ActivationStore.open(acts or made)
        sizes = [n for n in SHARDS if n <= len(store.shards)]
        figures: dict[str, Any] = {"sae": Path(sae).name, "sizes": []}
        for n in sizes:
            figures["sizes"].append(_told([sys.executable, __file__, "--build", sae, str(store.folder), str(n)]))
            if peer and n == min(PEER_SHARDS, sizes[-1]):  # right after ours of the same size
                figures["beside SAEDashboard"] = beside_dashboard(sae, str(store.folder), n, figures["sizes"][-1])
    finally:
        shutil.rmtree(made)
    report("index", figures)


if __name__ == "__main__":
    from interp.workbench import EMBEDDED

    if sys.argv[1:2] == ["--build"]:
        build(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--acts")
        parser.add_argument("--no-peer", action="store_true")
        given = parser.parse_args()
        main(EMBEDDED, given.acts, peer=not given.no_peer)
