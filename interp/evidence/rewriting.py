"""Minimal edits of a stretch of text around one token of it, the peak.

near, far   the peak swapped for a token that is like it, or for one that is not (`swaps.py`)
case        the case of the peak's word changed: a capital where there was none, else small letters
number      the peak's word in the plural, or in the singular where it is a plural (nouns of WordNet)
negation    "not" put before the peak's word; or a "not" or "never" that stands shortly before it taken out
cut 8       all but 8 tokens before the peak taken off
cut 2       all but 2
shuffled    the words before the peak's in another order
shorter     no edit, a quarter of the context before the peak taken off: what a shorter window does by itself

Of English only: number and negation. None translates, for no dictionary comes with the texts that are known here.

Of an edited text it is known where what became of the peak ends: the token in which that lies is its peak.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from interp.predicates.wordnet import WordNet

CUTS = (8, 2)
SHORTER = "shorter"
NEGATION_WITHIN = 60
"""Characters before the peak's word in which a negation is looked for."""
FEWEST_WORDS = 3
"""Before the peak, below which no order is another one."""
KINDS: dict[str, str] = {
    "near": "its token swapped for one that is like it",
    "far": "its token swapped for one that is not",
    "case": "the case of its word changed",
    "number": "its word in the plural or the singular",
    "negation": "a negation put before it or taken out",
    "cut 8": "all but 8 tokens before it taken off",
    "cut 2": "all but 2 tokens before it taken off",
    "shuffled": "the words before it in another order",
}
"""By name, in words."""
_NEGATIONS = (
    (re.compile(r"\b([Cc]an)(?:not|['’]t)(?!\w)"), r"\1"),
    (re.compile(r"\b([Ww])on['’]t(?!\w)"), r"\1ill"),
    (re.compile(r"n['’]t(?!\w)"), ""),
    (re.compile(r"\b(?:not|never) "), ""),
)
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh)$")
_Y = re.compile(r"[^aeiou]y$")


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A text and where its peak ends."""

    text: bytes
    """UTF-8; where a window was cut through a character, what is left of it."""
    end: int
    """Bytes up to the end of the peak."""
    was: str = ""
    """What stood there, for a reader; empty where nothing was taken out, and where all of the context changed."""
    became: str = ""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of text as it is, token by token."""

    before: Sequence[bytes]
    peak: bytes
    after: Sequence[bytes]

    @property
    def untouched(self) -> Rewritten:
        return self.last(len(self.before))

    def last(self, count: int, peak: bytes | None = None) -> Rewritten:
        """With so many tokens before the peak, and perhaps another token there."""
        before = _from_a_character(b"".join(self.before[len(self.before) - count :]))
        here = self.peak if peak is None else peak
        after = b"".join(self.after)
        said = ("", "") if peak is None else (shown(self.peak), shown(peak))
        return Rewritten(text=before + here + after, end=len(before) + len(here), was=said[0], became=said[1])

    def swapped(self, peak: bytes) -> Rewritten:
        """With another token at the peak."""
        return self.last(len(self.before), peak)


def shown(raw: bytes) -> str:
    """Bytes as a reader sees them."""
    return raw.decode("utf-8", errors="backslashreplace")


def _from_a_character(raw: bytes) -> bytes:
    """Without the rest of a character that was cut through."""
    start = next((i for i, byte in enumerate(raw) if byte & 0xC0 != 0x80), len(raw))
    return raw[start:]


def rewrite(
    window: Window, draw: np.random.Generator, *, english: bool, nouns: WordNet | None
) -> Iterator[tuple[str, Rewritten]]:
    """(kind, edited text) of the edits that this text has, but for swaps.

    `nouns` is None where WordNet is not here, and no number is then changed.
    """
    for count in CUTS:
        if count < len(window.before):
            yield f"cut {count}", window.last(count)
    whole = window.untouched
    try:
        head, text = whole.text[: whole.end].decode("utf-8"), whole.text.decode("utf-8")
        begins, ends = len(whole.text[: whole.end - len(window.peak)].decode("utf-8")), len(head)
    except UnicodeDecodeError:  # the peak is a part of a character, and no word can be told
        return
    span = _word(text, begins, ends)
    ordered = shuffled(text[: span[0] if span else begins], draw)
    if ordered is not None:
        yield "shuffled", replace(_spliced(text, ends, 0, len(ordered), ordered), was="", became="")
    if span is None:
        return
    start, stop = span
    word = text[start:stop]
    other = word.lower() if word != word.lower() else word[0].upper() + word[1:]
    if other != word and len(other) == len(word):
        yield "case", _spliced(text, ends, start, stop, other)
    if english and nouns is not None and ends >= stop:
        other = other_number(word, nouns)
        if other:
            yield "number", _spliced(text, ends, start, stop, other)
    if english:
        yield from _negated(text, ends, start)


def shorter(window: Window) -> Rewritten | None:
    """The text with a quarter less before its peak; None where nothing stands there."""
    count = len(window.before) - max(len(window.before) // 4, 1)
    return window.last(count) if count >= 0 else None


def _spliced(text: str, ends: int, start: int, stop: int, new: str) -> Rewritten:
    """The text with something new from `start` to `stop`, before its peak's end or around it; that moves with the rest."""
    changed, moved = text[:start] + new + text[stop:], ends + len(new) - (stop - start)
    return Rewritten(text=changed.encode(), end=len(changed[:moved].encode()), was=text[start:stop], became=new)


def _word(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """Where the word begins and ends that has a letter of this span; None where it has none."""
    first = next((i for i in range(start, stop) if text[i].isalpha()), None)
    if first is None:
        return None
    last = first
    while first > 0 and text[first - 1].isalpha():
        first -= 1
    while last + 1 < len(text) and text[last + 1].isalpha():
        last += 1
    return first, last + 1


def shuffled(text: str, draw: np.random.Generator) -> str | None:
    """The words in another order, spaces where they are; None where there is no other order."""
    parts = re.split(r"(\s+)", text)  # words at even places, spaces between
    places = [i for i in range(0, len(parts), 2) if parts[i]]
    words = [parts[i] for i in places]
    if len(words) < FEWEST_WORDS or len(set(words)) < 2:
        return None
    other = words
    while other == words:
        other = [words[i] for i in draw.permutation(len(words))]
    for place, word in zip(places, other, strict=True):
        parts[place] = word
    return "".join(parts)


def other_number(word: str, nouns: WordNet) -> str:
    """The plural of a noun, or the singular of a plural; "" for what is no noun of WordNet or has no other form."""
    small = word.lower()
    lemma = _singular(small, nouns)
    if not lemma:
        return ""
    other = lemma if lemma != small else _plural(small, nouns)
    if other == small:
        return ""
    return (
        other.capitalize() if word[0].isupper() and word[1:].islower() else other.upper() if word.isupper() else other
    )


def _singular(word: str, nouns: WordNet) -> str:
    known, irregular = nouns.senses["noun"], nouns.exceptions["noun"].get(word, "")
    if irregular in known:
        return irregular
    for end, base in (("ies", "y"), ("es", ""), ("s", "")):
        stem = word.removesuffix(end) + base
        regular = word.endswith(end) and not word.endswith("ss") and len(stem) > 2
        if regular and stem in known and _regular_plural(stem) == word:
            return stem
    return word if word in known and len(word) > 2 else ""


def _plural(word: str, nouns: WordNet) -> str:
    irregular = _irregular(nouns).get(word)
    return irregular or _regular_plural(word)


def _regular_plural(word: str) -> str:
    if _Y.search(word):
        return word[:-1] + "ies"
    return word + ("es" if _SIBILANT.search(word) else "s")


@lru_cache(maxsize=1)
def _irregular(nouns: WordNet) -> dict[str, str]:
    """By word, its irregular plural: of several the first in WordNet's list."""
    plurals: dict[str, str] = {}
    for plural, word in nouns.exceptions["noun"].items():
        plurals.setdefault(word, plural)
    return plurals


def _negated(text: str, ends: int, start: int) -> Iterator[tuple[str, Rewritten]]:
    """A negation shortly before the word that begins at `start` taken out; where there is none, one put before it."""
    low = max(start - NEGATION_WITHIN, 0)
    found = [
        (match, match.expand(new)) for negation, new in _NEGATIONS for match in negation.finditer(text, low, start)
    ]
    if found:
        match, new = max(found, key=_end)
        yield "negation", _spliced(text, ends, match.start(), match.end(), new)
    elif start == 0 or text[start - 1].isspace():
        yield "negation", _spliced(text, ends, start, start, "not ")


def _end(one: tuple[re.Match[str], str]) -> tuple[int, int]:
    """The last one; of two that end together, the longer."""
    return one[0].end(), -one[0].start()
