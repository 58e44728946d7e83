"""What can be told of a checkpoint's model before its numbers are made: weights, separator, tokenizer, dtype, cut-off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from interp import places
from interp.checkpoint import Card
from interp.index import FeatureIndex
from interp.mask import norm_cutoff, own_tokens
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.verdict import Check, differs, holds, unchecked

OWN_TEXT, PROBE = 3.0, 4.0
"""How far a norm's cut-off may lie from six times the median: on text of the maker's choice, and on the probe, which may
be unlike the text of training."""


def check_identity(folder: Path, card: Card, model: Model) -> Iterator[Check]:
    """Model weights, separator, attention, tokenizer."""
    here = model.fingerprint_like(card.model_sha256)
    if here == card.model_sha256:
        yield holds("model", f"weights {here[:12]}…")
    else:
        yield differs("model", f"other weights: the card says {card.model_sha256[:12]}…, {model.name} has {here[:12]}…")
    if model.separator == card.separator:
        yield holds("separator", f"{model.separator}, which {model.name} puts in front")
    else:
        yield differs("separator", f"the card says {card.separator}, and {model.name} puts {model.separator} in front")
    if model.attention != card.attention:
        yield unchecked("attention", f"the card says {card.attention}, and {model.name} runs in {model.attention} here")
    try:
        shipped = FeatureIndex.open(folder / "index").vocabulary
    except Exception:  # an index that is missing or broken is told of where it is compared
        return
    wrong = sum(a != b for a, b in zip(shipped, model.vocabulary, strict=False))
    if wrong:
        yield differs(
            "tokenizer", f"another tokenizer: {wrong:,} of {len(shipped):,} tokens read otherwise in the index"
        )
    else:
        yield holds("tokenizer", f"{len(shipped):,} tokens read as in the index")


def check_shape(folder: Path, card: Card, sae: SAE) -> Check:
    """What the card says of sizes, kind and block length against cfg.json and the weights."""
    made: Any = card.recipe.get("architecture")
    said = made if isinstance(made, dict) else {}
    cfg = places.read_json(folder / "cfg.json")
    about = cfg.get("metadata")
    meta = about if isinstance(about, dict) else {}
    sizes = {"d_in": sae.d_in, "d_sae": sae.d_sae}
    wrong = [f"{key} {said[key]} and {value}" for key, value in sizes.items() if said.get(key) not in (None, value)]
    pairs = {
        "training_architecture": card.architecture,
        "model_name": card.model,
        "context_size": card.context,
        "sequence_separator_token": card.separator,
    }
    wrong += [f"{key} {value} and {meta[key]}" for key, value in pairs.items() if meta.get(key) not in (None, value)]
    if wrong:
        return differs("sizes", f"card.json and the files beside it disagree: {'; '.join(wrong)}")
    return holds(
        "sizes", f"{sae.d_sae:,} features of width {sae.d_in}, {card.architecture}, as the files beside it say"
    )


def check_cutoff(card: Card, tokens_NT: Tensor, x_NTD: Tensor, *, own_text: bool) -> Check:
    """The norm's cut-off against what a harvest sets: six times the median norm of real positions.

    The median is of another text than the harvest's, so only a factor shows: OWN_TEXT on the index's text. On the
    probe norms may be far larger than on the text of training, which is no one's fault: there only too high is wrong.
    """
    try:
        usual = norm_cutoff(x_NTD.norm(dim=-1), own_tokens(tokens_NT, card.separator))
    except InterpError:
        return unchecked("norm_cutoff", "there is no position to compare it on")
    text = "the index's text" if own_text else "the probe text"
    ratio = card.norm_cutoff / max(usual, 1e-30)
    most = OWN_TEXT if own_text else PROBE
    said = f"{card.norm_cutoff:.4g} is {ratio:.3g} times what a harvest of {text} would set"
    if ratio > most or (own_text and ratio < 1 / most):
        return differs("norm_cutoff", f"{said}: another cut-off, or another hook point")
    if ratio < 1 / most:
        return unchecked("norm_cutoff", f"{said}, which may be unlike the text of training")
    return holds("norm_cutoff", f"{said} (another text may move that by up to {most:.0f} times)")


def check_dtype(card: Card, model: Model, stored: dict[str, Any], numbers_hold: bool) -> Iterator[Check]:
    """The card's dtype and attention against checks.json, and whether the numbers tell dtypes apart."""
    then = stored.get("dtype")
    if then == "bfloat16" and card.dtype != "bfloat16":
        yield differs("dtype", f"the card says {card.dtype}, and checks.json was made in {then}")
    elif then == card.dtype == model.dtype_name and numbers_hold and _told_apart(stored):
        yield holds("dtype", f"the stored numbers are those of {then}, and another dtype's lie further off")
    else:
        yield unchecked("dtype", f"the card says {card.dtype}; the numbers do not tell it from another here")
    if stored.get("attention") not in (None, card.attention):
        yield differs("attention", f"the card says {card.attention}, and checks.json was made in {stored['attention']}")


def _told_apart(stored: dict[str, Any]) -> bool:
    try:
        other, limits = stored["apart"]["other"], stored["tolerances"]["same"]
        return any(float(other[name]) > float(limits[name]) for name in limits)
    except (KeyError, TypeError, ValueError):
        return False
