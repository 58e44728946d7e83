"""What verifying a checkpoint came to, remembered on this machine for as long as its files stay as they were."""

import datetime
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint.files import present
from interp.types import InterpError


def remember(folder: Path, verdict: str, dtype: str) -> None:
    """Keep a verdict (`verified`, `files only` or `differs`) of the folder as it is now, where INTERP_HOME can be written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with suppress(InterpError):  # the verdict was given; only the library will not show it
        places.write_json(_path(folder), {"verdict": verdict, "when": now, "dtype": dtype, "files": _stamp(folder)})


def recall(folder: Path) -> str:
    """`verified 2026-11-22` and the like; `not verified` when it never was, or when a file has changed since."""
    try:
        kept: Any = places.read_json(_path(folder))
        if kept["files"] != _stamp(folder):
            return f"changed since {str(kept['when'])[:10]}"
        return f"{kept['verdict']} {str(kept['when'])[:10]}"
    except (InterpError, KeyError, TypeError):
        return "not verified"


def _path(folder: Path) -> Path:
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return places.data() / "verified" / f"{key}.json"


def _stamp(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file: cheap, and enough to see that someone wrote to one."""
    files, _ = present(folder)
    return {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()}
