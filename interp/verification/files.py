"""The part of verifying that needs no model: every file's hash, and what the files say of one another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interp import places
from interp.checkpoint import Card
from interp.checkpoint.files import EDITED, WEIGHTS, present
from interp.types import InterpError

Verdict = Literal["holds", "differs", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    verdict: Verdict
    found: str


def check_files(folder: Path) -> list[Check]:
    """Every file's SHA-256 against card.json, or index.json for the index; a file that nobody hashed is `unchecked`.

    Raises InterpError when the folder is no checkpoint or its card cannot be read.
    """
    found, other = present(folder)
    card = Card.read(folder) if "card.json" in found else None
    wanted = ({WEIGHTS: card.sae_sha256} if card and card.sae_sha256 else {}) | index_hashes(folder)
    wanted |= card.files if card else {}
    checks = [_file(name, path, wanted.get(name)) for name, path in found.items() if not EDITED.fullmatch(name)]
    checks += [
        Check(what=f"file {name}", verdict="differs", found="the card names it and it is not there")
        for name in wanted
        if name not in found
    ]
    if other:
        checks.append(
            Check(what="other files", verdict="unchecked", found=f"{', '.join(other)}: no files of a checkpoint")
        )
    return checks


def _file(name: str, path: Path, wanted: str | None) -> Check:
    what = f"file {name}"
    if wanted is None:
        return Check(what=what, verdict="unchecked", found="the card has no hash of it")
    if places.sha256_file(path) == wanted:
        return Check(what=what, verdict="holds", found=f"SHA-256 {wanted[:12]}…")
    said = "other SAE weights than" if name == WEIGHTS else "another file than"
    return Check(what=what, verdict="differs", found=f"{said} the card names: it was changed, swapped or cut short")


def index_hashes(folder: Path) -> dict[str, str]:
    """What index.json says its files hash to, by name in the checkpoint's folder; nothing for an index that does not say."""
    try:
        meta: Any = places.read_json(folder / "index" / "index.json")
    except InterpError:
        return {}
    files = meta.get("files") if isinstance(meta, dict) else None
    found = {}
    for name, value in files.items() if isinstance(files, dict) else ():
        digest = value.get("sha256") if isinstance(value, dict) else value
        if isinstance(digest, str):
            found[f"index/{name}"] = digest
    return found
