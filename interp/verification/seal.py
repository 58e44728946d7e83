"""Sealing: what a checkpoint's maker stores in it for others to verify."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import Card, load
from interp.checkpoint.card import versions
from interp.checkpoint.files import LABELS, hashes
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.measure import apart
from interp.verification.numbers import CHECKS, FLOOR, FORMAT, measure_card, open_for
from interp.verification.probe import VERSION, probe_blocks


def seal(folder: Path, *, device: str = "auto", labels: bool = False) -> Card:
    """Write checks.json (numbers on the probe, with their tolerances) and every file's hash into the card.

    For whoever made the checkpoint, on the model it was made for: InterpError when another one answers to its name.
    A crosscoder gets its files' hashes only. `labels` (and a card that has hashed them before) hashes the labels that
    ship, too.
    """
    card, sae = Card.read(folder), load(folder)
    if len(sae.reads) == 1:
        model = open_for(card, "", device)
        if model.fingerprint_like(card.model_sha256) != card.model_sha256:
            raise InterpError(f"{card.name} was not sealed: {card.model} has other weights here than its card names.")
        places.write_json(folder / CHECKS, checks_of(card, sae.to(model.device), model, device))
    return replace(card, files=hashes(folder, labels=labels or LABELS in card.files)).write(folder)


def checks_of(card: Card, sae: SAE, model: Model, device: str) -> dict[str, Any]:
    """What checks.json holds; `counted` is 0, and the sample empty, where no position of the probe counts."""
    tokens = probe_blocks(model, min(card.context, model.n_ctx))
    now = measure_card(card, sae, model, tokens)
    other = open_for(card, model.source, device, "float32" if model.dtype_name != "float32" else "bfloat16")
    far = {
        "same": apart(now, measure_card(card, sae, model, tokens, at_once=1)),
        "other": apart(now, measure_card(card, sae, other, tokens)),
    }
    return {
        "format": FORMAT,
        "probe": VERSION,
        "dtype": model.dtype_name,
        "attention": model.attention,
        "versions": versions(),
        "tokens": [" ".join(map(str, block)) for block in tokens.tolist()],
        "counted": int(now.counted_NT.sum()),
        "l0": round(now.l0, 4),
        "ev": round(now.ev, 6),
        "mean_norm": round(now.mean_norm, 4),
        "histogram": now.histogram(),
        "sample": [f"{p} {f} {v:.6g}" for p, f, v in now.sample()],
        "apart": {kind: {k: round(v, 6) for k, v in found.items()} for kind, found in far.items()},
        "tolerances": {kind: {k: round(2 * v + FLOOR[k], 6) for k, v in found.items()} for kind, found in far.items()},
    }
