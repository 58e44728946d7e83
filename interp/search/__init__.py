"""Find features by any key, with one query language for scripts, the command line, the pages and their URLs.

Names are imported when first used: the language itself (`query.py`) needs no PyTorch, and its keys are listed without it.
"""

from typing import TYPE_CHECKING

from interp.renamed import renamed

if TYPE_CHECKING:
    from interp.search.answer import Collection
    from interp.search.query import KEYS, Query, parse
    from interp.search.run import Hit, Hits, matching, search
    from interp.search.saved import SavedSearch

_HOME = {
    "KEYS": "query",
    "Collection": "answer",
    "Hit": "run",
    "Hits": "run",
    "Query": "query",
    "SavedSearch": "saved",
    "parse": "query",
    "matching": "run",
    "search": "run",
}
__all__ = ["KEYS", "Collection", "Hit", "Hits", "Query", "SavedSearch", "matching", "parse", "search"]
__getattr__ = renamed(__name__, {"Sources": "Collection"}, _HOME)
