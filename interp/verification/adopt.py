"""A converted checkpoint as one's own: compared with its source on real activations, and given a card."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp import places
from interp.checkpoint import Card, load
from interp.checkpoint.card import versions
from interp.checkpoint.files import hashes
from interp.checkpoint.formats import Conversion
from interp.checkpoint.formats.saelens.writing import architecture_of
from interp.mask import norm_cutoff, own_tokens
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.measure import activations
from interp.verification.probe import probe_blocks


def adopt(done: Conversion) -> dict[str, Any]:
    """What the conversion did, with the largest differences on real inputs; a card is written where it can be."""
    told: dict[str, Any] = {"source": done.source, "target": done.target, "into": str(done.into), "lost": done.lost}
    try:
        model, tokens, x_NTD = _real(done.sae, done.model)
    except InterpError as error:
        x = _drawn(done.sae)
        errors = {**done.error(x), "inputs": f"drawn at random: {error}"}
        note = ["no card was written, for the model did not open: give --model and --hook, or open it with interp.load"]
        return told | {"error": errors, "lost": done.lost + (note if done.target == "saelens" else [])}
    rows = x_NTD[:, 1:].reshape(-1, x_NTD.shape[-1])
    errors = {**done.error(rows), "inputs": f"{len(rows)} activations of {model.name} at {done.sae.hook_name}"}
    if done.target == "saelens" and not (done.into / "card.json").exists():
        _write_card(done.into, model, tokens, x_NTD, {"converted_from": done.source, "not_held": done.lost})
    return told | {"error": errors}


def give_card(folder: Path, model: str = "", hook_name: str = "", *, source: str = "") -> Card:
    """Write a card for a checkpoint that has none, with what its model says of it, so that it opens like one's own.

    Raises InterpError when neither cfg.json nor the caller names a model and hook point that can be opened here.
    """
    sae = load(folder)
    sae.set_hooks(hook_name or sae.hook_name, sae.hook_name_out or None)
    meta = places.read_json(folder / "cfg.json").get("metadata") or {}
    opened, tokens, x_NTD = _real(sae, model or str(meta.get("model_name") or ""))
    return _write_card(folder, opened, tokens, x_NTD, {"pulled_from": source}, sae.hook_name)


def _real(sae: SAE, name: str) -> tuple[Model, Tensor, Tensor]:
    """(model, tokens, activations at the hook point the SAE reads); InterpError when they cannot be had here."""
    hook = sae.hook_name
    if not name or not hook:
        raise InterpError("neither the source nor you named a model and a hook point.")
    model = open_model(name, dtype="float32", device="cpu")
    model.check_hook(hook)
    if model.shapes().get(hook) != (sae.d_in,):
        raise InterpError(f"{hook} of {model.name} has shape {model.shapes().get(hook)}, not {sae.d_in}.")
    tokens = probe_blocks(model, min(256, model.n_ctx))
    return model, tokens, activations(model, [hook], tokens)[hook]


def _drawn(sae: SAE) -> Tensor:
    """Rows about b_dec on which features fire."""
    draw = torch.Generator().manual_seed(0)
    start = sae.b_dec if sae.centred else torch.zeros(sae.d_in)
    return start + torch.randn(512, sae.d_in, generator=draw) * max(float(sae.W_dec.norm(dim=1).mean()), 1.0) * 2


def _write_card(
    folder: Path, model: Model, tokens: Tensor, x_NTD: Tensor, recipe: dict[str, Any], hook_name: str = ""
) -> Card:
    sae, digests = load(folder), hashes(folder)
    card = Card(
        name=folder.name,
        model=model.source,
        model_sha256=model.fingerprint(),
        hook_name=hook_name or sae.hook_name,
        hook_name_out=sae.hook_name_out,
        dtype=model.dtype_name,
        attention=model.attention,
        architecture=architecture_of(sae),
        norm_cutoff=norm_cutoff(x_NTD.norm(dim=-1), own_tokens(tokens, model.separator)),
        separator=model.separator,
        context=int(tokens.shape[1]),
        sae_sha256=digests["sae_weights.safetensors"],
        recipe=recipe,
        versions=versions(),
        licences={"weights": "not known: as at its source"},
        files=digests,
    )
    card.write(folder)
    return card
