"""Transcoders, and SAEs of the residual stream, of tiny models, for tests of circuits: random ones, so that everything fires and nothing is
explained well."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp import checkpoint
from interp.checkpoint import Card
from interp.checkpoint.cross_layer import save_cross_layer
from interp.models import Model
from interp.sae import SAE
from interp.sae.cross_layer import CrossLayerTranscoder, forwards


def random_transcoders(
    model: Model, *, d_sae: int = 24, skip: bool = False, linked: bool = False, seed: int = 0
) -> list[SAE]:
    """One for every layer, whose features fire at about a third of the positions.

    Where they are `linked`, feature f of a layer reads what feature f of the layer before writes, so that this edge is a true one.
    """
    draw = torch.Generator().manual_seed(seed)
    layers = sorted({int(name.split(".")[1]) for name in model.hook_names() if name.startswith("blocks.")})
    made: list[SAE] = []
    for layer in layers:
        reads = next(
            name
            for name in (f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.ln2.hook_out")
            if name in model.hook_names()
        )
        writes = f"blocks.{layer}.hook_mlp_out"
        width = model.width(reads)
        W_enc = torch.randn(width, d_sae, generator=draw) / width**0.5
        if linked and made:
            W_enc = 3 * made[-1].W_dec.T / made[-1].W_dec.norm(dim=1)
        made.append(
            SAE(
                W_enc=W_enc,
                b_enc=torch.randn(d_sae, generator=draw) * 0.1,
                W_dec=torch.randn(d_sae, width, generator=draw) / width**0.5,
                b_dec=torch.randn(width, generator=draw) * 0.1,
                threshold=torch.full((d_sae,), 0.4),
                W_skip=torch.randn(width, width, generator=draw) / width if skip else None,
                centred=False,
                name=f"layer-{layer}",
                reads=reads,
                writes=writes,
            )
        )
    return made


def card_for(model: Model, name: str, hook_name: str, **more: Any) -> Card:
    """Of something of this model that was trained nowhere."""
    facts: dict[str, Any] = {"model": model.source, "model_sha256": model.fingerprint(), "separator": model.separator}
    facts |= {"architecture": "transcoder", "dtype": "float32", "attention": "sdpa", "norm_cutoff": 1e6, "context": 64}
    return Card(name=name, hook_name=hook_name, **facts | more)


def save_transcoders(model: Model, root: Path) -> Path:
    """A transcoder for every layer, as checkpoints with cards."""
    for one in random_transcoders(model):
        card = card_for(model, one.name, one.hook_name, hook_name_out=one.hook_name_out)
        checkpoint.save(one, root / one.name, card)
    return root


def random_stream(
    model: Model, hooks: Sequence[str] = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post"), *, d_sae: int = 24
) -> list[SAE]:
    """An SAE at each hook point of the residual stream, whose features fire at about a third of the positions."""
    draw = torch.Generator().manual_seed(3)
    made = []
    for hook in hooks:
        width = model.width(hook)
        rows = torch.randn(d_sae, width, generator=draw) / width**0.5
        made.append(
            SAE(
                W_enc=rows.T / 2,
                b_enc=torch.randn(d_sae, generator=draw) * 0.1,
                W_dec=rows + torch.randn(d_sae, width, generator=draw) / (2 * width**0.5),
                b_dec=torch.randn(width, generator=draw) * 0.1,
                threshold=torch.full((d_sae,), 0.3),
                name=hook.replace(".", "-"),
                reads=hook,
            )
        )
    return made


def save_stream(model: Model, root: Path) -> Path:
    """An SAE at each of two hook points of the residual stream, as checkpoints with cards."""
    for one in random_stream(model):
        card = card_for(model, one.name, one.hook_name, architecture="jumprelu")
        checkpoint.save(one, root / one.hook_name, card)
    return root


def random_cross_layer(model: Model, *, rank: int = 2, apart: bool = False, seed: int = 0) -> CrossLayerTranscoder:
    """A cross-layer transcoder whose encoders are those of `random_transcoders`; `apart` it writes what these do, and nothing further."""
    saes = random_transcoders(model, seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    more = torch.randn(len(saes), rank - 1, *saes[0].W_dec.shape, generator=draw) / saes[0].d_out ** 0.5
    decoders = torch.cat([torch.stack([one.W_dec for one in saes])[:, None], more], 1)
    mix = torch.zeros(len(saes), rank, len(saes))
    mix[:, 0] = torch.eye(len(saes))
    if not apart:
        mix = torch.randn(mix.shape, generator=draw) * forwards(len(saes))[:, None]
    return CrossLayerTranscoder(
        W_enc=torch.stack([one.W_enc for one in saes]),
        b_enc=torch.stack([one.b_enc for one in saes]),
        threshold=torch.stack([one.threshold for one in saes if one.threshold is not None]),
        W_dec=decoders,
        b_dec=torch.stack([one.b_dec for one in saes]),
        mix=mix,
        reads=tuple(one.hook_name for one in saes),
        writes=tuple(one.hook_name_out for one in saes),
    )


def save_random_cross_layer(model: Model, folder: Path, **changed: Any) -> Path:
    """One with a card, of which fields may be `changed`."""
    transcoder = random_cross_layer(model)
    card = card_for(model, "clt", transcoder.hook_name, hook_name_out=transcoder.hook_name_out, **changed)
    save_cross_layer(transcoder, folder, card)
    return folder
