"""What a checkpoint's card says of how it was made, and whether a folder holds the very SAE that is asked."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp import places
from interp.activations import ActivationSource, Batches, Stream
from interp.checkpoint import Card, save
from interp.checkpoint.card import WEIGHTS, versions
from interp.checkpoint.trained import TrainedOn
from interp.sae import SAE, Architecture
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.shards import ONE, Shards
from interp.training import TrainConfig
from interp.training.plan import Plan
from interp.training.state import NEWER
from interp.types import Hook, InterpError


def recipe_of(script: str, name: str, rule: Architecture, config: TrainConfig, batches: Batches) -> dict[str, Any]:
    """How an SAE is made, with every default filled in, as its card keeps it."""
    rows = Plan.of(batches, config, held_out=True).tokens
    return {
        "script": script,
        "architecture": {"name": name, **asdict(rule)},  # type: ignore[call-overload]
        "batch_size": batches.batch_size,
        "epochs": batches.epochs,
        "buffer": batches.buffer,
        "pairs": batches.pairs,
        "streamed": isinstance(batches.source, Stream),
        "stored": batches.source.recipe.get("stored", ""),
        "held_out": batches.held_out,
        # After what was asked, from which its defaults follow: a refusal names the first field that differs.
        "training": asdict(config.resolved(rule, rows)),
        "rows_an_epoch": batches.rows,
        "rows_seen": rows,
        "masked": "position 0 of each block, separators, and positions with a norm over norm_cutoff",
    }


def card_of(
    sae: SAE | CrossLayerTranscoder,
    source: ActivationSource,
    architecture: str,
    recipe: dict[str, Any],
    licences: Mapping[str, str] | None = None,
) -> Card:
    """The card of an SAE that was just trained."""
    made, cutoffs = source.recipe, {str(hook): source.norm_cutoff(str(hook)) for hook in sae.reads}
    return Card(
        name=sae.name,
        model=made["source"],
        model_sha256=made["model_sha256"],
        hook_name=sae.hook_name,
        hook_name_out=sae.hook_name_out,
        dtype=made["dtype"],
        attention=made["attention"],
        architecture=architecture,
        norm_cutoff=cutoffs[str(sae.reads[0])],
        norm_cutoffs=cutoffs if len(cutoffs) > 1 else {},
        separator=made["separator"],
        context=made["block"],
        corpus=made["corpus"]
        | {"positions": made["positions"], "tokens_sha256": made["tokens_sha256"], "shares": _shares(source)}
        | items_of(source),
        recipe=recipe,
        versions=versions(),
        licences=dict(licences or {}) or {"text": made["corpus"]["licence"]},
    )


def _shares(source: ActivationSource) -> dict[str, float]:
    """Of each source its part of the text, as far as it can be told; of thousands of files the largest hundred."""
    largest = list(source.blocks.shares().items())[:100]
    return {name: round(share, 4) for name, share in largest}


def asked_of(
    source: ActivationSource, reads: Sequence[Hook], writes: Sequence[Hook], recipe: dict[str, Any], config: TrainConfig
) -> dict[str, Any]:
    """What a finished SAE must agree with to be the one that is asked."""
    read, written = ("+".join(map(str, hooks)) for hooks in (reads, writes))  # as the card spells them
    asked = _flat(_of(read, written, source.recipe["model_sha256"], source.recipe) | items_of(source) | recipe)
    for where in ("script", "training.device", "training.feature_ranks"):  # where it is made is not what is asked
        del asked[where]
    if config.bfloat16 is None:  # the machine's choice, and this may be another machine
        del asked["training.bfloat16"]
    return asked


def is_there(folder: Path, run: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds the finished SAE that is asked (see `asked_of`).

    Raises InterpError, naming what differs, when it holds another SAE. Where a run has begun, the loop compares.
    """
    if run.exists():
        return False
    if not (folder / "card.json").exists():
        if (folder / WEIGHTS).exists():
            raise InterpError(
                f"{folder} holds an SAE without a card; choose another folder, or --restart to replace it."
            )
        return False
    card = Card.read(folder)
    items = {key: value for key, value in card.corpus.items() if key == "items_sha256"}
    kept = _flat(_of(card.hook_name, card.hook_name_out, card.model_sha256, card.corpus) | items | card.recipe)
    for key, value in asked.items():
        before = kept.get(key, NEWER.get(key.split(".")[-1], value))
        if before != value:
            raise InterpError(
                f"{folder} holds an SAE with {key} = {before!r}, and {value!r} was asked; "
                "choose another folder, or --restart to replace it."
            )
    return True


def _of(hook: str, hook_out: str, model_sha256: str, text: Mapping[str, Any]) -> dict[str, Any]:
    tokens = text.get("tokens_sha256")
    return {"hook_name": hook, "hook_name_out": hook_out, "model_sha256": model_sha256, "tokens_sha256": tokens}


def items_of(source: ActivationSource) -> dict[str, str]:
    """Of pictures, sound or numbers, a name for what they are of; cards of before have none."""
    return {"items_sha256": items} if (items := source.blocks.items_sha256()) else {}


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Nested fields by names with dots, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(recipe)).items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): each for name, each in inner.items()}
    return flat


def trained_on(source: ActivationSource, blocks: range) -> TrainedOn:
    """The documents that stand in these blocks of the text, which are trained on."""
    text = source.blocks
    rows = text.document_NT[blocks.start : blocks.stop].unique().tolist()
    return TrainedOn.of(text.documents["sha256"].take(rows).to_pylist())


def keep(sae: SAE, folder: Path, run: Path, card: Card, trained: TrainedOn, shards: Shards = ONE) -> None:
    """Write the checkpoint with its log and the documents that it was trained on, then drop the state of its run; of several
    ranks that share the features each writes its part of the weights, and the first the rest."""
    if shards.leads:
        trained.write(folder)
    save(sae, folder, card, shards)
    if shards.leads:
        shutil.copyfile(run / "log.jsonl", folder / "training_log.jsonl")
        places.drop_folder(run)
