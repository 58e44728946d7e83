"""What a token is by itself: its word, its class, and how it joins the tokens beside it.

Classes are regular expressions (RE2) over a token's text, so that each can be asked for as `token:/…/`. The list is short on
purpose: what a reader would name without thinking. Any other set of tokens is written out (kind `words`).

Axes    V vocabulary, C class.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.grammar import Term
from interp.predicates.regex import check
from interp.predicates.wordnet import named, wordnet


def _words(listed: str) -> str:
    """A regular expression for one of the words, in either case."""
    return r"^ ?(?i:" + "|".join(listed.split()) + r")$"


CLASSES: dict[str, tuple[str, str]] = {
    "digit": (r"^ ?\p{Nd}+$", "digits"),
    "capitalised": (r"^ ?\p{Lu}\p{Ll}+$", "a word or piece that begins with a capital"),
    "capitals": (r"^ ?\p{Lu}{2,}$", "letters in capitals"),
    "letter": (r"^ ?\p{L}$", "a single letter"),
    "newline": (r"\n", "a line's end"),
    "spaces": (r"^[ \t]+$", "spaces alone"),
    "comma": (r"^ ?,$", "a comma"),
    "sentence end": (r"^[.!?]+$", "the end of a sentence"),
    "colon": (r"^ ?[:;]$", "a colon or semicolon"),
    "quote": (r"""^ ?[rbf]?(?:["'«»“”‘’]+|`+)$""", "a quotation mark"),
    "opening bracket": (r"^ ?[\p{L}\p{P}]?[(\[{<]+$", "an opening bracket"),
    "closing bracket": (r"^ ?[)\]}>]+[.,:;]?$", "a closing bracket"),
    "dash": (r"^ ?[-–—]+$", "a hyphen or dash"),
    "punctuation": (r"^ ?\p{P}+$", "punctuation"),
    "operator": (r"^ ?[-=+*/<>|&^%~@#$\\!]+$", "an operator or sign of code"),
    "underscore": (r"^ ?_+", "an underscore"),
    "keyword": (
        _words("def class return if else elif for while import from try except raise with as lambda yield pass self "
               "None True False isinstance assert finally global break continue print len str int"),
        "a keyword or common name of code",
    ),
    "article": (_words("the a an this that these those"), "an English article or demonstrative"),
    "preposition": (
        _words("of in on at by for with from to into over under between through during against among across"),
        "an English preposition",
    ),
    "pronoun": (
        _words("i you he she it we they me him her us them his hers its our their my your who whom"),
        "an English pronoun",
    ),
    "auxiliary": (
        _words("is are was were be been being has have had do does did can could will would shall should may might must"),
        "an English auxiliary verb",
    ),
    "conjunction": (
        _words("and or but nor so yet because although while whereas if unless than as when where"),
        "an English conjunction",
    ),
    "French function word": (
        _words("le la les un une des du de et est en dans qui que pour par sur au aux avec ce cette son sa ses ou il elle"),
        "a French function word",
    ),
    "Spanish function word": (
        _words("el la los las un una unos unas de del y es en que por con para su sus al se lo como o más fue"),
        "a Spanish function word",
    ),
    "month": (
        _words("january february march april may june july august september october november december"),
        "an English month",
    ),
    "number word": (
        _words("one two three four five six seven eight nine ten hundred thousand million billion first second third"),
        "an English number word",
    ),
    "-ing": (r"\p{Ll}ing$", "letters that end in -ing"),
    "-ed": (r"\p{Ll}ed$", "letters that end in -ed"),
    "-ly": (r"\p{Ll}ly$", "letters that end in -ly"),
    "-tion": (r"[ts]ions?$", "letters that end in -tion or -sion"),
    "-s": (r"^ \p{Ll}\p{Ll}\p{Ll}+s$", "a word that ends in -s"),
    "accented": (r"[\x{C0}-\x{24F}]", "an accented letter"),
    "other script": (r"[\p{Greek}\p{Cyrillic}\p{Hebrew}\p{Arabic}\p{Devanagari}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]",
                     "letters of another script than Latin"),
    "part of a character": (r"\\x[0-9a-f]{2}", "bytes that are no whole character"),
}  # fmt: skip
"""By name: a regular expression and what it says in words."""

_BYTE = r"\\x[0-9a-f]{2}"
_HASHES = re.compile(r"^##(?=.)")
"""How WordPiece marks a token that goes on with a word."""
REMEMBERED = 128
"""Conditions on tokens whose answers are kept: a vocabulary is gone through in some five milliseconds."""
_ONE = r"(?:[^\\()\[\]{}*+?.^$|]|\\[!-/:-@\[-`{-~])+"
_LISTED = re.compile(rf"\^\(\?:({_ONE}(?:\|{_ONE})*)\)\$", re.DOTALL)
"""Whole tokens, listed as a mined predicate writes them: letters, escaped signs and bars between `^(?:` and `)$`."""


def _listed(term: Term) -> list[str] | None:
    """The texts that a condition lists; None for one that is more than a list."""
    match = _LISTED.fullmatch(term.value) if term.regex else None
    return None if match is None else [re.sub(r"\\(.)", r"\1", one) for one in re.findall(_ONE, match[1])]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens as they look, with what follows from that; one more than there are stands for "no token"."""

    texts: list[str]

    @property
    def nothing(self) -> int:
        """The number that stands for no token: before a text's first, after its last."""
        return len(self.texts)

    @cached_property
    def _bare(self) -> pa.Array:
        return pa.array([*(_HASHES.sub("", text) for text in self.texts), ""], pa.large_string())

    @cached_property
    def _written(self) -> pa.Array:
        return pa.array([*self.texts, ""], pa.large_string())

    def matching(self, term: Term) -> np.ndarray:
        """Which tokens match a condition, as search's `token:` reads it; "no token" never does. Shape (V + 1,).

        A regular expression that is a list of whole tokens is looked up; the last few others are remembered.
        """
        listed = _listed(term)
        if listed is not None:
            found = np.zeros(len(self.texts) + 1, dtype=bool)
            found[[token for text in listed for token in self._tokens_of.get(text, ())]] = True
            return found
        key = term.value, term.regex
        known = self._remembered.get(key)
        if known is None:
            known = np.asarray(pc.match_substring_regex(self._written, check(term)))
            while len(self._remembered) >= REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)), None)
            self._remembered[key] = known
        return known

    @cached_property
    def _remembered(self) -> dict[tuple[str, bool], np.ndarray]:
        return {}

    @cached_property
    def _tokens_of(self) -> dict[str, list[int]]:
        """By text, the tokens that look so."""
        of: dict[str, list[int]] = {}
        for token, text in enumerate(self.texts):
            of.setdefault(text, []).append(token)
        return of

    def _matches(self, pattern: str) -> np.ndarray:
        return np.asarray(pc.match_substring_regex(self._bare, pattern))

    @cached_property
    def classes_CV(self) -> np.ndarray:
        """Which tokens are of each class of CLASSES, in its order."""
        return np.stack([self._matches(pattern) for pattern, _ in CLASSES.values()])

    def of_class(self, name: str) -> np.ndarray:
        """Which tokens are of the class, shape (V + 1,)."""
        return np.asarray(self.classes_CV[list(CLASSES).index(name)])

    @cached_property
    def word_V(self) -> np.ndarray:
        """A number for each token's word: tokens that differ by case and spaces alone have the same."""
        folded = [text.strip(" ").lower() or text for text in self._bare.to_pylist()]
        number: dict[str, int] = {}
        return np.array([number.setdefault(text, len(number)) for text in folded])

    @cached_property
    def first_W(self) -> np.ndarray:
        """The first token of each word."""
        return np.unique(self.word_V, return_index=True)[1]

    @cached_property
    def content_V(self) -> np.ndarray:
        """Tokens that begin a word of at least four letters: those that say what a text is about."""
        return self._matches(r"^ \p{L}{4,}$") | self._matches(r"^\p{Lu}\p{L}{3,}$")

    def kind_of(self, name: str) -> np.ndarray:
        """Which tokens are whole words for a kind of this, by WordNet, in one of its senses of that name; shape (V + 1,).

        Raises InterpError for a name that WordNet has not, and when its package is not here.
        """
        found = np.zeros(len(self.kinds), dtype=bool)
        found[[token for synset in named(name) for token in self._tokens_of_kind.get(synset, ())]] = True
        return found

    @cached_property
    def _tokens_of_kind(self) -> dict[int, list[int]]:
        """By synset, the tokens that are words for a kind of it."""
        of: dict[int, list[int]] = {}
        for token, kinds in enumerate(self.kinds):
            for synset in kinds:
                of.setdefault(synset, []).append(token)
        return of

    @cached_property
    def kinds(self) -> list[frozenset[int]]:
        """What each token is a kind of, as a word of at least three letters; tokens that differ by case and spaces alike."""
        known, of = wordnet(), {}
        for text in dict.fromkeys(text.strip(" ").lower() for text in self._bare.to_pylist()):
            of[text] = known.kinds(text) if len(text) > 2 and text.isalpha() else frozenset()
        return [of[text.strip(" ").lower()] for text in self._bare.to_pylist()]

    @cached_property
    def _marked_by_hashes(self) -> bool:
        hashes = sum(1 for text in self.texts if _HASHES.match(text))
        return hashes > sum(1 for text in self.texts if text.startswith(" "))

    @cached_property
    def _joins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(begins with a letter, ends with one, begins with a capital, ends with a small one), shape (V + 1,) each.

        Bytes that are no whole character count as letters: they are parts of an accented or foreign one.
        """
        begins, ends = self._matches(rf"^(\p{{L}}|{_BYTE})"), self._matches(rf"(\p{{L}}|{_BYTE})$")
        if self._marked_by_hashes:
            goes_on = np.array([bool(_HASHES.match(text)) for text in self.texts] + [False])
            return begins & goes_on, ends, np.zeros_like(begins), np.zeros_like(begins)
        return begins, ends, self._matches(r"^\p{Lu}"), self._matches(r"\p{Ll}$")

    def joined(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Whether two tokens that follow each other are parts of one word.

        They are where a letter meets a letter; a small one before a capital parts the words of a name such as `getName`.
        """
        begins, ends, capital, small = self._joins
        return np.asarray(ends[left] & begins[right] & ~(small[left] & capital[right]))
