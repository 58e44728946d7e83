"""An SAE into a folder of SAELens 6's format.

Weights are stored in float16, where that holds them (see `stored`), with `"dtype": "float32"`: sae-lens then computes in
float32 on the rounded weights, which are the ones every metric was measured with.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp import places
from interp.checkpoint.card import WEIGHTS, Card
from interp.checkpoint.formats.foreign import is_transcoder
from interp.checkpoint.formats.saelens.cfg import TANH
from interp.checkpoint.formats.saelens.tensors import AXES, TENSORS, check_shapes, is_sound, stored
from interp.sae import SAE
from interp.sae.shards import ONE, Shards
from interp.types import InterpError

SAELENS_VERSION = "6.54.12"


def save_weights(
    sae: SAE,
    folder: str | Path,
    card: Card | None = None,
    *,
    dtype: torch.dtype | None = None,
    model: str = "",
    hooks: Sequence[str] = (),
    shards: Shards = ONE,
) -> str:
    """Write cfg.json and the weights, which open on their own, here and in SAELens; the weights' hash comes back.

    Of several ranks that share the features each writes its part, and the first has the hash.

    Without `dtype` each tensor is kept as `stored` says. `hooks` are the hook points of an SAE that does not name them
    yet: a transcoder's two, or a crosscoder's.

    Raises InterpError for values that the type cannot hold, and for what the format cannot compute.
    """
    into = Path(folder)
    if sae.tanh:
        raise InterpError(f"SAELens' format of today has no {TANH}, so nothing was saved; keep the old folder.")
    if hooks:
        sae = copy.copy(sae)
        several = len(sae.reads) > 1
        sae.set_hooks(hooks if several else hooks[0], None if several else hooks[1:] or None)
    tensors = {name: getattr(sae, name).detach() for name in TENSORS if getattr(sae, name) is not None}
    check_shapes("the SAE", architecture_of(sae), tensors, sae.d_in, sae.d_sae, sae.d_out)
    parts = {name: shards if name in AXES else ONE for name in tensors}
    kept = {name: (x.to(dtype) if dtype else stored(x, parts[name])).cpu() for name, x in tensors.items()}
    for name, tensor in kept.items():
        held = torch.equal(tensor.isfinite(), tensors[name].isfinite().cpu())  # a threshold of inf was one before
        if not held or not bool(is_sound(name, tensor).all()):
            raise InterpError(
                f"{name} has values that {str(tensor.dtype).partition('.')[2]} cannot hold, so nothing was saved."
            )
    shards.save(into / WEIGHTS, kept, {name: axis for name, axis in AXES.items() if name in kept})
    if not shards.leads:
        return ""
    places.write_json(into / "cfg.json", _cfg(sae, card, model) | {"d_sae": sae.d_sae * shards.features})
    return places.sha256_file(into / WEIGHTS)


def architecture_of(sae: SAE) -> str:
    """SAELens' name for what the SAE is."""
    if len(sae.reads) > 1:
        return "crosscoder"
    if sae.centred or not is_transcoder(sae):
        return sae.rule
    return f"{sae.rule}_transcoder" if sae.W_skip is None else f"{sae.rule}_skip_transcoder"


def _cfg(sae: SAE, card: Card | None, model: str = "") -> dict[str, Any]:
    known: dict[str, Any] = {"hook_name": sae.hook_name or None, "hook_name_out": sae.hook_name_out or None}
    known |= {"model_name": model} if model else {}
    if card is not None:
        known |= {
            "hook_name": card.hook_name,
            "model_name": card.model,
            "model_class_name": "TransformerBridge",
            "context_size": card.context,
            "sequence_separator_token": card.separator,
            "dataset_path": card.corpus.get("name"),
            "training_architecture": card.architecture,
        }
    return {
        "architecture": architecture_of(sae),
        **({"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.rule == "topk" else {}),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        **({"d_out": sae.d_out} if "transcoder" in architecture_of(sae) else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": None,
            "hook_head_index": None,
            "prepend_bos": False,
            "neuronpedia_id": None,
            **known,
        },
        **(
            {"widths": [hook.width for hook in sae.reads], "hook_names": [str(h) for h in sae.reads if h.name]}
            if len(sae.reads) > 1
            else {}
        ),
    }
