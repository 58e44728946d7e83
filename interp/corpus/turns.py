"""The order in which the documents of several files come: every file is reached early, and the memory is bounded.

1.  The files are visited in turn, for 16 documents each, then for 32 more, and so on.
2.  What they give waits in a pool, from which documents are drawn.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from interp.corpus.documents import Document

FIRST_VISIT = 16
"""Documents taken from a file at its first visit; each later visit takes twice as many."""
POOL, POOL_CHARS = 10_000, 32_000_000
"""Documents, and characters, that wait to be drawn: what bounds the memory."""


def in_turns(files: list[str], visit: Callable[[str], Iterator[Document]]) -> Iterator[Document]:
    """Some documents of each file, then twice as many more of each, and so on.

    One file is open at a time; a file that is visited again is read from its start, which at most doubles the reading.
    """
    first, count = 0, FIRST_VISIT
    while files:
        again = []
        for file in files:
            got = 0
            for doc in islice(visit(file), first, first + count):
                got += 1
                yield doc
            if got == count:
                again.append(file)
        files, first, count = again, first + count, 2 * count


def drawn(documents: Iterable[Document], draw: random.Random) -> Iterator[Document]:
    """The documents as they are drawn from a pool that is kept full."""
    held: list[Document] = []
    chars = 0
    for doc in documents:
        held.append(doc)
        chars += len(doc.text)
        while len(held) > POOL or chars > POOL_CHARS:
            at = draw.randrange(len(held))
            held[at], held[-1] = held[-1], held[at]
            chars -= len(held[-1].text)
            yield held.pop()
    draw.shuffle(held)
    yield from held
