"""A claim about positions, written as a search is: what a label says of a feature, so that it can be tried anywhere.

    token:/^ ?(river|lake)s?$/ not language:fr
    is:"sentence start" (source:news or source:essays)

`holds` says at which positions it is true. `keys.HELP` has the keys, PLACES and `tokens.CLASSES` what `is:` takes,
`syntax.KINDS` what `syntax:` does. A mined `Predicate` writes itself as a claim (`Predicate.query`).

Axes    P position that is asked about, V vocabulary, D document.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from interp.grammar import And, Node, Not, Term, read, terms
from interp.predicates import within
from interp.predicates.keys import CLAIM
from interp.predicates.language import LANGUAGES
from interp.predicates.predicate import LANGUAGE_NAMES, SHOWN
from interp.predicates.regex import check, matching
from interp.predicates.syntax import BIT, KINDS
from interp.predicates.text import Around
from interp.predicates.tokens import CLASSES
from interp.predicates.windows import subjects
from interp.predicates.wordnet import is_here, named
from interp.predicates.written import around_matches
from interp.render import visible
from interp.types import InterpError, unknown

LONGEST = 4_000
"""Characters of a claim."""


@dataclass(frozen=True)
class Claim:
    """A condition on positions; `str` writes it so that `read_claim` reads it back."""

    root: Node

    def __str__(self) -> str:
        return str(self.root)

    def holds(self, around: Around) -> np.ndarray:
        """True at the positions where it holds, shape (P,)."""
        return _holds(self.root, around)

    @property
    def sentence(self) -> str:
        """What it says, in plain words: "the token is ‘ river’ or ‘ lake’, and the document is not in French"."""
        return _sentence(self.root)


def read_claim(text: str) -> Claim:
    """The claim that a text means.

    Raises InterpError for one that cannot be read, says nothing or names what does not exist.
    """
    if len(text) > LONGEST:
        raise InterpError(f"the claim has {len(text):,} characters; {LONGEST:,} are the most.")
    return check_claim(read(text, CLAIM)[0])


def check_claim(root: Node) -> Claim:
    """A condition as a claim; InterpError when it says nothing or names what does not exist."""
    found = terms(root)
    if not found:
        raise InterpError("the claim says nothing; write a condition such as token:/^ ?river$/.")
    for term in found:
        _check(term)
    return Claim(root)


def _check(term: Term) -> None:
    """Raises InterpError when what a term names does not exist."""
    at = f"(At character {term.at}.)"
    if term.key in CLAIM.regex:
        check(term)
    if term.key in CLAIM.options:
        _distance(term)
    if term.key == "is" and term.value not in (*PLACES, *CLASSES):
        raise unknown("is:", term.value, [*PLACES, *CLASSES], try_=at)
    if term.key == "kind" and is_here():  # else it is what it says, and cannot be tried: that is said where it is
        named(term.value)
    if term.key == "syntax" and term.value not in KINDS:
        raise unknown("syntax:", term.value, KINDS, try_=at)
    if term.key == "language" and term.value not in LANGUAGES:
        raise unknown("language:", term.value, LANGUAGES, try_=at)


def _distance(term: Term) -> int:
    """How many tokens away a term looks; InterpError when that is no small whole number."""
    if term.option and not re.fullmatch(r"[1-9]|1[0-6]", term.option):
        raise InterpError(f"{term.key}@{term.option}: looks 1 to 16 tokens away (at character {term.at}).")
    return int(term.option or 1)


def known_keys() -> dict[str, str]:
    """What a claim can ask for: its keys, and the values of `is:` and `syntax:`, each in words."""
    said = {f"{key}": about for key, about in CLAIM.help.items()}
    places = {name: about for name, (about, _) in PLACES.items()} | {
        name: about for name, (_, about) in CLASSES.items()
    }
    for key, values in (("is", places), ("syntax", KINDS)):
        said |= {f'{key}:"{name}"' if " " in name else f"{key}:{name}": about for name, about in values.items()}
    return said


# ---- where it holds ----


def _holds(node: Node, around: Around) -> np.ndarray:
    if isinstance(node, Term):
        return HOLDS[node.key](node, around)
    if isinstance(node, Not):
        return ~_holds(node.item, around)
    out = np.full(len(around), isinstance(node, And))
    for item in sorted(node.items, key=_reads):
        left = np.flatnonzero(out == isinstance(node, And))  # of the others nothing is left to ask
        out[left] = _holds(item, around.take(left))
    return out


def _reads(node: Node) -> bool:
    """Whether it reads text by a sentence encoder, which takes long, and is asked last."""
    return any(term.key == "about" for term in terms(node))


def _at(offset: Callable[[Term], int]) -> Callable[[Term, Around], np.ndarray]:
    def holds(term: Term, around: Around) -> np.ndarray:
        return np.asarray(around.text.vocabulary.matching(term)[around.at(offset(term))])

    return holds


def _near(term: Term, around: Around) -> np.ndarray:
    token_V = np.flatnonzero(around.text.vocabulary.matching(term)[:-1])
    return around.near(around.text.places(token_V.tolist()))


def _context(term: Term, around: Around) -> np.ndarray:
    return np.asarray(around_matches(term, around.text.written)[0][around.position_P])


def _about(term: Term, around: Around) -> np.ndarray:
    return subjects(around.text).holds(term.value, around.position_P)


def _is(term: Term, around: Around) -> np.ndarray:
    if term.value in PLACES:
        return PLACES[term.value][1](around)
    return np.asarray(around.text.vocabulary.of_class(term.value)[around.at(0)])


def _kind(term: Term, around: Around) -> np.ndarray:
    return np.asarray(around.text.vocabulary.kind_of(term.value)[around.at(0)] & ~around.inside_word)


def _syntax(term: Term, around: Around) -> np.ndarray:
    return np.asarray((around.text.syntax_N[around.position_P] & BIT[term.value]) > 0)


def _value(term: Term, around: Around) -> np.ndarray:
    """Of a document's column: it is this value, or matches."""
    if term.key == "language":
        known, value_D = around.text.values["language"]
        return np.asarray(value_D[around.document] == known.index(term.value))
    held = around.text.columns.get(term.key)
    if held is None:
        raise InterpError(f"{term.key}: asks what this text does not say of its documents (at character {term.at}).")
    if term.regex or term.key == "title":
        true_D = matching(term, [str(one or "") for one in held])
    else:
        true_D = np.array([str(one or "").lower() == term.value.lower() for one in held], dtype=bool)
    return np.asarray(true_D[around.document])


HOLDS: dict[str, Callable[[Term, Around], np.ndarray]] = {
    "token": _at(lambda term: 0),
    "before": _at(lambda term: -_distance(term)),
    "next": _at(_distance),
    "near": _near,
    "context": _context,
    "about": _about,
    "is": _is,
    "kind": _kind,
    "syntax": _syntax,
    "language": _value,
    "source": _value,
    "topic": _value,
    "title": _value,
}


def _document_start(around: Around) -> np.ndarray:
    return np.asarray(around.text.first_D[around.document] == around.position_P)


def _start_after(before: str) -> Callable[[Around], np.ndarray]:
    """Where a token that is no mere space follows one that matches, or begins its document."""
    term = Term("before", before, regex=True)

    def holds(around: Around) -> np.ndarray:
        solid = HOLDS["token"](Term("token", r"\S", regex=True), around)
        return solid & (_document_start(around) | HOLDS["before"](term, around))

    return holds


PLACES: dict[str, tuple[str, Callable[[Around], np.ndarray]]] = {
    "inside word": ("a part of a longer word", lambda around: around.inside_word),
    "word start": ("the first part of a word", within.word_start),
    "word end": ("the last part of a word", within.word_end),
    "number start": ("the first digit of a number", within.number_start),
    "number inside": ("a later digit of a number", within.number_inside),
    "year start": ("the first digit of a year", within.year_start),
    "quote start": ("the first after an opening quotation mark", within.quote_start),
    "document start": ("the first of its document", _document_start),
    "sentence start": ("the first after the end of a sentence or a line", _start_after(r"""[.!?]["'”’»)\]]*\s*$|\n""")),
    "line start": ("the first of a line", _start_after(r"\n[ \t]*$")),
}
"""By name: what it says of the token, and where it is so."""


# ---- in words ----


def _sentence(node: Node, negated: bool = False) -> str:
    if isinstance(node, Term):
        return _said(node, negated)
    if isinstance(node, Not):
        return _sentence(node.item, not negated)
    joined = isinstance(node, And) != negated  # of two that must not both hold, one does not
    parts = [_sentence(item, negated) for item in node.items]
    return (", and " if joined else ", or ").join(parts)


def _said(term: Term, negated: bool) -> str:
    no = " not" if negated else ""
    if term.key in ("is", "syntax"):
        what = PLACES[term.value][0] if term.value in PLACES else CLASSES.get(term.value, ("", ""))[1]
        return f"the token is{no} {what or 'part of ' + KINDS[term.value] + ' in Python source'}"
    if term.key == "kind":
        return f"the token is{no} a word for {term.value}"
    if term.key == "about":
        return f"the text around it is{no} about {term.value}"
    if term.key == "language":
        return f"the document is{no} in {LANGUAGE_NAMES[term.value]}"
    subject = _SUBJECTS[term.key].format(n=_ORDINALS.get(term.option, f"{term.option}th"))
    if term.key == "near" and negated:
        subject, no = "no " + subject.removeprefix("a "), ""
    if term.key in ("source", "topic") and not term.regex:
        return f"{subject} is{no} {term.value}"
    words = _words(term)
    if words and term.key != "context":
        return f"{subject} is{no} {words}"
    verb = ("does not match" if no else "matches") if term.regex else ("does not have" if no else "has")
    return f"{subject} {verb} {f'/{term.value}/' if term.regex else f'‘{visible(term.value)}’'}"


_ORDINALS = {"": "", "1": "", "2": "second ", "3": "third "}
_SUBJECTS = {
    "token": "the token",
    "before": "the {n}token before it",
    "next": "the {n}token after it",
    "near": "a token within 16",
    "context": "the text around it",
    "source": "the document's source",
    "topic": "the document's topic",
    "title": "the document's title",
}
_SIGNS = {"n": "\n", "t": "\t", "r": "\r"}
_LISTED = re.compile(
    r"\^(?P<space> \?)?(?:\(\?:|\()?(?P<words>[^()\[\]{}*+?.^$\\]*(?:\\(?:[^\w]|[ntr])[^()\[\]{}*+?.^$\\]*)*)\)?\$"
)


def _words(term: Term) -> str:
    """The words of a regular expression that is no more than a list of them; "" where it is more."""
    match = _LISTED.fullmatch(term.value) if term.regex else None
    if match is None or not match["words"]:
        return ""
    words = [re.sub(r"\\(.)", lambda sign: _SIGNS.get(sign[1], sign[1]), word) for word in match["words"].split("|")]
    shown = [f"‘{visible(word)}’" for word in words[:SHOWN]]
    if len(words) > SHOWN:
        return f"one of {len(words)} such as {', '.join(shown)}"
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
