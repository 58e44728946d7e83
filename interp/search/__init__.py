"""Find features by any key, with one query language for scripts, the command line, the pages and their URLs."""

from interp.search.query import KEYS, Query, parse
from interp.search.run import Hit, Hits, Sources, search

__all__ = ["KEYS", "Hit", "Hits", "Query", "Sources", "parse", "search"]
