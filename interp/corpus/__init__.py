"""Text → documents → token blocks.

`documents` has what a corpus is; `packaged` the corpora inside packages, which `sources` has a file
for each kind of; `rows` reads files row by row; `txt`
parts a plain text; `own` makes corpora of a user's own files, for which `fields` decides what of a row is its text and `turns`
the order of several files; `blocks` packs documents into tokens;
`overlap` measures how much of one text stands in another.
"""

from interp.corpus.blocks import BLOCK, TokenBlocks, Tokenizes, tokenize, write_parquet
from interp.corpus.documents import SPLITS, Corpus, Document, Reading, mix
from interp.corpus.overlap import Overlap, near_duplicates
from interp.corpus.own import open_corpus, open_texts, read_texts, second_set
from interp.corpus.packaged import CORPORA
from interp.corpus.rows import READERS

__all__ = [
    "BLOCK",
    "CORPORA",
    "READERS",
    "SPLITS",
    "Corpus",
    "Document",
    "Overlap",
    "Reading",
    "TokenBlocks",
    "Tokenizes",
    "mix",
    "near_duplicates",
    "open_corpus",
    "open_texts",
    "read_texts",
    "second_set",
    "tokenize",
    "write_parquet",
]
