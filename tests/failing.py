"""An object store that can fail: fsspec's own one in memory, under a protocol of its own, whose disk is full when it is told so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem


class FailingFileSystem(MemoryFileSystem):
    """Files in memory; a write that fails leaves half of the file there."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    at_write: ClassVar[int] = 0
    """Which write from now on fails; none where it is 0."""
    failure: ClassVar[BaseException | None] = None
    """What that write raises; without one it takes half of the file and says nothing."""
    gone: ClassVar[BaseException | None] = None
    """What everything raises."""
    watch: ClassVar[Callable[[str, str], None]] = staticmethod(lambda mode, path: None)
    """Is told of every file that is written (w), read (r) or read a part of (some)."""

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("failing://"))

    @classmethod
    def mend(cls) -> None:
        cls.at_write, cls.failure, cls.gone, cls.watch = 0, None, None, staticmethod(lambda mode, path: None)

    @classmethod
    def files(cls, folder: str) -> dict[str, bytes]:
        """What is there, by name."""
        return {
            path.rpartition("/")[2]: file.getvalue()
            for path, file in cls.store.items()
            if path.startswith(f"/{folder}/")
        }

    def ls(self, path, detail=True, **kwargs):
        self._fail()
        return super().ls(path, detail, **kwargs)

    def info(self, path, **kwargs):
        self._fail()
        return super().info(path, **kwargs)

    def rm_file(self, path):
        self._fail()
        self._rm(path)

    def put_file(self, lpath, rpath, **kwargs):
        self._fail()
        cls = type(self)
        cls.watch("w", rpath)
        if cls.at_write:
            cls.at_write -= 1
            if not cls.at_write:
                whole = Path(lpath).read_bytes()
                self.store[self._strip_protocol(rpath)] = MemoryFile(self, rpath, whole[: len(whole) // 2])
                if cls.failure is None:
                    return
                cls.gone = cls.failure if isinstance(cls.failure, Exception) else None
                raise cls.failure
        super().put_file(lpath, rpath, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._fail()
        type(self).watch("some", path)
        return super().cat_file(path, start, end, **kwargs)

    def _open(self, path, mode="rb", **kwargs):
        self._fail()
        if "r" in mode:
            type(self).watch("r", path)
        return super()._open(path, mode, **kwargs)

    def _fail(self) -> None:
        if self.gone is not None:
            raise self.gone


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
