"""What the first page shows: the SAE's figures, features worth seeing, and what was meant by what was typed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.commands.opening import open_sae
from interp.commands.options import Sae

if TYPE_CHECKING:
    from interp.index.glimpse import Glimpse
    from interp.render.look import Look, Unseen
    from interp.views import Spectrum
    from interp.workbench.shelf import Shelved, Shown

STRETCH = 7
"""Tokens of a text shown before a peak, and after it."""
WORDS = 4
"""So many words are taken for a text to run the model on, fewer for something to look for."""


@dataclass(frozen=True)
class Meant:
    """What a line in the one box is."""

    query: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """A feature that fires on a text, where it is strongest there."""

    feature: int
    name: str
    value: float
    """Its largest activation: on the text, or at the token that was asked for."""
    top: float
    """Its largest activation in the index, or here if that is more."""
    tokens: list[str]
    """The stretch around its peak."""
    values: list[float]
    peak: int


def headline(sae: Sae) -> "list[Shown]":
    """The SAE's figures, each with its interval. Raises InterpError when its report is damaged."""
    from interp.workbench.shelf import headline as known

    return known(open_sae(sae))


def indexed(sae: Sae) -> bool:
    """Whether the SAE has an index, which says where its features fire."""
    return open_sae(sae).index_or_none() is not None


def shelf(sae: Sae) -> "list[Shelved]":
    """Features worth seeing, chosen by evidence. Raises InterpError when the SAE has no index."""
    from interp.workbench.shelf import shelf as chosen

    return chosen(open_sae(sae))


def glimpses(sae: Sae, features: list[int]) -> "list[Glimpse | None]":
    """Of each feature, a few words of its strongest example that may be shown; None where there is none.

    Raises InterpError when the SAE has no index.
    """
    from interp.index.glimpse import glimpse

    index = open_sae(sae).index
    return [glimpse(index, feature) for feature in features]


def look_at_glimpses(sae: Sae, features: list[int], seen: "Sequence[Glimpse | None]") -> "list[Look | Unseen | None]":
    """What the glimpse of each feature looks like, where it is of a picture or clip; None of text, and where there is none.

    Raises InterpError when the SAE has no index.
    """
    from interp.workbench.looking import looks_at

    bench = open_sae(sae)
    if bench.index.kind == "text":
        return [None] * len(features)
    pairs = zip(features, seen, strict=True)
    return [None if each is None else looks_at(bench, f, [each.position]).get(each.position) for f, each in pairs]


def firing(sae: Sae, spectrum: "Spectrum", *, token: int | None = None, count: int = 10) -> list[Firing]:
    """The features that are strongest on a text, or at one of its tokens, each relative to its own largest in the index.

    Raises InterpError when the SAE has no index.
    """
    import numpy as np

    bench = open_sae(sae)
    largest_F = bench.index.features["max"].to_numpy()
    here = spectrum.rows == token if token is not None else np.ones(len(spectrum.rows), dtype=bool)
    feature_E, value_E = spectrum.features[here], spectrum.values[here]
    order = np.argsort(-value_E / np.maximum(largest_F[feature_E], 1e-6), kind="stable")
    chosen = list(dict.fromkeys(feature_E[order].tolist()))[:count]
    found = []
    for feature, row in zip(chosen, spectrum.matrix(chosen), strict=True):
        peak = int(row.argmax()) if token is None else token
        low, high = min(max(1, peak - STRETCH), peak), min(len(row), peak + STRETCH + 1)
        found.append(
            Firing(
                feature=feature,
                name=bench.name(feature),
                value=float(row[peak]),
                top=max(float(largest_F[feature]), float(row.max())),
                tokens=list(spectrum.tokens[low:high]),
                values=row[low:high].tolist(),
                peak=peak - low,
            )
        )
    return found


def meant(typed: str) -> Meant:
    """Whether a line is a search or a text: a key of the query language or few words make a search, a sentence a text."""
    from interp.search.query import KEYS

    line = typed.strip()
    keyed = re.search(r"(?:^|[\s(])(?:not\s+)?([a-z]+)(?:@[\w,-]+)?:\S", line)
    if keyed and keyed[1] in KEYS:
        return Meant(query=line)
    if re.search(r"[.!?…:]['\"”’)]*$", line) or len(line.split()) >= WORDS or "\n" in line:
        return Meant(text=typed)
    return Meant(query=line)
