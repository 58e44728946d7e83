"""Text that several SAEs' indexes share, kept once.

A file of an index that says nothing of its SAE (SHARED) may lie in a folder `text` beside the SAEs' folders or above these,
as `tokens-<first 12 digits of its SHA-256>.parquet`:

    saes/<model>/text/tokens-0a1b2c3d4e5f.parquet
    saes/<model>/<hook point>/<name>/index/index.json      which has the whole hash

`files.present` finds it there under its own name, so what is packed, pushed or published carries it, and a checkpoint that is
unpacked has it inside.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from interp import places
from interp.types import InterpError

SHARED = ("tokens.parquet", "documents.parquet", "vocabulary.parquet")
FOLDER = "text"
ABOVE = 3
"""How many folders above the checkpoint's are looked in."""
DIGITS = 12


def located(index: Path, name: str, digest: str) -> Path:
    """Where a file of the index in a folder is: in it, or shared; in it, if nowhere."""
    own = index / name
    if own.exists() or name not in SHARED or not re.fullmatch("[0-9a-f]{64}", digest):
        return own
    for start in dict.fromkeys((index.absolute(), index.resolve())):
        for folder in start.parents[1 : 1 + ABOVE]:
            path = folder / FOLDER / _shared_name(name, digest)
            if path.is_file():
                return path
    return own


def shared_files(index: Path, digests: Mapping[str, object]) -> dict[str, Path]:
    """The files of the index in a folder that lie elsewhere, by name; `digests` are those of all its files."""
    there = {name: located(index, name, str(digests[name])) for name in SHARED if name in digests}
    return {name: path for name, path in there.items() if path != index / name and path.exists()}


def share(checkpoint: Path, hook_name: str) -> list[Path]:
    """Move the files of the checkpoint's index that are about the text alone to where others share them.

    That is `saes/<model>/text` of `saes/<model>/<hook point>/<name>`, else beside the checkpoint's folder. Raises
    InterpError when there is no index, or a file is not the one that index.json names.
    """
    index, home = checkpoint / "index", checkpoint.absolute().parent
    digests = places.read_json(index / "index.json")["files"]
    folder = (home.parent if home.name == hook_name else home) / FOLDER
    shared = []
    for name in SHARED:
        own, path = index / name, folder / _shared_name(name, digests[name])
        if own.exists():
            if places.sha256_file(own) != digests[name]:
                raise InterpError(f"{own} is not the file that index.json names; build the index anew.")
            if not path.exists() or places.sha256_file(path) != digests[name]:
                with places.whole_file(path) as partial:
                    shutil.copyfile(own, partial)
            own.unlink()
            shared.append(path)
    return shared


def _shared_name(name: str, digest: str) -> str:
    stem, dot, kind = name.partition(".")
    return f"{stem}-{digest[:DIGITS]}{dot}{kind}"
