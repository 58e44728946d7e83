"""Tokens a second of building an index from cached activations, its memory and size, and SAEDashboard beside it.

    python benchmarks/index.py --acts FOLDER   # uses a harvest, such as the recipe's, for sizes up to 8 million tokens
    python benchmarks/index.py                 # harvests half a million tokens first (not measured)
    make bench-peers                           # SAEDashboard's environment, once; without it that part is left out

Each size is built in a process of its own, whose peak memory is read at its end; the work includes the sort, all
statistics, examples, co-activation, logits, neighbours, neurons and meanings, and both orders of all activations.

SAEDashboard runs on the same SAE, model, tokens and device, in its environment. Its first batch of features also runs the
model, so its rate is that of the later batches alone, which favours it; ours is of the whole build, straight from the
model, forward passes and all.
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

from common import peak_mib, report

TOKENS, SHARDS = 524_288, (8, 16, 32, 122)
DASHBOARD = Path(__file__).parent.parent / ".peers-dashboard" / "bin" / "python"
PEER_BLOCKS = 512
"""Blocks of 256 tokens for the comparison: 131,072 tokens."""


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
        "bytes an activation, all files": round(sum(sizes.values()) / activations, 2),
        "bytes an activation, both orders and pairs": round(orders / activations, 2),
    }
    print(json.dumps(figures))


def from_the_model(sae: str, folder: str) -> None:
    """The index of the tokens in a file, model included: features a second."""
    import torch
    from safetensors.torch import load_file

    from interp.activations import Stream
    from interp.corpus import open_corpus, tokenize
    from interp.index import build_index
    from interp.workbench import Workbench

    wb = Workbench.open(sae)
    hook = wb.card.hook_name
    tokens_NT = load_file(Path(folder) / "tokens.safetensors")["tokens"]
    blocks = tokenize(open_corpus("wiki-en"), wb.model, tokens_NT.numel())
    assert torch.equal(blocks.tokens_NT, tokens_NT)
    recipe = {"model_sha256": wb.card.model_sha256, "corpus": {}, "tokens_sha256": "", "hooks": [hook]}
    source = Stream(wb.model, blocks, recipe)
    with tempfile.TemporaryDirectory() as into:
        began = time.perf_counter()
        build_index(wb.sae, source, wb.model, into, norm_cutoff=wb.card.norm_cutoff)
        seconds = time.perf_counter() - began
    print(json.dumps({"features/s": round(wb.sae.d_sae / seconds, 1), "seconds": round(seconds, 1)}))


def beside_dashboard(sae: str) -> dict[str, Any]:
    """Features a second of both on the same tokens."""
    if not DASHBOARD.exists():
        return {"left out": "SAEDashboard's environment is not there; `make bench-peers` makes it"}
    from safetensors.torch import save_file

    from interp.corpus import open_corpus, tokenize
    from interp.models.embedded import smollm2_folder
    from interp.workbench import Workbench

    wb = Workbench.open(sae)
    with tempfile.TemporaryDirectory() as folder:
        tokens = tokenize(open_corpus("wiki-en"), wb.model, PEER_BLOCKS * 256).tokens_NT
        save_file({"tokens": tokens.contiguous()}, Path(folder) / "tokens.safetensors")
        ours = _told([sys.executable, __file__, "--from-model", sae, folder])
        script = Path(__file__).with_name("dashboard_peer.py")
        theirs = _told([str(DASHBOARD), str(script), str(wb.folder), str(smollm2_folder()), folder])
    ratio = round(ours["features/s"] / theirs["features/s"], 1)
    return {"tokens": int(tokens.numel()), "interp": ours, "SAEDashboard": theirs, "ratio": ratio}


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
        rows = [_told([sys.executable, __file__, "--build", sae, str(store.folder), str(n)]) for n in sizes]
    finally:
        shutil.rmtree(made)
    figures = {"sae": Path(sae).name, "sizes": rows}
    report("index", figures | ({"beside SAEDashboard": beside_dashboard(sae)} if peer else {}))


if __name__ == "__main__":
    from interp.workbench import EMBEDDED

    if sys.argv[1:2] == ["--build"]:
        build(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["--from-model"]:
        from_the_model(sys.argv[2], sys.argv[3])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--acts")
        parser.add_argument("--no-peer", action="store_true")
        given = parser.parse_args()
        main(EMBEDDED, given.acts, peer=not given.no_peer)
