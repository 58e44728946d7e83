"""Corpora of pictures and of sound: folders of files, each a document of its own.

What is said of a text's file holds here too: `FOLDER` or one file. A picture's topic is the folder it lies in, so that
`topic:cats` finds what lies in `cats/`; its split comes from the SHA-256 of the file's bytes.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from interp.corpus.documents import Corpus, Document, Reading
from interp.render.words import counted, size
from interp.types import InterpError

KINDS = {
    "pictures": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "sound": (".wav", ".flac", ".ogg", ".mp3"),
}
"""By what they hold, the names' ends of files that are read."""
VIDEO = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def media_kind(path: Path) -> str | None:
    """`pictures` or `sound` by a file's name, or of a folder by most of its files; None for others.

    Raises InterpError for a video.
    """
    if path.suffix.lower() in VIDEO:
        raise InterpError(f"{path} is a video, which nothing here reads; take pictures or sound out of it first.")
    if not path.is_dir():
        return next((kind for kind, ends in KINDS.items() if path.suffix.lower() in ends), None)
    counts = {kind: len(_files(path, ends)) for kind, ends in KINDS.items()}
    most = max(counts, key=lambda kind: counts[kind])
    return most if counts[most] else None


def open_media(path: Path, kind: str, name: str, seed: int) -> Corpus:
    """The pictures or clips of a folder, in an order drawn with `seed`, or one alone."""
    files = _files(path, KINDS[kind]) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent

    def read() -> Iterator[Document]:
        for file in files:
            inner = file.relative_to(root)
            topic = inner.parent.as_posix() if len(inner.parts) > 1 else ""
            yield Document(
                text=str(file.resolve()),
                source=root.name or kind,
                title=inner.as_posix(),
                topic=topic,
                own=True,
                file=file,
            )

    def mixed(_: Reading) -> Iterator[Document]:
        documents = list(read())
        random.Random(seed).shuffle(documents)
        yield from documents

    about = f"{counted(len(files), 'file')} of {kind}, {size(sum(file.stat().st_size for file in files))}"
    return Corpus(name=name, licence="the user's own", about=about, read=read, mixed=mixed, kind=kind)


def _files(folder: Path, ends: tuple[str, ...]) -> list[Path]:
    """Files of a folder and those below it that end so, hidden ones left out, in order."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ends and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
