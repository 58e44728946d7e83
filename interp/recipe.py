"""From harvested activations to a checkpoint with its card, in one call."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from interp.activations import ActivationStore
from interp.checkpoint import Card, save
from interp.checkpoint.card import versions
from interp.sae import SAE, make_architecture
from interp.training import TrainConfig, train

HELD_BACK_SHARE = 10


def train_checkpoint(
    store: ActivationStore,
    hook_name: str,
    into: str | Path,
    architecture: str = "batchtopk",
    *,
    d_sae: int,
    k: int,
    epochs: float = 1.0,
    batch: int = 4096,
    config: TrainConfig | None = None,
    held_out: ActivationStore | None = None,
    name: str | None = None,
    licences: dict[str, str] | None = None,
    script: str = "interp train",
    restart: bool = False,
) -> SAE:
    """Train on a store, write the checkpoint into a folder, and return the SAE as saved.

    `held_out` rows set the threshold (without it the last rows of the training batches do). The state of an
    unfinished run lies in `into/.run`, from which the same call goes on.
    """
    store.check_hook(hook_name)
    folder = Path(into)
    batches = store.batches(hook_name, min(batch, store.positions // 4 or 1), epochs=epochs)
    first = store.read(store.shards[0], hook_name)
    rule = make_architecture(architecture, d_in=int(first.shape[1]), d_sae=d_sae, k=k)
    config = config or TrainConfig()
    rows = None
    if held_out is not None:
        # Shuffled, so that the 65,536 rows that set the threshold are of all the texts.
        rows = torch.cat(list(held_out.batches(hook_name, 1024, buffer=held_out.positions)))
    sae = train(batches, rule, config, held_out=rows, into=folder / ".run", restart=restart)
    sae.name, sae.hook_name = name or folder.name, hook_name
    made = store.recipe
    card = Card(
        name=sae.name,
        model=made["source"],
        model_sha256=made["model_sha256"],
        hook_name=hook_name,
        dtype=made["dtype"],
        attention=made["attention"],
        architecture=architecture,
        norm_cutoff=store.norm_cutoff(hook_name),
        separator=made["separator"],
        context=made["block"],
        corpus=made["corpus"] | {"positions": made["positions"], "tokens_sha256": made["tokens_sha256"]},
        recipe=_resolved(script, rule, config, batches, epochs),
        versions=versions(),
        licences=licences or {"text": made["corpus"]["licence"]},
    )
    save(sae, folder, card)
    (folder / ".run" / "log.jsonl").replace(folder / "training_log.jsonl")
    shutil.rmtree(folder / ".run")
    return sae


def _resolved(script: str, rule: Any, config: TrainConfig, batches: Any, epochs: float) -> dict[str, Any]:
    return {
        "script": script,
        "architecture": {"name": type(rule).__name__, **asdict(rule)},
        "training": asdict(config.resolved(rule, len(batches) * batches.batch_size)),
        "batch_size": batches.batch_size,
        "epochs": epochs,
        "rows_an_epoch": batches.rows,
        "rows_seen": len(batches) * batches.batch_size,
        "masked": "position 0 of each block, separators, and positions with a norm over norm_cutoff",
    }
