"""Which checkpoints a server speaks of: those below the folders it was started with, and no other path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.commands import finding
from interp.types import InterpError, unknown


@dataclass(frozen=True)
class Offered:
    """The checkpoints below `roots`, or where there are none those in saes/ and those that came with interp."""

    roots: Sequence[Path] = ()

    def library(self) -> list[object]:
        """What the library says of each of them."""
        shelves: Sequence[Path | None] = self.roots or [None]
        return [entry for shelf in shelves for entry in finding.library(shelf)]

    def folder(self, name: str) -> str:
        """The folder of the checkpoint with this path or end of a path. Raises InterpError when it is not offered."""
        shelves: Sequence[Path | None] = self.roots or [None]
        known = {Path(entry.folder).resolve() for shelf in shelves for entry in finding.library(shelf)}
        parts = Path(name).parts
        matching = sorted(folder for folder in known if parts and folder.parts[-len(parts) :] == parts)
        if len(matching) > 1:
            raise InterpError(f"{name} is the name of {len(matching)} SAEs here; write more of its path.")
        if not matching:
            raise unknown("SAE offered here", name, sorted(folder.name for folder in known))
        return str(matching[0])
