"""Where features stand on the map: `map:`, an outline as a lasso draws it.

Axes    P corner of the outline.
"""

import numpy as np

from interp.search.answer import Answer, Collection
from interp.search.query import Term
from interp.types import InterpError

SCALE = 1000
"""Steps of the map's width and height in which outlines are written."""
MOST = 200
"""Corners of an outline."""


def find_map(term: Term, collection: Collection) -> Answer:
    """Features inside the outline; InterpError where it cannot be read, and where there is no map."""
    outline = read_outline(term.value, term.at)
    if collection.inside is None:
        raise InterpError("map: asks for the map of features, which there is of an SAE's features only.")
    return Answer(collection.inside(outline), None, lambda f: "stands inside the outline")


def read_outline(text: str, at: int = 0) -> np.ndarray:
    """The corners, shares of width and height, shape (P, 2).

    Raises InterpError for fewer than three corners, more than MOST, and for what is no number of 0 to 1000.
    """
    try:
        corners = [tuple(map(float, corner.split(","))) for corner in text.split(";")]
        outline = np.array(corners, dtype=np.float64).reshape(len(corners), 2)
    except ValueError:
        outline = np.full((3, 2), np.nan)
    if not (3 <= len(outline) <= MOST and ((outline >= 0) & (outline <= SCALE)).all()):
        raise InterpError(
            f"map:{text[:40]} is no outline (at character {at}); write three to {MOST} corners as map:X,Y;X,Y;X,Y, each number "
            f"from 0 to {SCALE}."
        )
    return outline / SCALE
