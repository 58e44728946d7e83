"""What a checkpoint claims, claim by claim: made anew here, only hashed, or not checked at all."""

import json
from collections.abc import Sequence
from pathlib import Path

from interp.checkpoint import Card
from interp.checkpoint.files import EVIDENCE, LABELS, REPORT, present
from interp.render.words import counted
from interp.verification.verdict import Check, Claim, Status

LONGEST = 60


def claims(folder: Path, card: Card, checks: Sequence[Check]) -> list[Claim]:
    """Every claim of the card, and of what lies beside it, with the check that stands behind it."""
    made: list[Claim] = []
    hashed = _verdict(checks, "file card.json") == "holds"

    def add(what: str, said: object, *by: str) -> None:
        made.append(_claim(what, said, [check for check in checks if _is(check, by)], hashed))

    numbers = ("numbers on the probe", "numbers of the index", "fit", "cause")
    add("model", f"{card.model}, weights {card.model_sha256[:12]}…", "model")
    add("hook point", f"{card.hook_name} {card.hook_name_out}".strip(), "hook point", *numbers)
    add("separator", card.separator, "separator")
    add("norm_cutoff", f"{card.norm_cutoff:.6g}", "norm_cutoff")
    add("dtype", card.dtype, "dtype")
    add("attention", card.attention, "attention")
    add("sizes and kind", card.architecture, "sizes")
    for key, value in card.metrics.items() if any(isinstance(v, dict) for v in card.metrics.values()) else ():
        if isinstance(value, dict):
            add(f"metrics, {key}", _figures(value), f"metrics {key}")
    if any(isinstance(value, int | float) for value in card.metrics.values()):
        add("metrics", _figures(card.metrics), "metrics")
    add("text of training", card.corpus.get("name", "not said"))
    add("recipe", card.recipe.get("script", "not said") if card.recipe else "not said")
    add("versions", ", ".join(f"{k} {v}" for k, v in card.versions.items()) or "not said")
    for what, text in card.licences.items():
        add(f"licence, {what}", text)
    return made + _beside(folder, checks)


def _beside(folder: Path, checks: Sequence[Check]) -> list[Claim]:
    """What the files beside the card claim."""
    files, _ = present(folder)
    made = []

    def add(what: str, said: str, file: str, *by: str) -> None:
        hashed = _verdict(checks, f"file {file}") == "holds"
        made.append(_claim(what, said, [check for check in checks if _is(check, by)], hashed))

    if "checks.json" in files:
        add("numbers on the probe", "as in checks.json", "checks.json", "numbers on the probe", "counted positions")
    if "index/index.json" in files:
        features = "index/features.parquet"
        add("index: activations", "drawn blocks", "index/activations.parquet", "numbers of the index")
        add("index: counts", "one against another", features, "index counts")
        add("index: tokens", "as documents were hashed", "index/tokens.parquet", "tokens of the index")
        add("index: neighbours", "of all features", features, "nearest features")
        add("index: logits", "of all features", features, "logits of features")
        add("index: neurons", "of all features", "index/neurons.parquet", "aligned neurons")
        add("index: statistics", "quantiles, tokens, companions", features, "numbers of the index: all")
        add("index: titles", "of its documents", "index/documents.parquet")
    if "index/pictures.parquet" in files:
        add("index: pictures", "small copies of those that examples are from", "index/pictures.parquet")
    if "index/meanings.safetensors" in files:
        add("index: meanings", "of descriptions", "index/meanings.safetensors", "meanings of features")
    if "lenses.safetensors" in files:
        add("lenses", "what features are disposed to say", "lenses.safetensors")
    if "map.safetensors" in files:
        add("map", "where features stand in a picture", "map.safetensors")
    if LABELS in files:
        count = sum(
            bool(line.strip()) for line in files[LABELS].read_text(encoding="utf-8", errors="replace").splitlines()
        )
        add("labels", f"{counted(count, 'label')} beside it", LABELS)
    if "label_meanings.safetensors" in files:
        add("labels: meanings", "sentence vectors of their names", "label_meanings.safetensors")
    if EVIDENCE in files:
        looked = [check for check in checks if check.what == "evidence"]
        wrong = [check.what for check in looked if check.verdict == "differs"]
        add("evidence", looked[0].found if looked else "of its features", EVIDENCE, *wrong)
    if REPORT[0] in files:
        looked = [check for check in checks if check.what == "report"]
        wrong = [check.what for check in looked if check.verdict == "differs"]
        add("report", looked[0].found if looked else "of the SAE", REPORT[0], *wrong)
    for name in files:
        if name in REPORT[1:]:
            add(name, "the report, for people", name)
        if name == "README.md" or name.startswith("presets") or name == "training_log.jsonl":
            add(name, "", name)
    return made


def _claim(what: str, said: object, by: list[Check], hashed: bool) -> Claim:
    text = " ".join(str(said).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    how = next((c.what for c in by if c.verdict == "differs"), "") or next(
        (c.what for c in by if c.verdict == "holds"), ""
    )
    status: Status = "only hashed" if hashed else "not checked"
    if any(check.verdict == "differs" for check in by):
        status = "differs"
    elif any(check.verdict == "holds" for check in by):
        status = "recomputed"
    return Claim(what=what, said=text, status=status, how=how)


def _is(check: Check, names: Sequence[str]) -> bool:
    """Whether a check is one of the names, or a part of one (`numbers on the probe: l0`)."""
    return any(
        check.what == name or (check.what.startswith(f"{name}: ") and not name.endswith("index")) for name in names
    )


def _verdict(checks: Sequence[Check], what: str) -> str:
    return next((check.verdict for check in checks if check.what == what), "")


def _figures(found: dict[str, object]) -> str:
    kept = {key: found[key] for key in ("fvu", "l0", "delta_ce") if isinstance(found.get(key), int | float)}
    return json.dumps({key: float(f"{value:.4g}") for key, value in kept.items()})[1:-1].replace('"', "")
