"""Stores at a URL: a harvest that is sent there shard by shard, and shards that are fetched as they are read.

1. `Sending`: shards are made in a folder of the cache. One that is done is sent, then the manifest that names it, and then the
   copy here is let go of. What the manifest there names is made; a harvest that was ended goes on from that.
2. `Fetching`: a shard that is read is fetched into a folder of the cache, compared with the manifest, and the ones that were not
   read for the longest time are let go of. The norms, which are read before anything else and are small, are fetched alone, and stay.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from interp import places
from interp.activations.manifest import (
    NORM,
    SHARD_NAME,
    TEXT,
    known_sha256,
    norms_sha256,
    note_sha256,
    own_manifest,
    read_manifest,
)
from interp.objects import ObjectFolder
from interp.render.terminal import say
from interp.render.words import counted
from interp.types import InterpError

MANIFEST = "manifest.json"
KEPT = 24
"""Shards of a store at a URL that are in the cache at once: sixteen, which a buffer mixes, and eight more. A larger buffer has its
shards and eight more."""
SPARE = 8
MOST_HEADER = 1 << 24
"""Bytes of a safetensors file's header that are believed."""


@dataclass(frozen=True)
class Sending:
    """A harvest whose shards go to a URL; made in `folder`, which must be held."""

    there: ObjectFolder
    folder: Path
    notes: Path
    """What is to be entered in the manifest, a file a shard."""

    def begin(self, restart: bool) -> None:
        """Bring the folder to what is at the URL, of which a copy of the manifest and the text come here.

        Raises InterpError when another program's files are there, and when the store does not answer.
        """
        sizes = self.there.sizes()
        if MANIFEST not in sizes:
            self._forget()
            (self.folder / MANIFEST).unlink(missing_ok=True)
            return
        manifest, recipe = self._sent_manifest(), self._recipe()
        if restart or not recipe or not isinstance(manifest, dict) or manifest.get("recipe") != recipe:
            self._forget()
        places.write_json(self.folder / MANIFEST, manifest)
        own_manifest(self.folder, self.there.url)
        if restart:
            return
        manifest = read_manifest(self.folder, self.there.url)
        for name in TEXT:
            if name not in sizes:
                raise InterpError(f"{self.there.url} has a manifest and no {name}; begin again with --restart.")
            _fetch_text(self.there, name, self.folder, manifest)
        self._drop_gone(manifest, sizes)

    def _sent_manifest(self) -> Any:
        """What the manifest there says, whatever it is."""
        copy = self.folder / ".there.json"
        self.there.fetch(MANIFEST, copy)
        try:
            return places.read_json(copy)
        except InterpError:
            raise InterpError(f"{self.there.url}/{MANIFEST} is not readable as JSON; choose another folder.") from None
        finally:
            copy.unlink()

    def _recipe(self) -> Any:
        """Of the harvest that was made here before; nothing when there was none."""
        try:
            return own_manifest(self.folder)["recipe"]
        except InterpError:
            return None

    def _forget(self) -> None:
        for path in (*self.folder.glob("shard-*.safetensors"), *self.notes.glob("shard-*.json")):
            path.unlink()

    def _drop_gone(self, manifest: dict[str, Any], sizes: dict[str, int]) -> None:
        """Take from the manifest here what is gone there; shards after the first of these get their notes back."""
        names = [shard["file"] for shard in manifest["shards"]]
        gone = [name for name in names if not sizes.get(name)]
        if gone:
            say(
                f"{counted(len(gone), 'shard')} of {self.there.url} {'is' if len(gone) == 1 else 'are'} gone, and made again."
            )
            first = names.index(gone[0])
            for shard in manifest["shards"][first:]:
                if shard["file"] not in gone:
                    places.write_json(self.notes / f"{Path(shard['file']).stem}.json", shard)
            places.write_json(self.folder / MANIFEST, manifest | {"shards": manifest["shards"][:first]})
        for note in self.notes.glob("shard-*.json"):  # of a shard that is neither here nor there
            name = f"{note.stem}.safetensors"
            if not (self.folder / name).exists() and (name not in names or name in gone):
                note.unlink()

    def send_text(self, restart: bool) -> None:
        """Send text and manifest, where what is there is not that: whatever was there before goes first."""
        sizes = self.there.sizes()
        same = MANIFEST in sizes and _but_shards(self._sent_manifest()) == _but_shards(read_manifest(self.folder))
        if same and not restart:
            return
        ours = sorted(filter(is_store_file, sizes), key=lambda name: name != MANIFEST)  # what names the others first
        self.there.delete(ours)
        for name in (*TEXT, MANIFEST):
            self.there.send(self.folder / name)

    def send_shards(self, names: Iterable[str]) -> None:
        """Send those that are here; those that are not are there."""
        for name in names:
            if (self.folder / name).exists():
                self.there.send(self.folder / name)

    def send_manifest(self) -> None:
        """Send the manifest, and let go of the shards that it names."""
        self.there.send(self.folder / MANIFEST)
        for shard in read_manifest(self.folder)["shards"]:
            (self.folder / shard["file"]).unlink(missing_ok=True)

    def leave(self) -> None:
        """Delete what is here of a harvest that is whole there."""
        for name in (*TEXT, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)


@dataclass
class Fetching:
    """The shards of a store at a URL, which come into a folder of the cache as they are read."""

    there: ObjectFolder
    keep: int = KEPT
    _uses: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        return self.there.kept_in("stores")

    def begin(self) -> dict[str, Any]:
        """The manifest, which is fetched with the text.

        Raises InterpError when there is none, when it is not as it was written, and when the store does not answer.
        """
        url = self.there.url
        if MANIFEST not in self.there.sizes():
            raise InterpError(
                f"there are no activations at {url}; `interp harvest MODEL CORPUS HOOK --into {url}` makes them."
            )
        with self._held():
            places.drop_partials(self.folder)
            self.there.fetch(MANIFEST, self.folder / MANIFEST)
            manifest = read_manifest(self.folder, url)
            if not all(shard.get("sha256") for shard in manifest["shards"]):
                raise InterpError(f"{url}/{MANIFEST} does not say what its shards' SHA-256 are; harvest again.")
            for name in TEXT:
                _fetch_text(self.there, name, self.folder, manifest)
        return manifest

    def tell(self, shards: int) -> None:
        """Say what there is and how much of it is kept here at once."""
        at_once = min(shards, self.keep)
        say(f"activations: {counted(shards, 'shard')} at {self.there.url}; at most {at_once} at once in {self.folder}.")

    def mixing(self, shards: int) -> None:
        """Keep at least as many as are mixed with each other."""
        self.keep = max(self.keep, shards + SPARE)

    @contextmanager
    def at_hand(self, shard: dict[str, Any], key: str) -> Iterator[Path]:
        """A file with that tensor of a shard, which stays while the block lasts.

        Raises InterpError when it cannot be fetched, or is not the one that was harvested.
        """
        path, norms = self.folder / shard["file"], self.folder / f"norms-{shard['sha256'][:32]}.safetensors"
        with self._held():
            if key.startswith(NORM) and not norms.exists() and not path.exists() and "norms_sha256" in shard:
                self._fetch_norms(shard, norms)
            if key.startswith(NORM) and norms.exists():
                yield norms
                return
            if not path.exists() or known_sha256(path) != shard["sha256"]:
                self._let_go(but=path.name)
                self.there.fetch(path.name, path, shard["sha256"])
                note_sha256(path, shard["sha256"])
            self._uses[path.name] = 1 + max(self._uses.values(), default=0)
            if key.startswith(NORM):
                _write_norms(path, norms)
            yield path

    def _fetch_norms(self, shard: dict[str, Any], into: Path) -> None:
        """Fetch the norms of a shard without the rest of it: a safetensors file begins with the place of each tensor."""
        name = shard["file"]
        begin = 8 + int.from_bytes(self.there.read(name, 0, 8), "little")
        if begin > MOST_HEADER:
            raise self.there.changed(name)
        try:
            header = json.loads(self.there.read(name, 8, begin))
            spans = {key: header[key]["data_offsets"] for key in sorted(header) if key.startswith(NORM)}
            raw = {key: self.there.read(name, begin + int(a), begin + int(b)) for key, (a, b) in spans.items()}
            tensors = {key: torch.frombuffer(bytearray(some), dtype=torch.float32) for key, some in raw.items()}
        except (ValueError, KeyError, TypeError):  # no such file
            raise self.there.changed(name) from None
        if norms_sha256(tensors) != shard["norms_sha256"]:
            raise self.there.changed(name)
        with places.whole_file(into) as partial:
            save_file(tensors, partial)

    def _held(self) -> AbstractContextManager[None]:
        return places.only_one(self.folder, "reading activations", wait=-1)

    def _let_go(self, but: str) -> None:
        """Make room for a shard."""
        places.drop_partials(self.folder, of="shard-*")
        here = [path for path in self.folder.glob("shard-*.safetensors") if path.name != but]
        here.sort(key=lambda path: (self._uses.get(path.name, 0), path.stat().st_mtime_ns))
        for path in here[: max(0, len(here) + 1 - self.keep)]:
            path.unlink()


def is_store_file(name: str) -> bool:
    """Whether a harvest writes files of that name."""
    whole = name.removeprefix(".").removesuffix(".partial")  # a part of one may lie there
    return whole in (*TEXT, MANIFEST) or SHARD_NAME.fullmatch(whole) is not None


def _but_shards(manifest: Any) -> Any:
    return {key: value for key, value in manifest.items() if key != "shards"} if isinstance(manifest, dict) else None


def _fetch_text(there: ObjectFolder, name: str, folder: Path, manifest: dict[str, Any]) -> None:
    """Fetch a file of the text, unless it is here already."""
    path, wanted = folder / name, manifest.get("text", {}).get(name, "")
    if not wanted or not path.exists() or known_sha256(path) != wanted:
        there.fetch(name, path, wanted)


def _write_norms(shard: Path, into: Path) -> None:
    with safe_open(shard, framework="pt") as file:
        norms = {key: file.get_tensor(key) for key in file.keys() if key.startswith(NORM)}  # noqa: SIM118
    with places.whole_file(into) as partial:
        save_file(norms, partial)
