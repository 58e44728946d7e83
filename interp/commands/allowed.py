"""Which folders a server may be asked about by whoever sees its pages: those it was given, and nothing outside them."""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from interp import places
from interp.commands.finding import find_folder, library
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.library import Entry

FOLDERS = "INTERP_FOLDERS"
"""The folders, joined as PATH's are (`interp dashboard --folder`); without, `saes/` here and what came with interp."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
LONGEST = 1_000
"""Bytes of a path; more is none that anybody gave."""
SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs")
"""Where a page may fetch from besides the hub; others name files of this machine, or nothing at all."""


@dataclass(frozen=True)
class Harvest:
    """Activations on disk."""

    folder: str
    model: str
    hooks: tuple[str, ...]
    positions: int
    text: str


def given_folders() -> tuple[Path, ...]:
    """The folders that pages may read and write in; the first is where new things go, whether it is there yet or not."""
    named = [Path(each) for each in os.environ.get(FOLDERS, "").split(os.pathsep) if each]
    folders = dict.fromkeys(folder.absolute().resolve() for folder in named or _usual())
    return tuple(each for each in folders if not any(each != other and each.is_relative_to(other) for other in folders))


def _usual() -> list[Path]:
    """`saes/` here, what came with interp, and the checkpoint that the command line names."""
    from interp.checkpoint.files import shelves

    named = [Path(each) for each in sys.argv[1:] if not each.startswith("-") and Path(each, "cfg.json").is_file()]
    return [Path("saes"), *shelves(), *named]


def inside(path: str | Path) -> Path:
    """The path without links, if it lies in one of the folders that were given; a relative one may begin at any of them.

    Raises InterpError, which does not tell whether there is anything, when it does not.
    """
    folders, asked = given_folders(), Path(path)
    if "\0" not in str(path) and len(os.fsencode(asked)) <= LONGEST:
        asked_at = [asked.absolute(), *(folder / asked for folder in folders)]
        found = [place.resolve() for place in asked_at if _is_inside(place, folders)]
        if found:
            return next((place for place in found if place.exists()), found[0])
    raise InterpError(
        f"{str(path)[:200]} is not in the folders that these pages were given: {', '.join(map(str, folders))}. "
        "`interp dashboard --folder` gives them another."
    )


def only_inside() -> AbstractContextManager[None]:
    """While it lasts, a picture or clip that is named in the place of a text (in a box, or in a search) is read only from the
    folders that were given."""
    return places.reading_only(inside)


def _is_inside(path: Path, folders: Sequence[Path]) -> bool:
    try:
        return any(path.resolve().is_relative_to(folder) for folder in folders)
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that is too long
        return False


def allowed_sae(sae: str) -> str:
    """The folder of a checkpoint, which may be named by the end of its path, if it lies in the folders that were given.

    Raises InterpError when there is none there; of what lies outside, it does not tell whether there is anything.
    """
    folders = given_folders()
    wrong = InterpError(
        f"there is no SAE at {sae[:200]!r} in the folders that these pages were given: {', '.join(map(str, folders))}. "
        "The Library lists those that there are."
    )
    try:
        found = find_folder(sae)
    except InterpError as error:
        raise (error if "\0" not in sae and _is_inside(Path(sae).absolute(), folders) else wrong) from None
    except (OSError, ValueError, RuntimeError):  # no path at all
        raise wrong from None
    if _is_inside(Path(found), folders):
        return found
    raise wrong


def offered() -> "list[Entry]":
    """What the library says of every checkpoint in the folders that were given."""
    found: dict[Path, Entry] = {}
    for folder in given_folders():
        if folder.is_dir():
            found |= {Path(entry.folder).resolve(): entry for entry in library(folder)}
    return [entry for path, entry in found.items() if _is_inside(path, given_folders())]


def read_only() -> bool:
    """Whether pages may only show (`interp dashboard --read-only`)."""
    return places.read_only()


def allowed_model(name: str) -> str:
    """A model that a page may open: an embedded one, org/name on the hub, or a folder in those that were given.

    Raises InterpError for anything else.
    """
    from interp.models import MODELS

    asked = name.strip()
    if asked in MODELS or (re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", asked) and not Path(asked).exists()):
        return asked
    return str(inside(asked))


def allowed_text(name: str) -> str:
    """A text that a page may read: embedded corpora, hf:org/name, and files in the folders that were given, joined by +.

    Raises InterpError for anything else.
    """
    from interp.corpus import CORPORA

    parts = []
    for part in map(str.strip, name.split("+")):
        file, mark, field = part.partition("#")
        known = part in CORPORA or (re.fullmatch(r"hf:\w[\w.-]*/\w[\w.-]*", file) is not None)
        parts.append(part if known else f"{inside(file)}{mark}{field}")
    return "+".join(parts)


def harvests() -> "list[Harvest]":
    """The stores of activations in the folders that were given."""
    found = []
    for root in given_folders():
        for path, inner, files in os.walk(root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            if "manifest.json" in files:
                inner.clear()
                found += _harvest(Path(path))
    return found


def _harvest(folder: Path) -> "list[Harvest]":
    """What the manifest of a folder says; nothing where it is of something else."""
    try:
        made = places.read_json(folder / "manifest.json")["recipe"]
        text, hooks = str(made["corpus"]["name"]), tuple(map(str, made["hooks"]))
        return [Harvest(str(folder), str(made["model"]), hooks, int(made["positions"]), text)]
    except (InterpError, KeyError, TypeError, ValueError):
        return []


def new_folder(name: str, below: str | Path | None = None) -> Path:
    """The path of a folder to be made, in the first of the folders that were given, or in the one that is named.

    Raises InterpError for a name with anything but letters, digits and `._+-` in it (parts are joined by /), for a place
    outside, and when something is there.
    """
    parts = name.strip().split("/")
    if not 1 <= len(parts) <= 4 or not all(NAME.fullmatch(part) for part in parts):
        raise InterpError(
            f"{name!r} is no name of a new folder: write letters, digits and . _ + -, with / between at most four parts."
        )
    made = inside((inside(below) if below else given_folders()[0]).joinpath(*parts))
    if made.exists() and (not made.is_dir() or any(made.iterdir())):
        raise InterpError(f"{name} is there already; choose another name.")
    return made


def allowed_source(source: str) -> str:
    """What `pull` may be given by a page: a hub's repository, or a URL that names no file of this machine.

    Raises InterpError for anything else.
    """
    asked = source.strip()
    scheme = urlsplit(asked).scheme.lower() if "://" in asked else ""
    elsewhere = scheme in SCHEMES or (
        not scheme and (asked.startswith("hf:") or re.fullmatch(r"[\w.-]+/[\w./-]+", asked) is not None)
    )
    if elsewhere and ".." not in re.split("[/:]", asked):
        return asked
    raise InterpError(
        f"{source!r} is nothing that a page can pull; write hf:org/name, a URL that begins with "
        f"{', '.join(f'{each}://' for each in SCHEMES[:4])} or others of its kind, or RELEASE/ID of sae-lens' list."
    )
