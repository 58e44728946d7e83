"""The part of verifying that needs no model: every file's hash, and what the files say of one another."""

from pathlib import Path

from interp import places
from interp.checkpoint import Card
from interp.checkpoint.card import card_sha256
from interp.checkpoint.files import WEIGHTS, named_hashes, present
from interp.types import InterpError
from interp.verification.verdict import Check, differs, holds, unchecked


def check_files(folder: Path) -> list[Check]:
    """Every file's SHA-256 against card.json, or index.json for the index; a file that nobody hashed is `unchecked`.

    Raises InterpError when the folder is no checkpoint or its card cannot be read.
    """
    found, other = present(folder)
    checks = []
    if "card.json" in found:
        Card.read(folder)
        checks.append(_card(found["card.json"]))
    wanted = named_hashes(found)
    checks += [_file(name, path, wanted.get(name)) for name, path in found.items() if name != "card.json"]
    checks += [
        differs(f"file {name}", "the card or the index names it and it is not there")
        for name in wanted
        if name not in found
    ]
    if other:
        checks.append(unchecked("other files", f"{', '.join(other)}: no files of a checkpoint"))
    return checks


def _card(path: Path) -> Check:
    raw = places.read_json(path)
    if not raw.get("card_sha256"):
        return unchecked("file card.json", "it has no hash of itself: it was written before cards had one")
    if raw["card_sha256"] == card_sha256(raw):
        return holds("file card.json", f"as it was written: its own SHA-256 {raw['card_sha256'][:12]}…")
    return differs("file card.json", "it was edited after it was written: its own SHA-256 differs")


def _file(name: str, path: Path, wanted: str | None) -> Check:
    what = f"file {name}"
    if wanted is None:
        return unchecked(what, "the card has no hash of it")
    if places.sha256_file(path) == wanted:
        return holds(what, f"SHA-256 {wanted[:12]}…")
    said = "other SAE weights than" if name == WEIGHTS else "another file than"
    return differs(what, f"{said} the card names: it was changed, swapped or cut short")


def check_pin(pin: str, expected: str) -> Check:
    """Raises InterpError when what was expected is no SHA-256."""
    wanted = expected.strip().lower()
    if len(wanted) != 64 or set(wanted) - set("0123456789abcdef"):
        raise InterpError(
            f"{expected!r} is no pin; give all 64 hexadecimal digits that `interp verify` printed for its maker."
        )
    if pin == wanted:
        return holds("pin", f"{pin[:12]}…, as expected")
    return differs("pin", f"{pin[:12]}… and not {wanted[:12]}…: these are not the files that were pinned")
