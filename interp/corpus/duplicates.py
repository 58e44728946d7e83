"""Documents that say nearly the same as another: MinHash over runs of five words, by datasketch.

Two documents are near duplicates when their sets of runs of five words overlap by `NEAR` of their union (Jaccard), as far
as 128 permutations can tell; a word is a run of letters, digits and underscores in small letters. Documents of fewer than
five words are compared as wholes, by their SHA-256.

Source  Broder 1997, "On the resemblance and containment of documents"; Lee et al. 2022, "Deduplicating training data makes
        language models better" (NearDup; there .8 and exact checks after).
"""

from collections.abc import Iterable

import numpy as np
from datasketch import MinHash, MinHashLSH

from interp.corpus.documents import Document
from interp.corpus.overlap import hashes

WORDS = 5
NEAR = 0.7
LOOKED_AT = 0.5
"""Overlap from which pairs are looked up, so that hardly one of `NEAR` is missed; then their sketches decide."""
PERMUTATIONS = 128
SCHEME = "affine32"


def duplicates(documents: Iterable[Document]) -> set[str]:
    """SHA-256s (hex) of the documents that one before them nearly repeats; the first of its kind is not among them.

    Documents are read once; of each a sketch of a kilobyte is kept.
    """
    index = MinHashLSH(threshold=LOOKED_AT, num_perm=PERMUTATIONS)
    sketches: dict[str, MinHash] = {}
    shared = MinHash(PERMUTATIONS, hashfunc=int, scheme=SCHEME).permutations
    dropped: set[str] = set()
    for doc in documents:
        name = doc.digest.hex()
        grams = (np.unique(hashes(doc.text, WORDS)) >> np.uint64(32)).tolist()
        if not grams or name in sketches or name in dropped:
            continue
        sketch = MinHash(PERMUTATIONS, hashfunc=int, scheme=SCHEME, permutations=shared)
        sketch.update_batch(grams)
        if any(sketches[str(other)].jaccard(sketch) >= NEAR for other in index.query(sketch)):
            dropped.add(name)
        else:
            index.insert(name, sketch)
            sketches[name] = sketch
    return dropped
