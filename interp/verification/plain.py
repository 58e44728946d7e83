"""As much as can be checked of a SAELens folder that has no card: does the SAE explain what its file says it reads?"""

import time
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import load
from interp.checkpoint.files import pin, present
from interp.mask import Mask, norm_cutoff
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.diagnose import Trial, diagnose_fit, explained
from interp.verification.files import check_files, check_pin
from interp.verification.measure import activations
from interp.verification.numbers import FEWEST
from interp.verification.probe import probe_blocks
from interp.verification.verdict import Check, Verification, differs, holds, unchecked


def verify_plain(
    folder: Path, *, model: str = "", hook_name: str = "", device: str = "auto", expect: str = ""
) -> Verification:
    """The checks of a folder without a card; what cannot be told is in the answer. Raises InterpError when it does not open."""
    began = time.perf_counter()
    own = pin(present(folder)[0])
    checks = [check_pin(own, expect)] if expect else []
    sae = load(folder)
    checks += check_files(folder)
    meta = places.read_json(folder / "cfg.json")
    meta = meta.get("metadata") if isinstance(meta.get("metadata"), dict) else meta
    name, hook = model or str(meta.get("model_name") or ""), hook_name or sae.hook_name
    checks.append(unchecked("provenance", "there is no card: neither model weights nor any number can be compared"))
    dtype = ""
    try:
        if not name or not hook:
            raise InterpError("cfg.json names no model or hook point; give --model and --hook.")
        opened = open_model(name, dtype="float32", device=device)
        opened.check_hook(hook)
        dtype = opened.dtype_name
        checks += _numbers(sae.to(opened.device), opened, hook, meta)
    except InterpError as error:
        checks.append(unchecked("numbers", str(error)))
    return Verification(name=folder.name, checks=checks, pin=own, dtype=dtype, seconds=time.perf_counter() - began)


def _numbers(sae: SAE, model: Model, hook: str, meta: dict[str, Any]) -> list[Check]:
    if model.shapes().get(hook) != (sae.d_in,):
        return [differs("hook point", f"{hook} has shape {model.shapes().get(hook)}, and the SAE reads {sae.d_in}")]
    if sae.hook_name_out or sae.d_in != sae.d_out:
        return [unchecked("numbers", "a transcoder without a card: what it writes is not known well enough")]
    tokens = probe_blocks(model, min(256, model.n_ctx))
    x = activations(model, [hook], tokens)[hook]
    mask = Mask({hook: norm_cutoff(x.norm(dim=-1))})
    trial = Trial(model=model, sae=sae, hook_name=hook, tokens_NT=tokens, separator=model.separator, mask=mask)
    count = int(trial.counted(x).sum())
    if count < FEWEST:
        few = f"{count or 'no'} positions of the probe count at {hook}, too few to tell what the SAE explains there"
        return [unchecked("numbers", few)]
    fvu, l0 = explained(trial, x)
    told = f"EV {1 - fvu:.3f} and L0 {l0:.1f} at {hook} of {model.name} on the probe text"
    checks = []
    if meta.get("l0"):
        said = float(meta["l0"])
        near = abs(l0 - said) / max(said, 1) < 0.5
        checks.append((holds if near else differs)("l0", f"{l0:.1f} here, {said:.1f} in cfg.json"))
    if meta.get("prepend_bos"):
        checks.append(unchecked("BOS", f"cfg.json asks for a BOS in front; the probe has {model.separator} there"))
    cause = diagnose_fit(trial, fvu)
    if cause:
        return [*checks, differs("fit", f"{told}; {cause}")]
    if not fvu < 1:
        return [*checks, unchecked("fit", f"{told}: it explains nothing there, and no usual cause was found; another model "
            "or SAE, or a text unlike the one it was trained on")]  # fmt: skip
    return [*checks, holds("numbers: fit", told)]
