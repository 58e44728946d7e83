"""Folders at URLs that fsspec knows (s3://, gs://, file://, memory://): one way there, and one way back.

A file that was sent is there whole: its size is compared, and where a store would keep a part of one it gets its name last. Whatever names the others with their
hashes (a manifest, an index.json) goes last, so that files which nothing names count for nothing. A file is fetched under a
temporary name, and takes its place when its size is right and its SHA-256, where one is known. What a driver raises is told in a
sentence. Keys and tokens are fsspec's and its drivers' own affair: they are not read, shown or written here.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp import places
from interp.types import InterpError

GOES_ON = "What is there stays; the same command, given again, goes on from it."
FETCHED = ".fetched.json"
"""In a folder of fetched files: by name, the SHA-256 and time of what was fetched."""


def is_url(place: str | Path) -> bool:
    """Whether it names a place that fsspec is to open, and no path."""
    return "://" in str(place)


def shown(address: str) -> str:
    """The address without user, password, query and fragment."""
    return re.sub(r"[?#].*$", "", re.sub(r"(?<=://)[^/@]*@", "", address))


def refused(what: str, error: Exception) -> InterpError:
    """A sentence with the first line of somebody else's error, without what might be a key in it."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    clean = re.sub(
        r"(hf_|AKIA|Bearer |token=|key=|secret=)[\w./+=-]+", r"\1…", shown(first) if "://" in first else first
    )
    return InterpError(f"{what}: {clean[:300]}")


def file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of a URL; InterpError when it is of no kind that can be opened here."""
    import fsspec
    from fsspec.registry import known_implementations

    scheme = url.partition("://")[0] if is_url(url) else "file"
    made = {"auto_mkdir": True} if scheme in ("file", "local") else {}
    try:
        files, root = fsspec.core.url_to_fs(url, **made)
    except ImportError as error:
        package = known_implementations.get(scheme, {}).get("class", "fsspec.").partition(".")[0]
        if package == "fsspec":
            raise refused(f"{shown(url)} cannot be opened here", error) from None
        raise InterpError(f"{shown(url)} needs {package}, which is not installed: pip install {package}.") from None
    except Exception as error:
        raise refused(f"{shown(url)} is of no kind that fsspec opens here", error) from None
    return files, str(root).rstrip("/")


@dataclass(frozen=True, eq=False)
class ObjectFolder:
    """The files at a URL; made by `ObjectFolder.at`."""

    url: str
    """Without anything that opens a door."""
    _files: Any = field(repr=False)
    _root: str = field(repr=False)
    _key: str = field(repr=False)

    @staticmethod
    def at(url: str) -> "ObjectFolder":
        """The folder at a URL, whether there is anything or not; InterpError when its kind cannot be opened here."""
        files, root = file_system(url)
        key = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        return ObjectFolder(shown(url).rstrip("/"), files, root, key)

    @staticmethod
    def around(url: str) -> tuple["ObjectFolder", str]:
        """(the folder in which a file of that URL lies, the file's name); InterpError as `at`."""
        files, path = file_system(url)
        root, _, name = path.rpartition("/")
        return ObjectFolder(shown(url).rpartition("/")[0], files, root, ""), name

    def kept_in(self, room: str) -> Path:
        """The folder of the cache that belongs to this URL."""
        return places.cache() / room / self._key

    def sizes(self) -> dict[str, int]:
        """Bytes of each file there, by name; empty when there is nothing.

        Raises InterpError when the store does not answer or does not let us look.
        """
        with self._asked("could not be looked at"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
            return {e["name"].rpartition("/")[2]: int(e["size"] or 0) for e in found if e["type"] == "file"}

    def send(self, path: Path) -> None:
        """Send a file; it is there under its name when this returns, and never a part of it.

        Raises InterpError when nothing may be written, and when the store does not take it whole.
        """
        places.refuse_read_only(f"nothing was sent to {self.url}")
        name, size = path.name, path.stat().st_size
        # Object stores take a file whole or not at all, and have asynchronous drivers; others may keep a part of it.
        beside = name if getattr(self._files, "async_impl", False) else f".{name}.partial"
        with self._asked("could not be written", name):
            self._files.put_file(str(path), f"{self._root}/{beside}")
            self._files.invalidate_cache()
            arrived = int(self._files.info(f"{self._root}/{beside}")["size"] or 0)
        if arrived != size:
            raise InterpError(
                f"{self.url}/{name} could not be written: {arrived:,} of {size:,} bytes arrived. {GOES_ON}"
            )
        if beside != name:
            with self._asked("could not be written", name):
                self._files.mv(f"{self._root}/{beside}", f"{self._root}/{name}")

    def fetch(self, name: str, into: Path, sha256: str = "") -> None:
        """Fetch a file to a path, where it appears whole or not at all.

        Raises InterpError when it cannot be fetched, and when it has not the hash.
        """
        with places.whole_file(into) as partial:
            with self._asked("could not be read", name):
                size = int(self._files.info(f"{self._root}/{name}")["size"] or 0)
                self._files.get_file(f"{self._root}/{name}", str(partial))
            if partial.stat().st_size != size:
                raise InterpError(
                    f"{self.url}/{name} could not be read: {partial.stat().st_size:,} of {size:,} bytes came. {GOES_ON}"
                )
            if sha256 and places.sha256_file(partial) != sha256:
                raise self.changed(name)

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Some bytes of a file; InterpError when they cannot be read."""
        with self._asked("could not be read", name):
            return bytes(self._files.cat_file(f"{self._root}/{name}", start=begin, end=end))

    def changed(self, name: str) -> InterpError:
        """The sentence for a file that has not the hash that is noted of it."""
        return InterpError(
            f"{self.url}/{name} is not the file that was sent (its SHA-256 is not the one that is noted of it): it was "
            "changed, swapped or cut short there. Send it again, or make it anew with --restart."
        )

    def delete(self, names: Iterable[str]) -> None:
        """Delete files that are there; InterpError when the store does not let us."""
        for name in names:
            places.refuse_read_only(f"nothing was deleted at {self.url}")
            with self._asked("could not be deleted", name):
                self._files.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _asked(self, failed: str, name: str = "") -> Iterator[None]:
        """Whatever a driver raises becomes a sentence; of a disk of ours that is full, whoever writes the file tells."""
        what = f"{self.url}{'/' if name else ''}{name} {failed}"
        try:
            yield
        except InterpError:
            raise
        except FileNotFoundError:
            raise InterpError(f"{what}: there is no such bucket, folder or file (any more). {GOES_ON}") from None
        except PermissionError as error:
            raise InterpError(f"{refused(f'{what}: access is denied', error)}. {GOES_ON}") from None
        except Exception as error:  # each driver raises what its own libraries do
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                if failed == "could not be read":
                    raise
                raise InterpError(f"{what}: the store is full. Make room there. {GOES_ON}") from None
            raise InterpError(f"{str(refused(what, error)).rstrip('.')}. {GOES_ON}") from None


def send_folder(folder: Path, url: str) -> None:
    """Copy a folder's files to a URL, the .json files last: they say that the rest is there, so what of them is there goes first.

    What arrived is noted in the cache: given again, only the rest is sent. Raises InterpError when the store does not take it.
    """
    there = ObjectFolder.at(url)
    places.refuse_read_only(f"nothing was sent to {there.url}")
    own = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    parts = sorted(own, key=lambda path: (path.suffix == ".json", path.name))
    hashes = {path.name: places.sha256_file(path) for path in parts}
    arrived = _arrived(folder, there)
    done = {name: digest for name, digest in arrived.items() if hashes.get(name) == digest}

    def note(**said: bool) -> None:
        places.write_json(_note_of(there), {"folder": str(folder.resolve()), "files": done} | said)

    note(begun=True)
    sizes = there.sizes()
    done = {
        path.name: done[path.name]
        for path in parts
        if sizes.get(path.name) == path.stat().st_size and path.name in done
    }
    if done != hashes:
        last = {path.name for path in parts if path.suffix == ".json"}
        there.delete(sorted(last & sizes.keys()))
        done = {name: digest for name, digest in done.items() if name not in last}
        for path in parts:
            if path.name not in done:
                there.send(path)
                done[path.name] = hashes[path.name]
                note(begun=True)
    note()


def is_unsent(folder: Path, url: str) -> bool:
    """Whether a sending of the folder to the URL was begun and did not come to its end."""
    noted = _noted(_note_of(ObjectFolder.at(url)))
    return noted.get("folder") == str(folder.resolve()) and "begun" in noted


def _note_of(there: ObjectFolder) -> Path:
    """What is noted of a folder that is sent to a URL."""
    return there.kept_in("sent") / "sent.json"


def _arrived(folder: Path, there: ObjectFolder) -> dict[str, str]:
    """SHA-256 by name of what of the folder arrived at the URL."""
    noted = _noted(_note_of(there))
    files = noted.get("files") if noted.get("folder") == str(folder.resolve()) else None
    return files if isinstance(files, dict) else {}


def fetch_folder(url: str, described: str) -> Path:
    """The folder at a URL, copied into the cache; the JSON file `described` has the SHA-256 of the others, under `files`.

    What is there and did not change is not fetched again. Raises InterpError when there is nothing, when it cannot be fetched,
    and when a file is not the one that is described.
    """
    there = ObjectFolder.at(url)
    into = there.kept_in("remote")
    sizes = there.sizes()
    if described not in sizes:
        what = f"no {described}, which is sent last," if sizes else "nothing"
        raise InterpError(f"there is {what} at {there.url}; send it there (again) with --into.")
    with places.only_one(into, "fetching", wait=-1):
        places.drop_partials(into)
        there.fetch(described, into / described)
        hashes = _hashes(into / described)
        note = into / FETCHED
        have = _noted(note)
        for name in sorted(sizes.keys() & hashes.keys()):
            if have.get(name) != _state(into / name, hashes[name]):
                there.fetch(name, into / name, hashes[name])
                have[name] = _state(into / name, hashes[name])
                places.write_json(note, have)
    return into


def _state(path: Path, sha256: str) -> list[str | int]:
    """What is noted of a fetched file, by which it is known again."""
    if not path.exists():
        return []
    about = path.stat()
    return [sha256, about.st_size, about.st_mtime_ns]


def _hashes(path: Path) -> Mapping[str, str]:
    """What a JSON file says of the hashes of others; whoever reads it says what is wrong with it."""
    try:
        files = places.read_json(path)["files"]
    except (InterpError, KeyError, TypeError):
        return {}
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        return {}
    return files


def _noted(note: Path) -> dict[str, Any]:
    try:
        read = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
