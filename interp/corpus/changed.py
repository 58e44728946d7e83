"""Whether the files of a text, or the pictures of a folder, are still those that were read."""

from collections.abc import Sequence

from interp.corpus.blocks import FILE, ReadsFiles, TokenBlocks, Tokenizes, readable
from interp.corpus.documents import Corpus, Document, Reading
from interp.types import InterpError


def changed_files(blocks: TokenBlocks, corpus: Corpus, model: Tokenizes, tokens: int, split: str | None) -> str:
    """What of the corpus is no longer as it was when the blocks were made of it, so many `tokens` being asked; "" when
    nothing is, and of packaged corpora and those of the hub, which have versions of their own.

    The documents are read again, as far as the blocks go, and compared by their SHA-256.
    """
    files = FILE in blocks.documents.column_names
    if not (files or blocks.reading) or "hf:" in corpus.name:
        return ""
    titles, digests = (blocks.documents[name].to_pylist() for name in ("title", "sha256"))
    full = blocks.positions >= tokens and int(blocks.tokens_NT[-1, -1]) != blocks.separator
    at = 0
    for doc in readable(corpus, Reading(), split):
        if at == len(digests) and (full or (files and blocks.positions >= tokens)):
            break
        if at < len(digests) and doc.digest.hex() == digests[at]:
            at += 1
        elif not (files and _unreadable(model, doc)):
            return _said(titles, at, doc)
    return "" if at == len(digests) else f"{titles[at]!r} is not there, or not where it was"


def _said(titles: Sequence[str], at: int, doc: Document) -> str:
    if at == len(titles):
        return f"{doc.title!r} is new"
    return f"{doc.title!r} is another" if doc.title == titles[at] else f"{doc.title!r} stands where {titles[at]!r} did"


def _unreadable(model: Tokenizes, doc: Document) -> bool:
    """Whether the file is one of those that are left out."""
    try:
        assert isinstance(model, ReadsFiles)
        model.prompt(doc.text)
    except InterpError:
        return True
    return False
