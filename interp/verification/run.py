"""Verify a checkpoint: files, then activations, L0, explained variance, counts and index rows computed anew.

Numbers are made in the card's dtype and attention where this machine has them, else in float32, and held against
checks.json: what the same probe gave when the checkpoint was sealed, with tolerances measured then (twice the distance
to batches of another shape, and to the other dtype, plus FLOOR). A checkpoint that was never sealed is held against
the examples of its index, within LOOSE.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from interp import places
from interp.checkpoint import Card, load
from interp.checkpoint.card import versions
from interp.checkpoint.files import hashes
from interp.device import native_bfloat16, resolve_device
from interp.index import FeatureIndex
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.diagnose import Scene, diagnose, diagnose_fit, explained
from interp.verification.files import Check, Verdict, check_files
from interp.verification.measure import Measured, activations, apart, histogram_distance, measure, misses
from interp.verification.probe import VERSION, probe_blocks

FORMAT = 1
CHECKS = "checks.json"
FLOOR = {"codes": 0.01, "values": 0.02, "l0": 0.05, "ev": 0.002, "histogram": 0.005}
LOOSE = {"codes": 0.08, "values": 0.25}
"""For a checkpoint without checks.json: what float32 and bfloat16 models differ by, about twice over."""
EXAMPLES = 24
"""Features whose pinned examples are run again, each in a block of its own."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what came of it."""

    name: str
    checks: list[Check]
    dtype: str = ""
    """Of the model that recomputed; empty when none did."""
    seconds: float = 0.0

    @property
    def differs(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == "differs"]

    @property
    def verdict(self) -> str:
        """`differs`, `verified` (numbers were computed anew), or `files only`."""
        if self.differs:
            return "differs"
        return (
            "verified"
            if any(c.what.startswith("numbers") and c.verdict == "holds" for c in self.checks)
            else "files only"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


def verify(folder: Path, *, model: str = "", device: str = "auto", numbers: bool = True) -> Verification:
    """Everything that can be checked of a checkpoint with a card; `model` opens another than the card names.

    Raises InterpError when the folder is no checkpoint or cannot be read; what differs is in the answer.
    """
    began = time.perf_counter()
    card = Card.read(folder)
    checks, dtype = check_files(folder), ""
    if numbers:
        made, dtype = _made_anew(folder, card, model, device)
        checks += made
    return Verification(name=card.name, checks=checks, dtype=dtype, seconds=time.perf_counter() - began)


def _made_anew(folder: Path, card: Card, model: str, device: str) -> tuple[list[Check], str]:
    """(checks of numbers, dtype they were computed in); a sentence in their place where weights or model do not open."""
    try:
        sae = load(folder, check=False)
    except InterpError as error:
        return [_differs("weights", str(error))], ""
    try:
        opened = _open(card, model, device)
    except InterpError as error:
        return [_unchecked("numbers", f"the model cannot be opened: {error}")], ""
    return _numbers(folder, card, sae.to(opened.device), opened), opened.dtype_name


def _open(card: Card, model: str, device: str, dtype: str | None = None) -> Model:
    native = native_bfloat16(resolve_device(device))
    wanted = dtype or ("float32" if card.dtype == "bfloat16" and not native else card.dtype)
    return open_model(model or card.model, dtype=wanted, device=device, attention=card.attention)


def _numbers(folder: Path, card: Card, sae: SAE, model: Model) -> list[Check]:
    checks = list(_identity(folder, card, model))
    if sae.widths:
        return [*checks, _unchecked("numbers", "a crosscoder reads several hook points; only its files were checked")]
    if card.hook_name not in model.hook_points or (card.hook_name_out or card.hook_name) not in model.hook_points:
        return [
            *checks,
            _differs("hook point", f"{model.name} has no hook point {card.hook_name} {card.hook_name_out}"),
        ]
    width = model.shapes().get(card.hook_name)
    if width != (sae.d_in,):
        return [*checks, _differs("hook point", f"{card.hook_name} has shape {width}, and the SAE reads {sae.d_in}")]
    stored = _read_checks(folder)
    if stored:
        checks += _against_probe(card, sae, model, stored)
    else:
        checks.append(_unchecked("probe", f"there is no {CHECKS}; `interp verify --write` by its maker adds it"))
        checks.append(_fit(card, sae, model))
    try:
        index = FeatureIndex.open(folder / "index")
    except InterpError as error:
        checks.append(_unchecked("index", str(error)))
        return checks
    try:
        checks += _against_index(card, sae, model, index, stored.get("tolerances", {}) if stored else {})
    except Exception as error:  # a broken Parquet file is answered with whatever its reader stumbles on
        first = (str(error).splitlines() or [""])[0]
        checks.append(_differs("index", f"it cannot be read: {type(error).__name__}: {first[:200]}"))
    return checks


def _identity(folder: Path, card: Card, model: Model) -> Iterator[Check]:
    """Model weights, separator, tokenizer: what can be told before anything is computed."""
    here = model.fingerprint_like(card.model_sha256)
    if here == card.model_sha256:
        yield Check(what="model", verdict="holds", found=f"weights {here[:12]}…")
    else:
        yield _differs(
            "model", f"other weights: the card says {card.model_sha256[:12]}…, {model.name} has {here[:12]}…"
        )
    if model.separator != card.separator:
        yield _differs("separator", f"the card says {card.separator}, and {model.name} puts {model.separator} in front")
    try:
        shipped = FeatureIndex.open(folder / "index").vocabulary
    except Exception:  # an index that is missing or broken is told of where it is compared
        return
    wrong = sum(a != b for a, b in zip(shipped, model.vocabulary, strict=False))
    if wrong:
        yield _differs(
            "tokenizer", f"another tokenizer: {wrong:,} of {len(shipped):,} tokens read otherwise in the index"
        )
    else:
        yield Check(what="tokenizer", verdict="holds", found=f"{len(shipped):,} tokens read as in the index")


# ---- against checks.json ----


def _read_checks(folder: Path) -> dict[str, Any] | None:
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


def _against_probe(card: Card, sae: SAE, model: Model, stored: dict[str, Any]) -> list[Check]:
    checks: list[Check] = []
    tokens = stored["tokens"]
    if stored.get("probe") == VERSION:
        cut = probe_blocks(model, tokens.shape[1])
        same = cut.shape == tokens.shape and bool((cut == tokens).all())
        found = (
            "the probe text is cut as when stored"
            if same
            else "another tokenizer or separator: the probe text is cut otherwise"
        )
        checks.append(Check(what="tokenizer on the probe", verdict="holds" if same else "differs", found=found))
    if int(tokens.max()) >= model.embedded_tokens:
        return [*checks, _differs("tokenizer", "the probe's tokens are beyond this model's vocabulary")]
    if any(not 0 <= f < sae.d_sae or not 0 <= p < tokens.numel() for p, f, _ in stored["sample"]):
        return [*checks, _differs("numbers on the probe", "other weights: stored features are beyond this SAE's")]
    now = _measured(card, sae, model, tokens)
    lost, error = misses(sae, now.x_NTD, stored["sample"])
    far = {
        "codes": lost,
        "values": error,
        "l0": abs(now.l0 - stored["l0"]),
        "ev": abs(now.ev - stored["ev"]),
        "histogram": histogram_distance(now.histogram(), stored["histogram"]),
    }
    kind = "same" if model.dtype_name == stored.get("dtype") else "other"
    said = {
        "codes": f"{lost:.1%} of {len(stored['sample'])} stored activations are silent now",
        "values": f"95 % of activations within {error:.2%}",
        "l0": f"L0 {now.l0:.2f}, stored {stored['l0']:.2f}",
        "ev": f"EV {now.ev:.4f}, stored {stored['ev']:.4f}",
        "histogram": f"{far['histogram']:.2%} of activations in other bins",
    }
    bad = [name for name in far if not far[name] <= stored["tolerances"][kind][name]]
    if bad and kind == "same" and all(far[name] <= stored["tolerances"]["other"][name] for name in far):
        checks.append(_differs("dtype", _dtype(card, sae, stored, model)))
        bad = []
    for name in far:
        limit = stored["tolerances"][kind][name]
        verdict: Verdict = "differs" if name in bad else "holds"
        found = f"{said[name]} (tolerance {limit:.3g}, {model.dtype_name} against {stored.get('dtype')})"
        checks.append(Check(what=f"numbers on the probe: {name}", verdict=verdict, found=found))
    if bad:
        scene = _scene(card, sae, model, tokens)
        checks.append(_differs("cause", diagnose(scene, stored["sample"])))
    return checks


def _dtype(card: Card, sae: SAE, stored: dict[str, Any], model: Model) -> str:
    """Numbers lie as far off as another dtype's would: whose are they?"""
    other = "float32" if model.dtype_name != "float32" else "bfloat16"
    try:
        opened = _open(card, model.source, str(model.device), other)
    except InterpError:
        return f"the numbers lie as far from {model.dtype_name} as another dtype's would"
    now = _measured(card, sae, opened, stored["tokens"])
    lost, error = misses(sae, now.x_NTD, stored["sample"])
    limits = stored["tolerances"]["same"]
    if lost <= limits["codes"] and error <= limits["values"]:
        return f"another dtype: the stored numbers are those of {other}, and the file says {stored.get('dtype')}"
    return f"the numbers lie as far from {model.dtype_name} as another dtype's would (another processor's, perhaps)"


def _measured(card: Card, sae: SAE, model: Model, tokens: torch.Tensor, at_once: int = 4) -> Measured:
    hooks = list(dict.fromkeys([card.hook_name, card.hook_name_out or card.hook_name]))
    seen = activations(model, hooks, tokens, at_once)
    y = seen[card.hook_name_out] if card.hook_name_out else None
    limits: dict[str, Any] = {"separator": card.separator, "norm_cutoff": card.norm_cutoff}
    return measure(sae, tokens, seen[card.hook_name], y_NTO=y, **limits)


def _scene(card: Card, sae: SAE, model: Model, tokens: torch.Tensor) -> Scene:
    return Scene(
        model=model,
        sae=sae,
        hook_name=card.hook_name,
        tokens_NT=tokens,
        separator=card.separator,
        norm_cutoff=card.norm_cutoff,
    )


def _fit(card: Card, sae: SAE, model: Model) -> Check:
    """Where nothing is stored: does the SAE explain what it reads, and nothing else better?"""
    tokens = probe_blocks(model, min(card.context, model.n_ctx))
    now = _measured(card, sae, model, tokens)
    found = f"EV {now.ev:.3f} and L0 {now.l0:.1f} on the probe text"
    cause = "" if card.hook_name_out else diagnose_fit(_scene(card, sae, model, tokens), 1 - now.ev)
    if cause:
        return _differs("fit", f"{found}; {cause}")
    if not now.ev > 0:
        return _differs("fit", f"{found}: it explains nothing of {card.hook_name}, and no usual cause was found")
    return Check(what="fit", verdict="holds", found=found)


# ---- against the index ----


def _against_index(card: Card, sae: SAE, model: Model, index: FeatureIndex, tolerances: dict[str, Any]) -> list[Check]:
    """The pinned examples, run again in their blocks; and whether counts add up."""
    if index.meta.get("sae_sha256") != card.sae_sha256:
        return [_differs("index", "it was made for other SAE weights than the card names")]
    features = index.features
    total = sum(int(sum(row)) for row in features["histogram"])
    checks = [
        Check(what="index counts", verdict="holds", found=f"{total:,} activations in the histograms, as many as fires")
        if total == int(features["fires"].sum())
        else _differs(
            "index counts", f"the histograms hold {total:,} activations, the counts {features['fires'].sum():,}"
        )
    ]
    tokens, rows = _pinned(index)
    if not rows:
        return [*checks, _unchecked("numbers of the index", "no feature fires in it")]
    x = activations(model, [card.hook_name], tokens)[card.hook_name]
    lost, error = misses(sae, x, rows)
    limits = tolerances.get("same" if model.dtype_name == card.dtype else "other") or LOOSE
    # Values are float16 in the index, and float32 statistics of another batch: never tighter than LOOSE's half.
    codes, values = (max(limits[name], LOOSE[name] / 2) for name in ("codes", "values"))
    said = f"{len(rows):,} rows around {len(tokens)} pinned examples: {lost:.1%} silent now, 95 % within {error:.2%}"
    if lost <= codes and error <= values:
        return [*checks, Check(what="numbers of the index", verdict="holds", found=said)]
    checks.append(_differs("numbers of the index", f"{said} (tolerances {codes:.1%}, {values:.1%})"))
    return [*checks, _differs("cause", diagnose(_scene(card, sae, model, tokens), rows))]


def _pinned(index: FeatureIndex) -> tuple[torch.Tensor, list[tuple[int, int, float]]]:
    """Blocks of one example each of features spread over the index, with every stored activation in those blocks."""
    alive = [int(f) for f in index.features["fires"].to_numpy().nonzero()[0]]
    starts: dict[int, None] = {}
    for number, feature in enumerate(alive[:: max(len(alive) // EXAMPLES, 1)][:EXAMPLES]):
        examples = index.examples(feature)
        if examples:
            position = examples[number * 7 % len(examples)].position
            starts[position // index.block * index.block] = None
    if not starts:
        return torch.zeros(0, 1), []
    place = {start: i for i, start in enumerate(starts)}
    here = " OR ".join(f"position BETWEEN {start} AND {start + index.block - 1}" for start in starts)
    found = index.sql(f"SELECT feature, position, value FROM {{activations}} WHERE {here}")
    blocks = [torch.from_numpy(index.tokens[start : start + index.block].astype("int64")) for start in starts]
    return torch.stack(blocks), [
        (place[int(p) // index.block * index.block] * index.block + int(p) % index.block, int(f), float(v))
        for f, p, v in zip(found["feature"], found["position"], found["value"], strict=True)
    ]


# ---- sealing ----


def seal(folder: Path, *, device: str = "auto") -> Card:
    """Write checks.json (numbers on the probe, with their tolerances) and every file's hash into the card.

    For whoever made the checkpoint, on the model it was made for: InterpError when another one answers to its name.
    A crosscoder gets its files' hashes only.
    """
    card, sae = Card.read(folder), load(folder)
    if not sae.widths:
        model = _open(card, "", device)
        if model.fingerprint_like(card.model_sha256) != card.model_sha256:
            raise InterpError(f"{card.name} was not sealed: {card.model} has other weights here than its card names.")
        places.write_json(folder / CHECKS, _checks(card, sae.to(model.device), model, device))
    sealed = replace(card, files=hashes(folder))
    sealed.write(folder)
    return sealed


def _checks(card: Card, sae: SAE, model: Model, device: str) -> dict[str, Any]:
    tokens = probe_blocks(model, min(card.context, model.n_ctx))
    now = _measured(card, sae, model, tokens)
    other = _open(card, model.source, device, "float32" if model.dtype_name != "float32" else "bfloat16")
    far = {
        "same": apart(now, _measured(card, sae, model, tokens, at_once=1)),
        "other": apart(now, _measured(card, sae, other, tokens)),
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


# ---- folders without a card ----


def verify_plain(folder: Path, *, model: str = "", hook_name: str = "", device: str = "auto") -> Verification:
    """As much as can be checked of a SAELens folder that has no card: does the SAE explain what its file says it reads?"""
    began = time.perf_counter()
    sae = load(folder)
    checks = check_files(folder)
    meta = places.read_json(folder / "cfg.json")
    meta = meta.get("metadata") if isinstance(meta.get("metadata"), dict) else meta
    name, hook = model or str(meta.get("model_name") or ""), hook_name or sae.hook_name
    checks.append(_unchecked("provenance", "there is no card: neither model weights nor any number can be compared"))
    dtype = ""
    try:
        if not name or not hook:
            raise InterpError("cfg.json names no model or hook point; give --model and --hook.")
        opened = open_model(name, dtype="float32", device=device)
        opened.check_hook(hook)
        dtype = opened.dtype_name
        checks += _plain_numbers(sae.to(opened.device), opened, hook, meta)
    except InterpError as error:
        checks.append(_unchecked("numbers", str(error)))
    return Verification(name=folder.name, checks=checks, dtype=dtype, seconds=time.perf_counter() - began)


def _plain_numbers(sae: SAE, model: Model, hook: str, meta: dict[str, Any]) -> list[Check]:
    if model.shapes().get(hook) != (sae.d_in,):
        return [_differs("hook point", f"{hook} has shape {model.shapes().get(hook)}, and the SAE reads {sae.d_in}")]
    if sae.hook_name_out or sae.d_in != sae.d_out:
        return [_unchecked("numbers", "a transcoder without a card: what it writes is not known well enough")]
    tokens = probe_blocks(model, min(256, model.n_ctx))
    x = activations(model, [hook], tokens)[hook]
    cutoff = 6 * float(x.norm(dim=-1).median())
    scene = Scene(model=model, sae=sae, hook_name=hook, tokens_NT=tokens, separator=model.separator, norm_cutoff=cutoff)
    fvu, l0 = explained(scene, x)
    found = f"EV {1 - fvu:.3f} and L0 {l0:.1f} at {hook} of {model.name} on the probe text"
    checks = []
    if meta.get("l0"):
        far = abs(l0 - float(meta["l0"])) / max(float(meta["l0"]), 1)
        verdict: Verdict = "holds" if far < 0.5 else "differs"
        checks.append(Check(what="l0", verdict=verdict, found=f"{l0:.1f} here, {float(meta['l0']):.1f} in cfg.json"))
    if meta.get("prepend_bos"):
        checks.append(_unchecked("BOS", f"cfg.json asks for a BOS in front; the probe has {model.separator} there"))
    cause = diagnose_fit(scene, fvu)
    if cause or fvu >= 1:
        return [*checks, _differs("fit", f"{found}; {cause or 'it explains nothing there'}")]
    return [*checks, Check(what="numbers: fit", verdict="holds", found=found)]


def _differs(what: str, found: str) -> Check:
    return Check(what=what, verdict="differs", found=found)


def _unchecked(what: str, found: str) -> Check:
    return Check(what=what, verdict="unchecked", found=found)
