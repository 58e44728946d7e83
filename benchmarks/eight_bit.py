"""What 8-bit stores lose: how far rows are off, and what an SAE trained on them explains of rows that were never rounded.

    python benchmarks/eight_bit.py [--tokens 131072] [--d-sae 2304] [--store ACTS]

1. Rows of a harvest of SmolLM2's block 15 are rounded in several ways: a scale a row; a scale for every 64 channels of a row;
   each channel less its mean and over its spread, with a scale a row (what `stored="int8"` does).
2. The harvest is stored again in 8 bits, and the same SAE (seed, batches) is trained on both; both are measured on the same
   held-out rows as the model gave them.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from common import report
from safetensors import safe_open
from safetensors.torch import save_file

from interp.activations import ActivationStore, harvest
from interp.activations.eight_bit import in_bytes, read_bytes
from interp.corpus import open_corpus
from interp.models import open_model
from interp.recipe import train_checkpoint
from interp.recipe.held_out import HeldOut
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig

MODEL, HOOK = "smollm2", "blocks.15.hook_resid_post"


def by_scale(x_ND: torch.Tensor, channels: int) -> torch.Tensor:
    """Rows rounded to 255 steps of a scale for so many channels."""
    parts = x_ND.view(len(x_ND), -1, channels)
    scale = (parts.abs().amax(2, keepdim=True) / 127).clamp_min(1e-12)
    return ((parts / scale).round() * scale).view_as(x_ND)


def as_stored(x_ND: torch.Tensor, folder: Path) -> torch.Tensor:
    """Rows as they are read of a store in 8 bits, in float32."""
    save_file(in_bytes({"h": x_ND, "norm/h": x_ND.norm(dim=1)}, ["h"]), folder / "rows")
    with safe_open(folder / "rows", framework="pt") as file:
        return read_bytes(file, "h", "float32")


def rows_off(store: ActivationStore, folder: Path) -> dict[str, object]:
    """How far each way of rounding is off: an error's norm over its row's, and the part of the variance that is lost."""
    x_ND, keep = store.read(store.shards[0], HOOK).float(), store.keep(HOOK)[: store.shards[0]["positions"]]
    usual = x_ND[keep]
    variance = (usual - usual.mean(0)).square().sum(1).mean()
    power = usual.square()
    largest = power.mean(0).topk(2).values / power.sum(1).mean()
    figures: dict[str, object] = {"share of the power in the two largest channels": largest.tolist()}
    ways = {
        "a scale a row": by_scale(x_ND, x_ND.shape[1]),
        "a scale for 64 channels": by_scale(x_ND, 64),
        "int8 (mean and spread of channels, a scale a row)": as_stored(x_ND, folder),
    }
    for name, y_ND in ways.items():
        error = (y_ND - x_ND).norm(dim=1)
        off = error[keep] / usual.norm(dim=1)
        sinks = error[~keep] / x_ND[~keep].norm(dim=1)
        figures[name] = {
            "error of a row, median": float(off.median()),
            "99 %": float(off.quantile(0.99)),
            "largest": float(off.max()),
            "of sinks, largest": float(sinks.max()),
            "share of the variance": float(error[keep].square().mean() / variance),
        }
    return figures


def again(store: ActivationStore, folder: Path) -> ActivationStore:
    """The same harvest in 8 bits."""
    folder.mkdir()
    told = json.loads((store.folder / "manifest.json").read_text())
    for name in ("tokens.parquet", "documents.parquet"):
        shutil.copy(store.folder / name, folder)
    for shard in told["shards"]:
        keys = (HOOK, f"norm/{HOOK}")
        save_file(in_bytes({key: store.read(shard, key) for key in keys}, [HOOK]), folder / shard["file"])
        shard.pop("sha256"), shard.pop("norms_sha256")  # which are those of the other store
    told["recipe"] |= {"stored": "int8", "hooks": [HOOK]}
    (folder / "manifest.json").write_text(json.dumps(told))
    return ActivationStore.open(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--d-sae", type=int, default=2304)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--store", type=Path, help="a harvest of that hook point, instead of a new one")
    given = parser.parse_args()
    at = Path(tempfile.mkdtemp())
    try:
        if given.store:
            plain = ActivationStore.open(given.store)
        else:
            plain = harvest(open_model(MODEL), open_corpus("wiki-en"), [HOOK], given.tokens, at / "plain")
        figures: dict[str, object] = {"tokens": plain.positions, "d_sae": given.d_sae}
        figures |= rows_off(plain, at)
        eight = again(plain, at / "eight")
        sizes = [sum(path.stat().st_size for path in one.folder.glob("shard-*")) for one in (plain, eight)]
        figures["disk, of that of bfloat16"] = sizes[1] / sizes[0]
        rows = HeldOut.of(plain, None).rows(HOOK)
        half = rows[len(rows) // 2 :]
        for seed in range(given.seeds):
            for name, store in (("bfloat16", plain), ("int8", eight)):
                into = at / f"{name}-{seed}"
                config = TrainConfig(seed=seed)
                sae = train_checkpoint(store, HOOK, into, d_sae=given.d_sae, k=32, batch=1024, config=config)
                made = reconstruction(sae, half, half)
                figures[f"trained on {name}, seed {seed}"] = {"FVU": made.fvu, "L0": made.l0, "dead": made.dead}
        report("eight_bit", figures)
    finally:
        shutil.rmtree(at)


main()
