"""Numbers on the probe text against checks.json, which has what they were when the checkpoint was sealed."""

from pathlib import Path
from typing import Any

import torch

from interp import places
from interp.checkpoint import Card
from interp.device import native_bfloat16, resolve_device
from interp.mask import own_tokens
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.diagnose import Trial, diagnose, diagnose_fit
from interp.verification.identity import check_dtype
from interp.verification.measure import Numbers, activations, histogram_distance, measure, misses
from interp.verification.probe import VERSION, probe_blocks
from interp.verification.verdict import Check, differs, holds, unchecked

FORMAT = 1
CHECKS = "checks.json"
FLOOR = {"codes": 0.01, "values": 0.02, "l0": 0.05, "ev": 0.002, "histogram": 0.005}
FEWEST = 32
"""Positions that must count before a share of variance says anything."""
NUMBERS = "numbers on the probe"


def open_for(card: Card, model: str, device: str, dtype: str | None = None) -> Model:
    """The card's model (or another) in the dtype of its harvest; float32 for bfloat16 where that is not native."""
    native = native_bfloat16(resolve_device(device))
    wanted = dtype or ("float32" if card.dtype == "bfloat16" and not native else card.dtype)
    return open_model(model or card.model, dtype=wanted, device=device, attention=card.attention)


def measure_card(card: Card, sae: SAE, model: Model, tokens: torch.Tensor, at_once: int = 4) -> Numbers:
    """The numbers of a card's SAE on blocks of tokens, `at_once` of them in a pass."""
    hooks = list(dict.fromkeys([card.hook_name, card.hook_name_out or card.hook_name]))
    seen = activations(model, hooks, tokens, at_once)
    y = seen[card.hook_name_out] if card.hook_name_out else None
    counted = card.mask.counted(seen, own_tokens(tokens, card.separator))
    return measure(sae, tokens, seen[card.hook_name], counted, y)


def trial_of(card: Card, sae: SAE, model: Model, tokens: torch.Tensor) -> Trial:
    """What causes of a difference are tried on: these tokens, with the card's hook point and mask."""
    limits: dict[str, Any] = {"separator": card.separator, "mask": card.mask}
    return Trial(model=model, sae=sae, hook_name=card.hook_name, tokens_NT=tokens, **limits)


def read_checks(folder: Path) -> dict[str, Any] | None:
    """checks.json, unpacked; None when there is none. Raises InterpError when it is broken."""
    if not (folder / CHECKS).exists():
        return None
    raw = places.read_json(folder / CHECKS)
    try:
        if raw["format"] != FORMAT:
            raise InterpError(
                f"{folder / CHECKS} has format {raw['format']}, this version reads {FORMAT}; update interp."
            )
        tokens = torch.tensor([[int(token) for token in block.split()] for block in raw["tokens"]])
        sample = [(int(p), int(f), float(v)) for p, f, v in (row.split() for row in raw["sample"])]
        kept = {name: float(raw[name]) for name in ("l0", "ev")} | {"histogram": [int(n) for n in raw["histogram"]]}
        tolerances = {kind: {k: float(v) for k, v in raw["tolerances"][kind].items()} for kind in ("same", "other")}
        if min(token for block in tokens.tolist() for token in block) < 0 or any(
            FLOOR.keys() - t.keys() for t in tolerances.values()
        ):
            raise ValueError("a token or tolerance is missing")
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise InterpError(f"{folder / CHECKS} was not written by `interp verify --write`: {error}.") from None
    return {**raw, **kept, "tokens": tokens, "sample": sample, "tolerances": tolerances}


def check_probe(card: Card, sae: SAE, model: Model, stored: dict[str, Any]) -> list[Check]:
    """The stored numbers made anew, dtype and attention; where no position of the probe counted, none of them is checked."""
    checks: list[Check] = []
    tokens = stored["tokens"]
    if stored.get("probe") == VERSION:
        checks.append(_cut(model, tokens))
    if int(tokens.max()) >= model.embedded_tokens:
        return [*checks, differs("tokenizer", "the probe's tokens are beyond this model's vocabulary")]
    if any(not 0 <= f < sae.d_sae or not 0 <= p < tokens.numel() for p, f, _ in stored["sample"]):
        return [*checks, differs(NUMBERS, "other weights: stored features are beyond this SAE's")]
    now = measure_card(card, sae, model, tokens)
    then, here = int(stored.get("counted") or 0), int(now.counted_NT.sum())
    if not stored["sample"] or (not then and not here):
        checks.append(unchecked(NUMBERS, f"{then or 'no'} positions of the probe counted at {card.hook_name} when it was "
            "sealed, and nothing fired there: the probe says nothing of this SAE, for or against"))  # fmt: skip
        return [*checks, *check_dtype(card, model, stored, False)]
    if not here or abs(here - then) > max(0.01 * then, 1):
        checks.append(
            differs("counted positions", f"{here:,} of the probe's positions count now, and {then:,} did when it was sealed: "
            "another norm_cutoff, separator, hook point or model")
        )  # fmt: skip
    return [*checks, *_compared(card, sae, model, stored, now)]


def _cut(model: Model, tokens: torch.Tensor) -> Check:
    cut = probe_blocks(model, tokens.shape[1])
    if cut.shape == tokens.shape and bool((cut == tokens).all()):
        return holds("tokenizer on the probe", "the probe text is cut as when stored")
    return differs("tokenizer on the probe", "another tokenizer or separator: the probe text is cut otherwise")


def _compared(card: Card, sae: SAE, model: Model, stored: dict[str, Any], now: Numbers) -> list[Check]:
    checks: list[Check] = []
    lost, error = misses(sae, now.x_NTD, stored["sample"])
    far = {"codes": lost, "values": error}
    said = {
        "codes": f"{lost:.1%} of {len(stored['sample'])} stored activations are silent now",
        "values": f"95 % of activations within {error:.2%}",
    }
    if bool(now.counted_NT.any()):
        far |= {"l0": abs(now.l0 - stored["l0"]), "ev": abs(now.ev - stored["ev"])}
        far["histogram"] = histogram_distance(now.histogram(), stored["histogram"])
        said["l0"] = f"L0 {now.l0:.2f}, stored {stored['l0']:.2f}"
        said["ev"] = f"EV {now.ev:.4f}, stored {stored['ev']:.4f}"
        said["histogram"] = f"{far['histogram']:.2%} of activations in other bins"
    kind = stated = "same" if model.dtype_name == stored.get("dtype") else "other"
    bad = [name for name in far if not far[name] <= stored["tolerances"][kind][name]]
    numbers_hold = not bad and kind == "same"
    if bad and kind == "same" and all(far[name] <= stored["tolerances"]["other"][name] for name in far):
        if cause := _dtype(card, sae, stored, model):
            checks.append(differs("dtype", cause))
        else:
            kind = "other"
        bad = []
    for name in far:
        limit = stored["tolerances"][kind][name]
        against = stored.get("dtype") if kind == stated else f"{stored.get('dtype')} of another processor"
        told = f"{said[name]} (tolerance {limit:.3g}, {model.dtype_name} against {against})"
        checks.append((differs if name in bad else holds)(f"{NUMBERS}: {name}", told))
    if bad:
        checks.append(differs("cause", diagnose(trial_of(card, sae, model, stored["tokens"]), stored["sample"])))
    return [*checks, *check_dtype(card, model, stored, numbers_hold)]


def _dtype(card: Card, sae: SAE, stored: dict[str, Any], model: Model) -> str:
    """Whose numbers lie as far off as another dtype's would? "" where they can be this dtype's on another processor.

    Processors add up bfloat16 in orders of their own, and differ by as much as it does from float32 (blocks.25 of the
    shipped ones, on two Xeons); in float32 they agree far within the tolerance.
    """
    told = f"the numbers lie as far from {model.dtype_name} as another dtype's would"
    other = "float32" if model.dtype_name != "float32" else "bfloat16"
    try:
        opened = open_for(card, model.source, str(model.device), other)
    except InterpError:
        return told
    now = measure_card(card, sae, opened, stored["tokens"])
    lost, error = misses(sae, now.x_NTD, stored["sample"])
    limits = stored["tolerances"]["same"]
    if lost <= limits["codes"] and error <= limits["values"]:
        return f"another dtype: the stored numbers are those of {other}, and the file says {stored.get('dtype')}"
    return told if model.dtype_name == "float32" else ""


def check_fit(card: Card, sae: SAE, model: Model, tokens: torch.Tensor, *, own_text: bool) -> Check:
    """Where nothing is stored: does the SAE explain what it reads, and nothing else far better?

    Too few positions, and an SAE that explains nothing of a text that may be unlike its own, are no reason to say that
    it is not what it says, nor that it is: `unchecked`.
    """
    text = "the index's text" if own_text else "the probe text"
    now = measure_card(card, sae, model, tokens)
    count = int(now.counted_NT.sum())
    if count < FEWEST:
        return unchecked(
            "fit", f"{count or 'no'} positions of {text} count at {card.hook_name}, too few to tell what it explains"
        )
    told = f"EV {now.ev:.3f} and L0 {now.l0:.1f} on {count:,} positions of {text}"
    cause = "" if card.hook_name_out else diagnose_fit(trial_of(card, sae, model, tokens), 1 - now.ev)
    if cause:
        return differs("fit", f"{told}; {cause}")
    if not now.ev > 0:
        return unchecked("fit", f"{told}: it explains nothing of {card.hook_name} there, and no usual cause was found; "
            "another model or SAE, or a text unlike the one it was trained on (--metrics TEXT measures on that)")  # fmt: skip
    return holds("fit", told)
