"""Which files a checkpoint's folder may hold, what they hash to, and whether one is what its name says."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from interp import places
from interp.types import InterpError

WEIGHTS = "sae_weights.safetensors"
KNOWN = re.compile(
    r"(card|cfg|checks|measures|presets|report)\.json|(labels|presets|training_log)\.jsonl|(README|report)\.md|LICENSE"
    r"|(sae_weights|sparsity)\.safetensors"
    r"|index/[a-z0-9_]{1,60}\.(parquet|json|safetensors)|(presets|report)/[a-z0-9_.-]{0,60}[a-z0-9_]\.(json|jsonl|md|csv|parquet)"
)
"""Names that are packed, pushed and taken; always with `/`, whatever the system writes."""
NEEDED = ("cfg.json", WEIGHTS)
EDITED = re.compile(r"labels\.jsonl|README\.md|card\.json|presets.*|LICENSE")
"""What people go on changing, or what holds the hashes itself: the card has no hash of these."""
LARGEST_TEXT = 256 * 2**20
"""Bytes of a .json or .md file; more is no text that this project writes."""


def known(name: str) -> bool:
    return KNOWN.fullmatch(name) is not None


def present(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The known files of a checkpoint by name, sorted, and the names of what else lies in its folder.

    Links count as something else, wherever they point. Raises InterpError when there is no checkpoint.
    """
    if not folder.is_dir():
        raise InterpError(f"there is no folder {folder}; give the folder of a checkpoint.")
    found, other = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (path.is_file() and not known(name)):
            other.append(name)
        elif path.is_file():
            found[name] = path
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise InterpError(f"{folder} is not a checkpoint: it has no {missing[0]}.")
    return dict(sorted(found.items())), other


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every known file that the card is to vouch for."""
    found, _ = present(folder)
    return {name: places.sha256_file(path) for name, path in found.items() if not EDITED.fullmatch(name)}


def check_content(name: str, path: Path) -> None:
    """Raises InterpError when the file is not of the kind its name says (a pickle, say, named .json)."""
    kind = name.rpartition(".")[2]
    if kind == "safetensors":
        _check_safetensors(name, path)
    elif kind == "parquet":
        with path.open("rb") as file:
            head, size = file.read(4), path.stat().st_size
            file.seek(max(size - 4, 0))
            if size < 12 or head != b"PAR1" or file.read(4) != b"PAR1":
                raise InterpError(f"{name} is not a Parquet file, whatever its name says.")
    elif path.stat().st_size > LARGEST_TEXT:
        raise InterpError(f"{name} has {path.stat().st_size:,} bytes, more than any text that this project writes.")
    else:
        _check_text(name, path, kind)


def _check_safetensors(name: str, path: Path) -> None:
    try:
        with safe_open(path, "numpy") as file:
            list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{name} is not a safetensors file: {error}.") from None


def _check_text(name: str, path: Path, kind: str) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        if "\0" in text:
            raise InterpError(f"{name} holds a null byte, so it is no text.")
        if kind == "json":
            json.loads(text)
        for number, line in enumerate(text.split("\n") if kind == "jsonl" else [], 1):
            if line.strip() and not isinstance(json.loads(line), dict):
                raise InterpError(f"{name}, line {number}: not a JSON object.")
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON
        raise InterpError(
            f"{name} is not readable as {'JSON' if kind.startswith('json') else 'text'}: {error}."
        ) from None


def check_names(names: Iterable[str]) -> None:
    """Raises InterpError for a name that no checkpoint has, or two that some file systems take for one."""
    seen: set[str] = set()
    for name in names:
        if not known(name):
            raise InterpError(f"{name!r} is no file of a checkpoint.")
        if name.casefold() in seen:
            raise InterpError(f"{name!r} is there twice.")
        seen.add(name.casefold())
