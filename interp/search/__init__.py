"""Find features by any key, with one query language for scripts, the command line, the pages and their URLs."""

from interp.renamed import renamed
from interp.search.answer import Collection
from interp.search.query import KEYS, Query, parse
from interp.search.run import Hit, Hits, search
from interp.search.saved import SavedSearch

__all__ = ["KEYS", "Collection", "Hit", "Hits", "Query", "SavedSearch", "parse", "search"]
__getattr__ = renamed(__name__, {"Sources": "Collection"})
