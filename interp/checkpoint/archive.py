"""One file of a whole checkpoint, and back: `interp pack`, `interp unpack`.

The container is an uncompressed tar, for three reasons: its files are compressed already (Parquet) or do not compress
(weights), so that packing runs at the disk's speed; any system lists and opens it; and it can be written and read in
one pass. Its first member is `manifest.json`, with name, size and SHA-256 of every other file, in the order of their
names. All else in the archive follows from the manifest (times, owners and modes are zero), so

    the same input gives the same bytes, and
    the reader rebuilds each header it expects and compares: whatever a hostile archive could say in a header (another
    name, a link, a device, a sparse file, a size) is refused for being another header.
"""

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from interp import places
from interp.checkpoint.files import NEEDED, check_content, check_names, pin_of, present
from interp.checkpoint.leaving import check_leaving, check_named
from interp.types import InterpError

FORMAT = 1
KIND = "interp checkpoint"
SUFFIX = ".interp.tar"
BLOCK = 512
CHUNK = 2**20
LARGEST_MANIFEST = 2**20
MOST_FILES = 1_000


@runtime_checkable
class Readable(Protocol):
    """Bytes that are read once, from first to last: a file, an upload."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What went into an archive, or came out of one."""

    path: Path
    files: dict[str, int]
    """Bytes of each file."""
    left_out: list[str]
    """What the folder holds besides a checkpoint's files."""
    pin: str
    """One hash over all of it (see `checkpoint.files.pin`)."""

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(self.files.values())


def pack(folder: str | Path, into: str | Path, *, added: Mapping[str, Path] | None = None) -> Packed:
    """Write one file of all that a checkpoint's folder holds; `added` files stand in for the folder's own.

    Raises InterpError when the folder is no checkpoint, a file is not what its name says or not the one that the card
    or the index names, or the weights are not whole (see `checkpoint.leaving`).
    """
    own, left_out = present(Path(folder))
    files = dict(sorted((own | dict(added or {})).items()))
    check_names(files)
    target = Path(into)
    named = check_leaving(files)
    rows: list[dict[str, Any]] = [
        {"name": name, "size": path.stat().st_size, "sha256": "0" * 64} for name, path in files.items()
    ]
    with places.whole_file(target) as partial, partial.open("wb") as out:
        _write_member(out, "manifest.json", _manifest(rows))
        for row, path in zip(rows, files.values(), strict=True):
            row["sha256"] = _copy_in(out, row["name"], path, row["size"])
        check_named(named, {row["name"]: row["sha256"] for row in rows})
        out.write(bytes(2 * BLOCK))
        out.seek(0)  # the hashes are known now, and as long as the zeros that held their place
        _write_member(out, "manifest.json", _manifest(rows))
    return _packed(target, rows, left_out)


def unpack(archive: str | Path, into: str | Path) -> Packed:
    """The checkpoint in an archive, as a folder; `into` appears whole or not at all.

    Raises InterpError, with nothing left behind, for an archive that is not as `pack` writes them: another name,
    header, size, order, length or hash, content that is not what its name says, or more than the disk holds.
    """
    path, target = Path(archive), Path(into)
    try:
        with path.open("rb") as file:
            return unpack_stream(file, os.fstat(file.fileno()).st_size, target, name=path)
    except OSError as error:
        raise places.disk_error(path, error) from error


def unpack_stream(file: Readable, size: int, into: str | Path, *, name: str | Path) -> Packed:
    """As `unpack`, of an archive of `size` bytes that is read once from its beginning, a MiB at a time, such as an upload.

    `name` is what errors call it. Raises InterpError as `unpack` does.
    """
    path, target = Path(name), Path(into)
    rows = read_manifest(file, size, path)
    _check_room(path, target, rows)
    with places.whole_folder(target) as partial:
        for row in rows:
            _copy_out(file, row, partial, path)
        if file.read(2 * BLOCK + 1) != bytes(2 * BLOCK):
            raise InterpError(f"{path} was not unpacked: it does not end where its last file does.")
        for row in rows:
            check_content(row["name"], partial / row["name"])
    return _packed(target, rows, [])


def _packed(path: Path, rows: list[dict[str, Any]], left_out: list[str]) -> Packed:
    sizes, digests = ({row["name"]: row[key] for row in rows} for key in ("size", "sha256"))
    return Packed(path=path, files=sizes, left_out=left_out, pin=pin_of(digests))


def read_manifest(file: Readable, size: int, path: Path) -> list[dict[str, Any]]:
    """The rows of the manifest at an archive's head, all of them checked; `size` is the archive's in bytes.

    Raises InterpError when it is not there, or not whole, or of another form than is written here.
    """
    with _naming(path):
        head = file.read(BLOCK)
        try:
            length = tarfile.TarInfo.frombuf(head, "ascii", "strict").size
        except (tarfile.TarError, ValueError):
            raise InterpError("it is no archive that `interp pack` wrote") from None
        if head != _header("manifest.json", length) or not 0 < length <= LARGEST_MANIFEST:
            raise InterpError("it does not begin with a manifest")
        raw = file.read(_padded(length))
        if len(raw) != _padded(length) or any(raw[length:]):
            raise InterpError("its manifest is cut short")
        rows = _rows(raw[:length])
        expected = BLOCK + _padded(length) + sum(BLOCK + _padded(row["size"]) for row in rows) + 2 * BLOCK
        if size != expected:
            raise InterpError(f"it has {size:,} bytes and its manifest asks for {expected:,}")
        return rows


def _rows(raw: bytes) -> list[dict[str, Any]]:
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise InterpError("its manifest is not readable") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InterpError(f"its manifest is not of an {KIND}")
    if manifest.get("format") != FORMAT:
        raise InterpError(f"its manifest has format {manifest.get('format')!r}, and this version reads {FORMAT}")
    rows = manifest.get("files")
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_FILES:
        raise InterpError(f"its manifest does not list 1 to {MOST_FILES:,} files")
    for row in rows:
        if not (isinstance(row, dict) and set(row) == {"name", "size", "sha256"} and isinstance(row["name"], str)):
            raise InterpError("its manifest has a row that is not name, size and sha256")
        if not isinstance(row["size"], int) or isinstance(row["size"], bool) or not 0 <= row["size"] < 2**50:
            raise InterpError(f"its manifest gives {row['name']!r} the size {row['size']!r}")
        if not isinstance(row["sha256"], str) or len(row["sha256"]) != 64:
            raise InterpError(f"its manifest gives {row['name']!r} no SHA-256")
    check_names(row["name"] for row in rows)
    names = [row["name"] for row in rows]
    missing = [name for name in NEEDED if name not in names]
    if missing or names != sorted(names) or raw != _manifest(rows):
        raise InterpError(f"it has no {missing[0]}" if missing else "its manifest is not as `interp pack` writes it")
    return rows


def _check_room(path: Path, target: Path, rows: list[dict[str, Any]]) -> None:
    needed, free = sum(row["size"] for row in rows), places.free_bytes(target.absolute())
    if needed > free:
        raise InterpError(
            f"{path} was not unpacked: its files take {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free "
            f"beside {target}; unpack it on a larger disk."
        )


def _copy_out(file: Readable, row: dict[str, Any], folder: Path, archive: Path) -> None:
    """One member into the folder, hashed on its way."""
    name, left = row["name"], row["size"]
    if file.read(BLOCK) != _header(name, left):
        raise InterpError(f"{archive} was not unpacked: the member at {name} is another than its manifest says.")
    target, digest = folder / name, hashlib.sha256()
    target.parent.mkdir(exist_ok=True)
    padding = _padded(left) - left
    with target.open("xb") as out:
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise InterpError(f"{archive} was not unpacked: {name} is cut short.")
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    if digest.hexdigest() != row["sha256"] or file.read(padding) != bytes(padding):
        raise InterpError(f"{archive} was not unpacked: {name} has not the SHA-256 that its manifest names.")


def _copy_in(out: IO[bytes], name: str, path: Path, size: int) -> str:
    """One file as a member; its hash comes back. Raises InterpError when it changes on the way."""
    out.write(_header(name, size))
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
            done += len(chunk)
    if done != size:
        raise InterpError(f"{path} changed while it was packed; pack again when nothing writes to it.")
    out.write(bytes(_padded(size) - size))
    return digest.hexdigest()


def _write_member(out: IO[bytes], name: str, raw: bytes) -> None:
    out.write(_header(name, len(raw)) + raw + bytes(_padded(len(raw)) - len(raw)))


def _manifest(rows: list[dict[str, Any]]) -> bytes:
    value = {"kind": KIND, "format": FORMAT, "files": rows}
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors inside say what is wrong; this adds with which file."""
    try:
        yield
    except InterpError as error:
        raise InterpError(f"{path} was not unpacked: {str(error).rstrip('.')}.") from None
