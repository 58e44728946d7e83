"""The query language: `key:value` pairs and words, all of which must hold.

token:/^ ?(Paris|Rome)$/ density:1e-5..1e-2 promotes:" France" sort:density european capitals
"""

import re
from dataclasses import dataclass

from interp.types import InterpError, unknown

KEYS = {
    "text": "label, note or automatic description contains these words",
    "token": "fires on tokens that match /regex/ or contain the text",
    "fires": 'is active on this text, strongest first: fires:"some text"',
    "promotes": "raises the logits of this token most",
    "suppresses": "lowers the logits of this token most",
    "like": "decoder row near this feature's",
    "density": "share of tokens it fires on: low..high",
    "max": "largest activation: low..high",
    "status": "label status",
    "author": "label author",
    "dead": "never fires in the index: yes or no",
    "labelled": "has a label: yes or no",
    "sort": "order: score, feature, density, max or label",
}
SORTS = ("score", "feature", "density", "max", "label")


@dataclass(frozen=True)
class Term:
    """One condition."""

    key: str
    value: str
    regex: bool = False


@dataclass(frozen=True)
class Query:
    """Conditions that must all hold, and the order of the answers."""

    terms: tuple[Term, ...]
    sort: str = "score"


_TERM = re.compile(
    r"""(?:(?P<key>[A-Za-z_]+):)?
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | /(?P<regex>(?:[^/\\]|\\.)+)/ | (?P<bare>[^\s"]+) )(?=\s|$)""",
    re.VERBOSE,
)


def parse(text: str) -> Query:
    """The query that a text means; InterpError points at the place of a mistake and names the keys."""
    terms, sort, at = [], "score", 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TERM.match(text, at)
        if match is None:
            raise InterpError(
                f"the query cannot be read from character {at + 1}: {text[at:]!r}. Close the quote or /regex/; the keys are {', '.join(KEYS)}."
            )
        key = (match["key"] or "text").lower()
        if key not in KEYS:
            raise unknown(f"search key (at character {at + 1})", key, KEYS)
        if match["regex"] is not None:
            if key != "token":
                raise InterpError(f"{key}: takes no /regex/ (at character {at + 1}); token: does.")
            terms.append(Term(key, match["regex"].replace(r"\/", "/"), regex=True))
        else:
            value = match["bare"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
            if key == "sort":
                if value not in SORTS:
                    raise unknown("sort order", value, SORTS)
                sort = value
            else:
                terms.append(Term(key, value))
        at = match.end()
    return Query(tuple(terms), sort)


def span(term: Term) -> tuple[float, float]:
    """The bounds in `low..high`, either of which may be left out; a single number is a lower bound."""
    low, dots, high = term.value.partition("..")
    try:
        bounds = float(low) if low else 0.0, float(high) if dots and high else float("inf")
    except ValueError:
        raise InterpError(
            f"{term.key}:{term.value} is no range; write {term.key}:1e-5..1e-2, either end may be left out."
        ) from None
    if not bounds[0] <= bounds[1]:
        raise InterpError(f"{term.key}:{term.value} is empty: its low end is above its high end.")
    return bounds


def yes(term: Term) -> bool:
    if term.value.lower() not in ("yes", "no", "true", "false"):
        raise InterpError(f"{term.key}:{term.value} is neither yes nor no.")
    return term.value.lower() in ("yes", "true")
