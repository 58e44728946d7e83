"""Find features by any key, with one query language for scripts, the command line, the pages and their URLs."""

from interp.search.keys import Sources
from interp.search.query import KEYS, Query, parse
from interp.search.run import Hit, Hits, search
from interp.search.saved import SavedSearch

__all__ = ["KEYS", "Hit", "Hits", "Query", "SavedSearch", "Sources", "parse", "search"]
