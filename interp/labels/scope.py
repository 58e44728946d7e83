"""Where a label is true: its claim tried language by language, source by source, form by form.

In each part of the testing documents: at which share of the feature's firings the claim holds (precision), at which share of
its places the feature fires (recall). It *holds* there when the lower end of the precision's 95 % bootstrap over documents is
above HALF, *does not* when the upper end is below, and is *unclear* between; with fewer than LEAST firings or LEAST_DOCUMENTS
documents there is *too little text*, and no interval, which is said and not passed over.

Axes    P testing position, D document.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.labels.testing import LEAST, LEAST_DOCUMENTS, Figure, Fired, Ground
from interp.predicates import Text
from interp.predicates.language import LANGUAGES
from interp.predicates.predicate import LANGUAGE_NAMES
from interp.render.words import counted

HALF = 0.5
LIST = 1 / 16
"""Lines a token from which on a text is a list."""
SIGNS = 0.04
"""Signs of code a token that code has at least."""
PARTS = ("language", "form", "source")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A label in one part of the text."""

    part: str
    """language, form or source."""
    value: str
    fires: int
    documents: int
    holds: int
    """Places where the claim holds."""
    precision: Figure
    recall: Figure
    verdict: str
    """holds, does not, unclear or too little text."""


def forms(text: Text) -> list[str]:
    """Of each document, what it looks like: code, list or prose. A text of short lines is no code for its lines alone."""
    of, count = text.vocabulary.of_class, len(text.split_D)

    def share(which_V: np.ndarray) -> np.ndarray:
        found = np.bincount(text.document_N[which_V[text.token_N] & text.kept_N], minlength=count)
        return found / np.maximum(np.bincount(text.document_N[text.kept_N], minlength=count), 1)

    signs_D = share(of("underscore") | of("operator") | of("opening bracket"))
    code_D = (text.values["language"][1] == LANGUAGES.index("code")) & (signs_D >= SIGNS)
    list_D = share(of("newline")) > LIST
    return ["code" if code else "list" if lines else "prose" for code, lines in zip(code_D, list_D, strict=True)]


def parts(text: Text) -> dict[str, tuple[Sequence[str], np.ndarray]]:
    """By kind of part: its values, and the number of each document's (-1: not known)."""
    language, source = text.values["language"], text.values["source"]
    form_D, known = forms(text), ("prose", "code", "list")
    return {
        "language": ([LANGUAGE_NAMES[name] for name in language[0]], language[1]),
        "form": (known, np.array([known.index(form) for form in form_D])),
        "source": source,
    }


def scope(
    fired: Fired, holds_P: np.ndarray, ground: Ground, of: Mapping[str, tuple[Sequence[str], np.ndarray]]
) -> list[Scope]:
    """A label in every part of the testing documents that there is; `of` is what `parts` gives."""
    hit_D = ground.by_document(fired.place_M, holds_P[fired.place_M].astype(np.float32))
    fires_D, holds_D = ground.by_document(fired.place_M), ground.by_document(np.flatnonzero(holds_P))
    document_D = np.unique(ground.text.document_N[ground.position_P])
    return [_one(part, value, own_D, hit_D, fires_D, holds_D, ground) for part, value, own_D in _each(of, document_D)]


def _each(
    of: Mapping[str, tuple[Sequence[str], np.ndarray]], document_D: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    for part in PARTS:
        values, number = of[part]
        for place, value in enumerate(values):
            own_D = number[document_D] == place
            if own_D.any():
                yield part, value, own_D


def _one(
    part: str,
    value: str,
    own_D: np.ndarray,
    hit_D: np.ndarray,
    fires_D: np.ndarray,
    holds_D: np.ndarray,
    ground: Ground,
) -> Scope:
    hit, fires, holds = hit_D * own_D, fires_D * own_D, holds_D * own_D
    count, documents = int(fires.sum()), int((fires > 0).sum())
    precision = float(hit.sum() / max(fires.sum(), 1)), math.nan, math.nan
    recall = float(hit.sum() / max(holds.sum(), 1)), math.nan, math.nan
    if judged(count, documents):
        precision = ground.interval(precision[0], hit, fires)
        recall = ground.interval(recall[0], hit, holds)
    return Scope(
        part=part,
        value=value,
        fires=count,
        documents=documents,
        holds=int(holds.sum()),
        precision=precision,
        recall=recall,
        verdict=_verdict(count, documents, precision),
    )


def judged(fires: int, documents: int) -> bool:
    """Whether so many firings in so many documents are enough to judge by."""
    return fires >= LEAST and documents >= LEAST_DOCUMENTS


def _verdict(fires: int, documents: int, precision: Figure) -> str:
    if not judged(fires, documents):
        return "too little text"
    _, low, high = precision
    return "holds" if low > HALF else "does not" if high < HALF else "unclear"


def sentence(scopes: Sequence[Scope], part: str = "language") -> str:
    """Where it holds and where not, in words: "holds in English (n 120) and French (n 33), not in Spanish (n 25); too little
    text in code (n 3)"."""
    said = []
    for verdict, words in (
        ("holds", "holds in"),
        ("does not", "not in"),
        ("unclear", "unclear in"),
        ("too little text", "too little text in"),
    ):
        names = [f"{one.value} (n {one.fires})" for one in scopes if one.part == part and one.verdict == verdict]
        if names:
            said.append(f"{words} {_listed(names)}")
    return "; ".join(said) if said else f"no {part} of the {counted(len(scopes), 'part')} has any of its firings"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
