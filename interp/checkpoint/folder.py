"""Save and load an SAE in SAELens 6's format (`cfg.json`, `sae_weights.safetensors`), plus our card.

Weights are stored in float16 with `"dtype": "float32"`: sae-lens then computes in float32 on the rounded weights,
which are the ones every metric was measured with.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from interp import places
from interp.checkpoint.card import Card
from interp.sae import SAE
from interp.types import InterpError

SAELENS_VERSION = "6.54.12"
WEIGHTS = "sae_weights.safetensors"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


def save(sae: SAE, folder: str | Path, card: Card) -> Card:
    """Write the checkpoint; the card as written, with the weights' hash, comes back."""
    into = Path(folder)
    tensors = {name: getattr(sae, name) for name in TENSORS if getattr(sae, name) is not None}
    halves = {name: tensor.detach().cpu().to(torch.float16).contiguous() for name, tensor in tensors.items()}
    for name, half in halves.items():
        if not bool(half.isfinite().all()):
            raise InterpError(
                f"{name} has values that float16 cannot hold, so nothing was saved; train on scaled activations."
            )
    with places.whole_file(into / WEIGHTS) as partial:
        try:
            save_file(halves, partial)
        except SafetensorError as error:
            raise places.disk_error(into, OSError(28, str(error))) from error
        digest = places.sha256_file(partial)
    places.write_json(into / "cfg.json", _cfg(sae, card))
    written = Card(**{**card.__dict__, "sae_sha256": digest})
    written.write(into)
    return written


def _cfg(sae: SAE, card: Card) -> dict[str, Any]:
    return {
        "architecture": sae.rule,
        **({"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.rule == "topk" else {}),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": None,
            "model_name": card.model,
            "model_class_name": "TransformerBridge",
            "hook_name": card.hook_name,
            "hook_head_index": None,
            "context_size": card.context,
            "prepend_bos": False,
            "sequence_separator_token": card.separator,
            "dataset_path": card.corpus.get("name"),
            "training_architecture": card.architecture,
            "neuronpedia_id": None,
        },
    }


def load(folder: str | Path, device: str = "cpu") -> SAE:
    """The SAE in a folder of SAELens 6's format, with or without our card.

    Raises InterpError, saying what is wrong, for a folder that is missing, incomplete or of another kind, and
    when the weights are not the ones the card names.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InterpError(f"there is no folder {path}; give the folder that holds cfg.json and {WEIGHTS}.")
    for name in ("cfg.json", WEIGHTS):
        if not (path / name).exists():
            raise InterpError(f"{path} is not a checkpoint: it has no {name}.")
    cfg = places.read_json(path / "cfg.json")
    rule = cfg.get("architecture") if isinstance(cfg, dict) else None
    if rule not in ("jumprelu", "topk"):
        raise InterpError(f"{path} holds an SAE of architecture {rule!r}; this version reads jumprelu and topk.")
    card = Card.read(path) if (path / "card.json").exists() else None
    if card is not None:
        verify_files(path)
    try:
        tensors = load_file(path / WEIGHTS, device=device)
    except (SafetensorError, OSError) as error:
        raise InterpError(f"{path / WEIGHTS} cannot be read: {error}.") from None
    wanted = [name for name in TENSORS if name != "threshold" or rule == "jumprelu"]
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise InterpError(f"{path / WEIGHTS} has no tensor {', '.join(missing)}; it is not whole.")
    if (
        tuple(tensors["W_enc"].shape) != (cfg["d_in"], cfg["d_sae"])
        or tensors["W_dec"].shape != tensors["W_enc"].T.shape
    ):
        raise InterpError(
            f"{path}: cfg.json says {cfg['d_in']} x {cfg['d_sae']}, the weights are {tuple(tensors['W_enc'].shape)}."
        )
    meta = cfg.get("metadata") or {}
    name = card.name if card else path.name
    hook = card.hook_name if card else str(meta.get("hook_name") or "")
    return SAE(**{n: tensors[n] for n in wanted}, k=cfg.get("k") if rule == "topk" else None, name=name, hook_name=hook)


def verify_files(folder: str | Path) -> None:
    """Raises InterpError when the weights are not those the card names (the cheap part of verifying)."""
    path = Path(folder)
    card = Card.read(path)
    if card.sae_sha256 and places.sha256_file(path / WEIGHTS) != card.sae_sha256:
        raise InterpError(
            f"{path / WEIGHTS} is not the file that card.json names (SHA-256 differs): it was changed or cut short."
        )
