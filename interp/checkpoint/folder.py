"""Save and load an SAE in SAELens 6's format (`cfg.json`, `sae_weights.safetensors`), plus our card.

Weights are stored in float16, where that holds them (see `stored`), with `"dtype": "float32"`: sae-lens then computes in
float32 on the rounded weights, which are the ones every metric was measured with.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp import places
from interp.checkpoint.card import Card
from interp.checkpoint.files import WEIGHTS
from interp.checkpoint.formats import saelens
from interp.checkpoint.formats.foreign import gated, integer, is_transcoder, make, whole_tensors
from interp.sae import SAE
from interp.sae.dictionary import with_widths
from interp.types import Hook, InterpError, parse_hooks

SAELENS_VERSION = "6.54.12"
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")
_FOUR = ("W_enc", "b_enc", "W_dec", "b_dec")
KINDS: dict[str, tuple[str, ...]] = {
    "standard": _FOUR,
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "topk": _FOUR,
    "batchtopk": (*_FOUR, "topk_threshold"),
    "matryoshka_batchtopk": (*_FOUR, "topk_threshold"),
    "jumprelu": (*_FOUR, "threshold"),
    "transcoder": _FOUR,
    "skip_transcoder": (*_FOUR, "W_skip"),
    "jumprelu_transcoder": (*_FOUR, "threshold"),
    "jumprelu_skip_transcoder": (*_FOUR, "threshold", "W_skip"),
    "topk_transcoder": _FOUR,
    "topk_skip_transcoder": (*_FOUR, "W_skip"),
    "crosscoder": (*_FOUR, "threshold"),
}
"""What is read, with the tensors each needs; the last three are our own, SAELens has no format for them."""
OWN = tuple(KINDS)[-3:]


def save(sae: SAE, folder: str | Path, card: Card) -> Card:
    """Write the checkpoint; the card as written, with the weights' hash, comes back."""
    into = Path(folder)
    digest = save_weights(sae, into, card)
    files = {"cfg.json": places.sha256_file(into / "cfg.json"), WEIGHTS: digest}
    return replace(card, sae_sha256=digest, files=files).write(into)


def save_weights(
    sae: SAE,
    folder: str | Path,
    card: Card | None = None,
    *,
    dtype: torch.dtype | None = None,
    model: str = "",
    hooks: Sequence[str] = (),
) -> str:
    """Write cfg.json and the weights, which open on their own, here and in SAELens; the weights' hash comes back.

    Without `dtype` each tensor is kept as `stored` says. `hooks` are the hook points of an SAE that does not name them
    yet: a transcoder's two, or a crosscoder's.
    """
    into = Path(folder)
    if sae.tanh:
        raise InterpError(f"SAELens' format of today has no {saelens.TANH}, so nothing was saved; keep the old folder.")
    if hooks:
        sae = copy.copy(sae)
        several = len(sae.reads) > 1
        sae.set_hooks(hooks if several else hooks[0], None if several else hooks[1:] or None)
    tensors = {name: getattr(sae, name).detach() for name in TENSORS if getattr(sae, name) is not None}
    _check_shapes("the SAE", architecture_of(sae), tensors, sae.d_in, sae.d_sae, sae.d_out)
    kept = {name: (x.to(dtype) if dtype else stored(x)).cpu().contiguous() for name, x in tensors.items()}
    for name, tensor in kept.items():
        held = torch.equal(tensor.isfinite(), tensors[name].isfinite().cpu())  # a threshold of inf was one before
        if not held or not bool(_sound(name, tensor).all()):
            raise InterpError(
                f"{name} has values that {str(tensor.dtype).partition('.')[2]} cannot hold, so nothing was saved."
            )
    with places.whole_file(into / WEIGHTS) as partial:
        save_file(kept, partial)
        digest = places.sha256_file(partial)
    places.write_json(into / "cfg.json", _cfg(sae, card, model))
    return digest


def _sound(name: str, tensor: Tensor) -> Tensor:
    """True where a value may stand: finite, but for thresholds of +inf, which say that a feature never fires."""
    return tensor.isfinite() | (tensor == torch.inf) if name == "threshold" else tensor.isfinite()


def check_weights(cfg: Path, weights: Path) -> None:
    """Raises InterpError when weights must not leave this machine: a NaN or infinity, a tensor missing or misshapen.

    Which tensors there must be, and their shapes, is told for the kinds of `KINDS`; of others only that all is finite.
    """
    said = places.read_json(cfg)
    said = saelens.current(said) if isinstance(said, dict) else {}
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{weights} cannot be read: {error}.") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(_sound(name, tensor).all()):
            raise InterpError(f"{weights}: {name} holds a NaN or an infinity; train or convert it again.")
    kind = said.get("architecture")
    if isinstance(kind, str) and kind in KINDS:
        d_in = said.get("d_in")
        _check_shapes(str(weights), kind, tensors, d_in, said.get("d_sae"), said.get("d_out", d_in))


def _check_shapes(where: str, kind: str, tensors: Mapping[str, Tensor], d_in: Any, d_sae: Any, d_out: Any) -> None:
    """Raises InterpError when a tensor that this kind needs is not there or not of the shape that it must have."""
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,), "W_skip": (d_out, d_in)}
    shapes |= {"topk_threshold": ()}
    for name in KINDS[kind]:
        if name not in tensors:
            raise InterpError(f"{where} has no tensor {name}, which a {kind} SAE needs; it is not whole.")
        wanted, found = shapes.get(name, (d_sae,)), tuple(tensors[name].shape)
        if found != wanted:
            raise InterpError(f"{where}: {name} has shape {found}, where {wanted} is needed.")


def stored(x: Tensor) -> Tensor:
    """A tensor as it is kept: float16, or float32 where float16 loses more than rounding does (it holds 6e-5 to 65,504
    well, and raw activations may be larger or smaller)."""
    half, whole = x.half(), x.float()
    return half if float((half.float() - whole).norm()) <= 2**-10 * float(whole.norm()) else whole


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


def load(folder: str | Path, device: str = "cpu", *, check: bool = True, scale: float | None = None) -> SAE:
    """The SAE in a folder of SAELens 6's format, with or without our card, or in another library's that is known.

    Raises InterpError, saying what is wrong, for a folder that is missing, incomplete or of another kind, when it has
    settings that are not known here, and when the weights are not the ones the card names (unless `check` is false: for
    who compares them himself). `scale` is what training multiplied activations by, for a folder that says they are
    normalised: it is folded in.
    """
    path = Path(folder)
    if not saelens.detect(path):
        found = _of_another_library(path, scale)
        if found is not None:
            return found.to(device)
    sae, _, unknown = opened(path, device, check=check, scale=scale)
    _refuse_unknown(path, unknown)
    return sae


def _of_another_library(path: Path, scale: float | None) -> SAE | None:
    """What `formats.read` reads there; None where it is of no format that is known."""
    from interp.checkpoint.formats import format_of, read

    if not path.exists() or not format_of(path):
        return None
    foreign = read(path, scale=scale)[1]
    _refuse_unknown(path, foreign.unknown)
    return foreign.sae


def _refuse_unknown(path: Path, unknown: Sequence[str]) -> None:
    if unknown:
        raise InterpError(
            f"{path} has settings that this version does not know ({', '.join(unknown[:4])}), and which may change numbers; "
            "`interp convert` writes it without them, and lists them."
        )


def opened(
    path: Path, device: str = "cpu", *, check: bool = True, scale: float | None = None
) -> tuple[SAE, dict[str, Any], list[str]]:
    """(SAE, its configuration in today's form, what it sets that is not known here) of a folder of SAELens' format."""
    if not path.is_dir():
        raise InterpError(f"there is no folder {path}; give the folder that holds cfg.json and {WEIGHTS}.")
    for name in ("cfg.json", WEIGHTS):
        if not (path / name).exists():
            raise InterpError(f"{path} is not a checkpoint: it has no {name}.")
    raw = places.read_json(path / "cfg.json")
    cfg = saelens.current(raw) if isinstance(raw, dict) else {}
    kind = cfg.get("architecture")
    if not isinstance(kind, str) or kind not in KINDS:
        why = f" ({saelens.OTHERS[kind]})" if isinstance(kind, str) and kind in saelens.OTHERS else ""
        raise InterpError(f"{path} holds an SAE of architecture {kind!r}{why}; this version reads {', '.join(KINDS)}.")
    unknown = saelens.SETTINGS.check(path / "cfg.json", cfg)
    if "topk" not in kind:
        idle = [key for key in ("k", "rescale_acts_by_decoder_norm") if cfg.get(key)]
        unknown += [f"{key} = {cfg[key]!r} of a {kind}" for key in idle]
    card = Card.read(path) if (path / "card.json").exists() else None
    if card is not None and check:
        verify_files(path)
    try:
        tensors = load_file(path / WEIGHTS, device=device)
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{path / WEIGHTS} cannot be read: {error}.") from None
    tensors = _whole(path, kind, tensors)
    said = (cfg.get("d_in"), cfg.get("d_sae")), (cfg.get("d_sae"), cfg.get("d_out", cfg.get("d_in")))
    found = tuple(tensors["W_enc"].shape), tuple(tensors["W_dec"].shape)
    if said != found:
        raise InterpError(f"{path}: cfg.json says W_enc is {said[0]} and W_dec {said[1]}, the weights are {found}.")
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    floats = saelens.for_raw_inputs(path, cfg, saelens.fold_finetuning(path, cfg, floats), scale)
    return _opened(path, kind, cfg, floats, card), cfg, unknown


def _whole(path: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, of which none that the kind needs is missing and none is there that it does not have."""
    if "threshold" in KINDS[kind] and "threshold" not in tensors and "log_threshold" in tensors:
        tensors = tensors | {"threshold": tensors["log_threshold"].exp()}
        tensors.pop("log_threshold")
    missing = [name for name in KINDS[kind] if name not in tensors]
    if missing:
        raise InterpError(f"{path / WEIGHTS} has no tensor {', '.join(missing)}; it is not whole.")
    whole_tensors(path / WEIGHTS, tensors, (*KINDS[kind], "scaling_factor", "finetuning_scaling_factor"))
    return tensors


def _opened(path: Path, kind: str, cfg: dict[str, Any], floats: dict[str, Tensor], card: Card | None) -> SAE:
    """The SAE of a configuration and tensors whose matrices have its sizes."""
    k = integer(path / "cfg.json", cfg, "k") if kind.startswith("topk") else None
    if saelens.rescales(cfg) and cfg.get("normalize_activations") != "covariance_whitening":
        floats = saelens.fold_norms(floats)
    weights = _weights(path, kind, floats)
    widths = cfg.get("widths") or ()
    if not isinstance(widths, list | tuple) or not all(isinstance(width, int) for width in widths):
        raise InterpError(f"{path}/cfg.json gives widths the value {widths!r}, where a list of numbers is needed.")
    name, hook = (card.name, card.hook_name) if card else (path.name, saelens.place_of(cfg, "hook_name"))
    out = saelens.place_of(cfg, "hook_name_out")
    centred = cfg.get("apply_b_dec_to_input", "transcoder" not in kind)
    if not isinstance(centred, bool) or (centred and "transcoder" in kind):
        raise InterpError(
            f"{path}/cfg.json gives apply_b_dec_to_input the value {centred!r}, which is none for a {kind}."
        )
    reads = with_widths(parse_hooks(hook), widths) if widths else (Hook(hook),)
    squashes = cfg.get("activation_fn") == saelens.TANH
    return make(path, weights, k=k, centred=centred, name=name, reads=reads, writes=_written(out), tanh=squashes)


def _written(name: str) -> tuple[Hook, ...] | None:
    """The hook point of a transcoder's output; None where the file names none."""
    return (Hook(name),) if name else None


def _weights(path: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a kind as `SAE` takes them: ReLU is a threshold of 0, a gate another threshold."""
    kept = {name: tensors[name] for name in KINDS[kind] if name != "topk_threshold"}
    if kind in ("standard", "transcoder", "skip_transcoder"):
        return kept | {"threshold": torch.zeros_like(kept["b_enc"])}
    if "topk_threshold" in tensors:
        if tensors["topk_threshold"].numel() != 1:
            raise InterpError(
                f"{path / WEIGHTS} has a topk_threshold of shape {tuple(tensors['topk_threshold'].shape)}."
            )
        return kept | {"threshold": tensors["topk_threshold"].expand(kept["b_enc"].shape).clone()}
    return gated(path, kept) if kind == "gated" else kept


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
