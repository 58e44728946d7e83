"""Save and load an SAE in SAELens 6's format (`cfg.json`, `sae_weights.safetensors`), plus our card.

Weights are stored in float16 with `"dtype": "float32"`: sae-lens then computes in float32 on the rounded weights,
which are the ones every metric was measured with.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from interp import places
from interp.checkpoint.card import Card
from interp.checkpoint.files import WEIGHTS
from interp.sae import SAE
from interp.types import InterpError

SAELENS_VERSION = "6.54.12"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")
_FOUR = ("W_enc", "b_enc", "W_dec", "b_dec")
KINDS: dict[str, tuple[str, ...]] = {
    "standard": _FOUR,
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "topk": _FOUR,
    "jumprelu": (*_FOUR, "threshold"),
    "transcoder": _FOUR,
    "skip_transcoder": (*_FOUR, "W_skip"),
    "jumprelu_transcoder": (*_FOUR, "threshold"),
    "jumprelu_skip_transcoder": (*_FOUR, "threshold", "W_skip"),
    "crosscoder": (*_FOUR, "threshold"),
}
"""What is read, with the tensors each needs; `crosscoder` is our own, SAELens has no format for it."""


def save(sae: SAE, folder: str | Path, card: Card) -> Card:
    """Write the checkpoint; the card as written, with the weights' hash, comes back."""
    into = Path(folder)
    digest = save_weights(sae, into, card)
    written = replace(
        card, sae_sha256=digest, files={"cfg.json": places.sha256_file(into / "cfg.json"), WEIGHTS: digest}
    )
    written.write(into)
    return written


def save_weights(sae: SAE, folder: str | Path, card: Card | None = None) -> str:
    """Write cfg.json and the weights, which open on their own, here and in SAELens; the weights' hash comes back."""
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
    return digest


def _architecture(sae: SAE) -> str:
    """SAELens' name for what the SAE is."""
    if sae.widths:
        return "crosscoder"
    if sae.centred:
        return sae.rule
    return f"{sae.rule}_transcoder" if sae.W_skip is None else f"{sae.rule}_skip_transcoder"


def _cfg(sae: SAE, card: Card | None) -> dict[str, Any]:
    known: dict[str, Any] = {"hook_name": sae.hook_name or None, "hook_name_out": sae.hook_name_out or None}
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
        "architecture": _architecture(sae),
        **({"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.rule == "topk" else {}),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        **({} if sae.centred else {"d_out": sae.d_out}),
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
        **({"widths": list(sae.widths), "hook_names": sae.hook_name.split("+")} if sae.widths else {}),
    }


def load(folder: str | Path, device: str = "cpu", *, check: bool = True) -> SAE:
    """The SAE in a folder of SAELens 6's format, with or without our card.

    Raises InterpError, saying what is wrong, for a folder that is missing, incomplete or of another kind, and
    when the weights are not the ones the card names (unless `check` is false: for who compares them himself).
    """
    path = Path(folder)
    if not path.is_dir():
        raise InterpError(f"there is no folder {path}; give the folder that holds cfg.json and {WEIGHTS}.")
    for name in ("cfg.json", WEIGHTS):
        if not (path / name).exists():
            raise InterpError(f"{path} is not a checkpoint: it has no {name}.")
    cfg = places.read_json(path / "cfg.json")
    kind = cfg.get("architecture") if isinstance(cfg, dict) else None
    if kind not in KINDS:
        raise InterpError(f"{path} holds an SAE of architecture {kind!r}; this version reads {', '.join(KINDS)}.")
    if cfg.get("normalize_activations") not in (None, "none"):
        raise InterpError(
            f"{path} normalises its inputs ({cfg['normalize_activations']}), which is not folded into its weights; "
            "fold the scale in first, or every activation would be wrong."
        )
    card = Card.read(path) if (path / "card.json").exists() else None
    if card is not None and check:
        verify_files(path)
    try:
        tensors = load_file(path / WEIGHTS, device=device)
    except (SafetensorError, OSError) as error:
        raise InterpError(f"{path / WEIGHTS} cannot be read: {error}.") from None
    missing = [name for name in KINDS[kind] if name not in tensors]
    if missing:
        raise InterpError(f"{path / WEIGHTS} has no tensor {', '.join(missing)}; it is not whole.")
    said = (cfg.get("d_in"), cfg.get("d_sae")), (cfg.get("d_sae"), cfg.get("d_out", cfg.get("d_in")))
    found = tuple(tensors["W_enc"].shape), tuple(tensors["W_dec"].shape)
    if said != found:
        raise InterpError(f"{path}: cfg.json says W_enc is {said[0]} and W_dec {said[1]}, the weights are {found}.")
    meta = cfg.get("metadata") or {}
    return SAE(
        **_weights(kind, tensors),
        k=_k(path, cfg, tensors) if kind == "topk" else None,
        centred=bool(cfg.get("apply_b_dec_to_input", True)),
        name=card.name if card else path.name,
        hook_name=card.hook_name if card else str(meta.get("hook_name") or ""),
        hook_name_out=str(meta.get("hook_name_out") or ""),
        widths=tuple(cfg.get("widths", ())),
    )


def _weights(kind: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a kind as `SAE` takes them: ReLU is a threshold of 0, a gate another threshold."""
    kept = {name: tensors[name].float() for name in KINDS[kind]}
    if kind in ("standard", "transcoder", "skip_transcoder"):
        return kept | {"threshold": torch.zeros_like(kept["b_enc"])}
    if kind == "gated":
        gain, b_mag, b_gate = kept.pop("r_mag").exp(), kept.pop("b_mag"), kept.pop("b_gate")
        threshold = (b_mag - gain * b_gate).clamp_min(0.0)
        return kept | {"W_enc": kept["W_enc"] * gain, "b_enc": b_mag, "threshold": threshold}
    return kept


def _k(path: Path, cfg: dict[str, Any], tensors: dict[str, Any]) -> int:
    norms = tensors["W_dec"].float().norm(dim=1)
    if cfg.get("rescale_acts_by_decoder_norm") and bool(((norms - 1).abs() > 1e-2).any()):
        raise InterpError(
            f"{path} ranks features by activation times decoder norm, and its norms are not 1; fold them."
        )
    if not isinstance(cfg.get("k"), int):
        raise InterpError(f"{path}/cfg.json has no k, which a topk SAE needs.")
    return int(cfg["k"])


def verify_files(folder: str | Path) -> None:
    """Raises InterpError when weights or cfg.json are not those the card names (the cheap part of verifying)."""
    path = Path(folder)
    card = Card.read(path)
    wanted = {WEIGHTS: card.sae_sha256 or card.files.get(WEIGHTS, ""), "cfg.json": card.files.get("cfg.json", "")}
    for name, digest in wanted.items():
        if digest and places.sha256_file(path / name) != digest:
            raise InterpError(
                f"{path / name} is not the file that card.json names (SHA-256 differs): it was changed or cut short."
            )
