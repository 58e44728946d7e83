"""Publishing in one step: all that belongs to a checkpoint, put into a folder of its own, and what was left out and why.

1  its files as they are                              5  metrics that `evaluate` found, into the card
2  the index, cut to its examples                     6  sealed: hashes, numbers on the probe
3  labels, shipped and own                            7  README.md
4  the evidence and the report that hold here         8  the pin, to be told apart from it
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import Card
from interp.checkpoint.files import EVIDENCE, LABELS, REPORT, hashes, pin, present
from interp.checkpoint.leaving import check_leaving, check_named
from interp.checkpoint.readme import describe
from interp.evals.report import read_report
from interp.index import FeatureIndex
from interp.index.cut import cut
from interp.index.pictures import NAME as PICTURES
from interp.labels import LabelBook
from interp.labels.book import read_jsonl
from interp.render.words import counted
from interp.types import InterpError
from interp.verification import seal

README = "README.md"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A folder that can be packed or pushed as it is."""

    folder: Path
    carries: list[str]
    left_out: list[str]
    """A phrase each: what, why, and how it would come along."""
    pin: str


def publish(
    folder: Path,
    into: Path,
    *,
    index: FeatureIndex | None,
    labels: LabelBook,
    metrics: Mapping[str, Mapping[str, Any]],
    evidence: Path | None = None,
    report: Path | None = None,
    address: str = "",
    device: str = "auto",
    without_text: bool = False,
    beside_labels: Callable[[Path], None] = lambda folder: None,
) -> Published:
    """Put a checkpoint with all that is known of it into `into`, which appears whole; the source stays as it is.

    `evidence` is the file, and `report` the folder of the report, that hold of these weights. `address` is where it will be found, for the README. `without_text` leaves out the tokens of every document, and not of
    those alone that may not be passed on; their hashes, titles and positions stay. `beside_labels` writes what goes with the labels
    into the folder. Raises InterpError when the checkpoint's
    own hashes contradict its files, `into` exists, or another model answers to the card's name.
    """
    files, other = present(folder)
    named = check_leaving(files, text=False)  # the index goes along without what may not leave
    check_named(named, {name: places.sha256_file(files[name]) for name in named})
    card = Card.read(folder)
    left = [f"{name}: no file of a checkpoint" for name in other]
    with places.whole_folder(into) as made:
        for name, path in files.items():
            if not name.startswith("index/") and name not in (LABELS, EVIDENCE, *REPORT, "checks.json"):
                (made / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, made / name)
        left += _put_index(index, made, card, folder, without_text)
        if not labels.export(made / LABELS):
            (made / LABELS).unlink()
            left.append("labels: nobody has named a feature here (`interp label SAE FEATURE TEXT`)")
        beside_labels(made)
        if evidence is not None:
            shutil.copyfile(evidence, made / EVIDENCE)
        else:
            left.append(f"evidence: none was made of these weights (`interp evidence {folder}`)")
        found = {name: value for name, value in card.metrics.items() if name != "report"}
        found |= {name: dict(value) for name, value in metrics.items()}
        if not found:
            left.append(
                "metrics: none were measured; `interp evaluate SAE --corpus TEXT`, or publish with --metrics TEXT"
            )
        if report is not None:
            found["report"] = _put_report(report, made, card)
        else:
            left.append(f"report: none was made of these weights (`interp evaluate {folder}`)")
        card = replace(card, metrics=found, files={}).write(made)
        left += _put_readme(made, address)
        left += _sealed(made, card, device)
        own = pin(present(made)[0])
        said = carries(present(made)[0])
    return Published(folder=into, carries=said, left_out=left, pin=own)


def _put_index(index: FeatureIndex | None, made: Path, card: Card, folder: Path, without_text: bool) -> list[str]:
    if index is None:
        return [f"index: none was built for these weights; `interp index {folder}` builds it, then publish again"]
    hidden = cut(index, made / "index", without_text=without_text, model=card.model)
    left = []
    if not index.partial:
        left.append(
            "index: activations away from its examples; whoever has the text builds the full one by `interp index`"
        )
    if index.kind == "pictures" and not (made / "index" / PICTURES).exists():
        left.append("index: small copies of its pictures, of which none that may be passed on is here with the model")
    if hidden:
        left.append(
            f"index: the text of {counted(hidden, 'document')}, of which hashes, titles and positions are there; it is read "
            "where whoever opens it has it"
        )
    return left


def _put_report(report: Path, made: Path, card: Card) -> dict[str, Any]:
    """Copy the report's files; what the card says of it comes back."""
    for name in REPORT:
        if (report / name).exists():
            shutil.copyfile(report / name, made / name)
    return read_report(made / REPORT[0], card.sae_sha256).for_card()


def _put_readme(made: Path, address: str) -> list[str]:
    if (made / README).exists():
        return [f"{README}: the one that lay in the folder was kept; delete it to have one written"]
    (made / README).write_text(describe(made, address), encoding="utf-8")
    return []


def _sealed(made: Path, card: Card, device: str) -> list[str]:
    """Seal the folder; where the model does not open here, hashes alone, and a phrase that says so."""
    try:
        seal(made, device=device, labels=True)
    except InterpError as error:
        if "was not sealed" in str(error):
            raise
        replace(card, files=hashes(made, labels=True)).write(made)
        return [f"checks.json: {error}"]
    if not (made / "checks.json").exists():
        return ["checks.json: a crosscoder reads several hook points, so it has no numbers on the probe"]
    if not places.read_json(made / "checks.json")["counted"]:
        return ["numbers on the probe: no position of it counts at this hook point, so others can't compare them"]
    return []


def carries(files: Mapping[str, Path]) -> list[str]:
    """What a checkpoint's files hold, in words: weights, card, index, labels, metrics and the rest."""
    said = ["weights"]
    if "card.json" in files:
        raw = places.read_json(files["card.json"])
        named = raw.get("files") if isinstance(raw.get("files"), dict) else {}
        said.append(f"card ({'sealed' if 'checks.json' in named else 'not sealed: `interp verify --write`'})")
        found = [name for name, value in (raw.get("metrics") or {}).items() if isinstance(value, dict)]
        said += [f"metrics ({', '.join(found) or 'in the card'})"] if raw.get("metrics") else []
    if "index/index.json" in files:
        meta = places.read_json(files["index/index.json"])
        kept = "examples" if meta.get("keep") == "examples" else "all activations"
        said.append(f"index of {kept} over {int(meta.get('positions', 0)):,} tokens")
        said += ["small copies of its pictures"] if f"index/{PICTURES}" in files else []
    if "lenses.safetensors" in files:
        said.append("lenses")
    if "map.safetensors" in files:
        said.append("map")
    if LABELS in files:
        count = sum(bool(line.strip()) for line in files[LABELS].read_text(encoding="utf-8").splitlines())
        said.append(counted(count, "label"))
    if EVIDENCE in files:
        said.append("evidence of its features")
    if REPORT[0] in files:
        said.append("report")
    return said + [name for name in files if name == README or name.startswith(("presets", "report/"))]


def lacks(
    files: Mapping[str, Path],
    labels: LabelBook,
    index: FeatureIndex | None,
    metrics: Mapping[str, Any],
    evidence: Path | None = None,
    report: Path | None = None,
) -> list[str]:
    """What this machine knows of a checkpoint and its files do not hold, with what would bring it along."""
    said = []
    if "index/index.json" not in files:
        have = (
            "the one under INTERP_HOME is not in it (`interp publish` cuts and ships it)" if index else "none was built"
        )
        said.append(f"index: {have}")
    shipped = {label.feature: label for label in read_jsonl(files[LABELS])} if LABELS in files else {}
    own = sum(shipped.get(feature) != label for feature, label in labels.all().items())
    if own:
        said.append(f"labels: {own:,} written on this machine (--labels, or `interp publish`)")
    shipped_evidence = files.get(EVIDENCE)
    if evidence is not None and (
        shipped_evidence is None or places.sha256_file(shipped_evidence) != places.sha256_file(evidence)
    ):
        said.append("evidence: made on this machine (`interp evidence SAE --beside`, or `interp publish`)")
    if report is not None and (
        REPORT[0] not in files or places.sha256_file(files[REPORT[0]]) != places.sha256_file(report / REPORT[0])
    ):
        said.append("report: made on this machine (`interp evaluate SAE --beside`, or `interp publish`)")
    raw = places.read_json(files["card.json"]) if "card.json" in files else {}
    new = [name for name in metrics if name not in (raw.get("metrics") or {})]
    if new:
        said.append(
            f"metrics: {', '.join(new)}, which `interp evaluate` found (`interp publish` writes them into the card)"
        )
    elif not raw.get("metrics"):
        said.append("metrics: none were measured (`interp evaluate`)")
    return said
