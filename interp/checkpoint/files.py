"""Which files a checkpoint's folder may hold, what they hash to, and whether one is what its name says."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from interp import places
from interp.checkpoint.card import WEIGHTS
from interp.checkpoint.shared import shared_files
from interp.render.sheet import HEAD as PAGE_HEAD
from interp.types import InterpError

KNOWN = re.compile(
    r"(card|cfg|checks|measures|presets|report)\.json|(labels|presets|training_log)\.jsonl|(README|report)\.md|report\.html|LICENSE"
    r"|(label_meanings|lenses|map|sae_weights|sparsity)\.safetensors|(trained|evidence)\.parquet"
    r"|index/[a-z0-9_]{1,60}\.(parquet|json|safetensors)|(presets|report)/[a-z0-9_.-]{0,60}[a-z0-9_]\.(json|jsonl|md|csv|parquet)"
)
"""Names that are packed, pushed and taken; always with `/`, whatever the system writes."""
NEEDED = ("cfg.json", WEIGHTS)
EDITED = re.compile(r"labels\.jsonl|README\.md|card\.json|presets.*|LICENSE")
"""What people go on changing, or what holds the hashes itself: the card has no hash of these, but for published labels."""
LABELS = "labels.jsonl"
EVIDENCE = "evidence.parquet"
REPORT = ("report.json", "report.md", "report.html")
"""What was measured, and the same for people."""
INDEX = "index/index.json"
PARTS = re.compile(r"(\d+)")
LARGEST_TEXT = 256 * 2**20
"""Bytes of a .json or .md file; more is no text that this project writes."""


def resolve(path: str | Path) -> Path:
    """The checkpoint's folder: as given, below the working folder's `saes/` or the shipped ones; of these, the end of its
    path is enough (`batchtopk-9216`).

    Raises InterpError when there is none of that name, or more than one.
    """
    given = Path(path).expanduser()
    for candidate in (given, Path("saes") / given, places.shipped(str(given))):
        if (candidate / "cfg.json").exists():
            return candidate
    if given.is_dir():
        from interp.checkpoint import formats  # which PyTorch comes with, and a label is written without

        raise InterpError(f"{given} is not a checkpoint: it has no cfg.json{formats.offer(given)}.")
    there = shelved()
    named = [folder for folder in there if folder.parts[-len(given.parts) :] == given.parts]
    if len(named) > 1:
        raise InterpError(f"{given} is the name of several SAEs: {', '.join(map(str, named))}; write more of its path.")
    if named:
        return named[0]
    exists = f" Here there is {', '.join(map(str, there))}." if there else " `interp train` makes one."
    raise InterpError(f"there is no SAE at {given}.{exists}")


def called(folder: Path, name: str) -> str:
    """What a command is to call a checkpoint: its name where that leads to the folder, else the folder."""
    try:
        return name if resolve(name).samefile(folder) else str(folder)
    except InterpError:
        return str(folder)


def shelved() -> list[Path]:
    """The folders of checkpoints below the working folder's `saes/`, and those that came with the project."""
    folders = {folder.resolve(): folder for root in shelves() for folder in below(root)}
    return list(folders.values())


def shelves() -> list[Path]:
    """The folders that are searched where none is named: `saes/` here, and that of the project; those that exist."""
    here = {root.resolve(): root for root in (places.shipped("saes"), Path("saes")) if root.is_dir()}
    return list(here.values())[::-1]


def below(root: Path) -> list[Path]:
    """The folders of checkpoints below a folder, hidden ones left out, by path; block 5 before block 15."""
    found = []
    for folder, inner, files in os.walk(root):  # which passes over folders that others take away meanwhile
        inner[:] = [name for name in inner if not name.startswith(".")]
        if "cfg.json" in files:
            found.append(Path(folder))
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in PARTS.split(str(path))])


def known(name: str) -> bool:
    """Whether a checkpoint may hold a file of that name (`KNOWN`)."""
    return KNOWN.fullmatch(name) is not None


def present(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The known files of a checkpoint by name, sorted, and the names of what else lies in its folder.

    Those of its index that are shared are among them, under their own names (see `checkpoint.shared`). Links count as something else, wherever they point; the lock of who works there counts as nothing. Raises InterpError when there is no checkpoint.
    """
    if not folder.is_dir():
        raise InterpError(f"there is no folder {folder}; give the folder of a checkpoint.")
    found, other = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == places.LOCK:
            continue
        if path.is_symlink() or (path.is_file() and not known(name)):
            other.append(name)
        elif path.is_file():
            found[name] = path
    if INDEX in found:
        listed = _object(found[INDEX]).get("files")
        shared = shared_files(folder / "index", listed) if isinstance(listed, dict) else {}
        found |= {f"index/{name}": path for name, path in shared.items()}
    missing = [name for name in NEEDED if name not in found]
    if missing:
        from interp.checkpoint.formats import offer

        raise InterpError(f"{folder} is not a checkpoint: it has no {missing[0]}{offer(folder)}.")
    return dict(sorted(found.items())), other


def hashes(folder: Path, *, labels: bool = False) -> dict[str, str]:
    """SHA-256 of every known file that the card is to vouch for; of the labels that ship, too, if asked."""
    found, _ = present(folder)
    kept = {name: path for name, path in found.items() if not EDITED.fullmatch(name) or (labels and name == LABELS)}
    return {name: places.sha256_file(path) for name, path in kept.items()}


def named_hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """What card.json and index/index.json, where these are among the files, say that files hash to.

    What cannot be read names nothing: whoever needs it says so.
    """
    card, index = (_object(files[name]) if name in files else {} for name in ("card.json", INDEX))
    digests = {WEIGHTS: card.get("sae_sha256")}
    listed = index.get("files")
    for name, value in listed.items() if isinstance(listed, dict) else ():
        digests[f"index/{name}"] = value.get("sha256") if isinstance(value, dict) else value
    own = card.get("files")
    digests |= own if isinstance(own, dict) else {}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str) and digest}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = places.read_json(path)
    except InterpError:
        return {}
    return value if isinstance(value, dict) else {}


def pin(files: Mapping[str, Path]) -> str:
    """One SHA-256 over names and contents of all of a checkpoint's files, the card and what people edit included.

    Hashes inside a checkpoint show damage and careless edits; a forger writes them anew. This one is told apart from
    the checkpoint (in a paper, on a page), and `interp verify --expect` compares.
    """
    return pin_of({name: places.sha256_file(path) for name, path in files.items()})


def pin_of(digests: Mapping[str, str]) -> str:
    """The pin of files with these SHA-256: what `sha256sum` prints of them, in order of their names, hashed."""
    rows = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(rows).encode()).hexdigest()


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
        if kind == "html" and not (text.startswith(PAGE_HEAD) and text.lower().count("http-equiv") == 1):
            raise InterpError(f"{name} is no page that this project writes: it does not begin by refusing scripts.")
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
