"""The query language: keys with values, joined by and, or, not and parentheses.

text:"European capitals" token:/^ ?(Paris|Rome)$/ promotes:" France" density:1e-5..1e-2 sort:score
(like:17 or with:17) not token:/^\\d/
"""

import re
from dataclasses import dataclass, field

from interp.types import InterpError, unknown

KEYS = {
    "text": 'label, note or automatic description means this; quoted, has these words: text:"European capitals"',
    "token": "fires on tokens that match /regex/ (/regex/i: in either case) or contain the text, with precision, recall "
    "and F1; where it is above its clean level, token@all: wherever it is active",
    "context": "fires where the text within 16 tokens matches /regex/ or contains the text, with the same",
    "fires": 'is active on this text, by maximum; fires@mean:"text" by mean, fires@3:"text" at token 3, @-1 at the last; '
    "above its clean level, fires@all: or fires@mean,all: however weakly",
    "only": 'is active on more tokens of this text than its density explains: only:"text"; above its clean level, '
    "only@all: however weakly",
    "promotes": 'raises the logit of this token: promotes:" France", or of tokens that match /regex/',
    "suppresses": "lowers the logit of this token",
    "like": "decoder row near this feature's: like:17",
    "with": "fires together with this feature: with:17",
    "neuron": "nearest to what this MLP neuron writes: neuron:LAYER.NUMBER",
    "contrast": "separates two sets of texts: contrast:A,B with A and B files, corpora, or FILE#column=value",
    "topic": "concentrated in documents with this topic; topic:source=python asks another column",
    "density": "share of tokens it fires on: low..high",
    "max": "largest activation: low..high",
    "status": "label status",
    "author": "label author",
    "dead": "never fires in the index: yes or no",
    "labelled": "has a label: yes or no",
    "sort": "order: score, feature, density, max or label",
}
REGEX_KEYS = ("token", "context", "promotes", "suppresses", "topic")
OPTION_KEYS = ("fires", "only", "token")
SORTS = ("score", "feature", "density", "max", "label")
FLAGS = {"i": "either case", "m": "^ and $ at every line", "s": ". is a line's end too"}
"""Letters behind a /regex/."""
DEEPEST = 50
"""Parentheses inside parentheses."""


@dataclass(frozen=True)
class Term:
    """One condition."""

    key: str
    value: str
    regex: bool = False
    quoted: bool = False
    option: str = ""
    """What stands behind the @ of a key."""
    at: int = field(default=0, compare=False)
    """Character of the query at which it begins, from 1."""

    def __str__(self) -> str:
        key = self.key + (f"@{self.option}" if self.option else "")
        if self.regex:
            return f"{key}:/" + re.sub(r"(\\.)|/", lambda m: m[1] or r"\/", self.value) + "/"
        if not self.quoted:
            return f"{key}:{self.value}"
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'{key}:"{escaped}"'


@dataclass(frozen=True)
class Not:
    """What does not meet a condition."""

    item: "Node"

    def __str__(self) -> str:
        return f"not {_group(self.item)}"


@dataclass(frozen=True)
class And:
    """What meets all of several; of none, everything."""

    items: "tuple[Node, ...]"

    def __str__(self) -> str:
        return " ".join(_group(item) for item in self.items)


@dataclass(frozen=True)
class Or:
    """What meets one of several."""

    items: "tuple[Node, ...]"

    def __str__(self) -> str:
        return " or ".join(_group(item) for item in self.items)


Node = Term | Not | And | Or


def _group(item: Node) -> str:
    return f"({item})" if isinstance(item, And | Or) else str(item)


@dataclass(frozen=True)
class Query:
    """A condition and the order of the answers; `str` writes it so that `parse` reads it back."""

    root: Node
    sort: str = "score"

    def __str__(self) -> str:
        return f"{self.root}" + ("" if self.sort == "score" else f" sort:{self.sort}").replace("  ", " ")

    @property
    def terms(self) -> tuple[Term, ...]:
        """All conditions, from left to right."""
        return tuple(_terms(self.root))


def _terms(node: Node) -> list[Term]:
    if isinstance(node, Term):
        return [node]
    items = (node.item,) if isinstance(node, Not) else node.items
    return [term for item in items for term in _terms(item)]


_TOKEN = re.compile(
    r"""(?P<open>\() | (?P<close>\)) |
        (?:(?P<key>[A-Za-z_]+)(?:@(?P<option>-?\w+(?:,\w+)*))?:)?
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | /(?P<regex>(?:[^/\\]|\\.)+)/(?P<flags>[A-Za-z]*) | (?P<bare>[^\s"()]+) )(?=[\s()]|$)""",
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"(and|or|not)(?=[\s()]|$)", re.IGNORECASE)


def parse(text: str) -> Query:
    """The query that a text means; InterpError points at the place of a mistake and names the keys."""
    reader = _Reader(text)
    root = reader.any_of(0)
    if reader.peek() is not None:
        raise reader.mistake("there is no ( for this )")
    return Query(root, reader.sort)


class _Reader:
    """Reads the query from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.sort = text, 0, "score"

    def mistake(self, what: str) -> InterpError:
        rest = self.text[self.at : self.at + 40]
        return InterpError(
            f"the query cannot be read from character {self.at + 1}, {rest!r}: {what}. The keys are {', '.join(KEYS)}."
        )

    def peek(self) -> str | None:
        """The character that comes next, after spaces; None at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else None

    def word(self, *names: str) -> bool:
        """Whether one of the words comes next; if so, it is passed."""
        self.peek()
        match = _WORD.match(self.text, self.at)
        if match is None or match[1].lower() not in names:
            return False
        self.at = match.end()
        return True

    def any_of(self, depth: int) -> Node:
        items = [self.all_of(depth)]
        while self.word("or"):
            items.append(self.all_of(depth))
            if And(()) in items:
                raise self.mistake("something must stand on either side of or")
        return items[0] if len(items) == 1 else Or(tuple(items))

    def all_of(self, depth: int) -> Node:
        items: list[Node] = []
        while (next_one := self.peek()) is not None and next_one != ")":
            here = self.at
            if self.word("or"):
                self.at = here
                break
            if self.word("and"):
                if not items or self.peek() in (None, ")"):
                    raise self.mistake("something must stand on either side of and")
                continue
            item = self.one(depth)
            if item is not None:
                items.append(item)
        items = _joined(items)
        return items[0] if len(items) == 1 else And(tuple(items))

    def one(self, depth: int) -> Node | None:
        if depth > DEEPEST:
            raise self.mistake(f"parentheses and nots are more than {DEEPEST} deep")
        if self.word("not"):
            item = self.one(depth + 1) if self.peek() not in (None, ")") else None
            if item is None:
                raise self.mistake("not must stand before a condition")
            return Not(item)
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.mistake("close the quote or the /regex/, and leave a space after it")
        if match["open"]:
            self.at = match.end()
            inside = self.any_of(depth + 1)
            if self.peek() != ")":
                raise self.mistake("a ( is not closed")
            self.at += 1
            if inside == And(()):
                raise self.mistake("there is nothing between ( and )")
            return inside
        return self.term(match)

    def term(self, match: re.Match[str]) -> Node | None:
        """The condition that begins here; InterpError when its key does not exist or does not take what is given."""
        key = (match["key"] or "text").lower()
        at = self.at + 1
        if key not in KEYS:
            raise unknown(f"search key (at character {at})", key, KEYS, try_=f"The keys are {', '.join(KEYS)}.")
        if match["option"] and key not in OPTION_KEYS:
            raise InterpError(f"{key}: takes no @ (at character {at}); {', '.join(OPTION_KEYS)} do.")
        if match["regex"] is not None and key not in REGEX_KEYS:
            raise InterpError(f"{key}: takes no /regex/ (at character {at}); {', '.join(REGEX_KEYS)} do.")
        self.at = match.end()
        option = match["option"] or ""
        if match["regex"] is not None:
            return Term(key, _flagged(match, at), regex=True, option=option, at=at)
        quoted = match["quoted"] is not None
        value = _unescaped(match["quoted"]) if quoted else match["bare"]
        if not quoted and key in REGEX_KEYS and re.fullmatch(r"/.*[^\\]/[A-Za-z]*", value):
            raise InterpError(
                f"{key}:{value} is neither a text nor one /regex/ (at character {at}); write / inside one as \\/, or put "
                "quotes around a text."
            )
        alone = value.rstrip(":").partition("@")[0].lower()
        if not quoted and not match["key"] and value.endswith(":") and alone in KEYS:
            raise InterpError(
                f"{value} has nothing to look for (at character {at}): its value stands right behind the colon."
            )
        if key == "sort":
            if value not in SORTS:
                raise unknown("sort order", value, SORTS, try_=f"(At character {at}.)")
            self.sort = value
            return None
        if not value:
            raise InterpError(f"{key}: has nothing to look for (at character {at}).")
        return Term(key, value, quoted=quoted, option=option, at=at)


def _flagged(match: re.Match[str], at: int) -> str:
    """The regular expression with its flags as RE2 has them inside; InterpError for a letter that is none."""
    flags = match["flags"]
    wrong = [flag for flag in flags if flag not in FLAGS]
    if wrong:
        known = ", ".join(f"{flag} ({about})" for flag, about in FLAGS.items())
        raise InterpError(f"/{match['regex']}/{flags} has no flag {wrong[0]!r} (at character {at}); there is {known}.")
    written = match["regex"].replace(r"\/", "/")
    return f"(?{flags}){written}" if flags else written


def _unescaped(quoted: str) -> str:
    """What stands between quotes: \\n is a line's end, \\t a tab, and any other character behind a backslash itself."""
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), quoted, flags=re.DOTALL)


def _joined(items: list[Node]) -> list[Node]:
    """Bare words that follow each other are one text, whose meaning is looked for."""
    out: list[Node] = []
    for item in items:
        last = out[-1] if out else None
        if _words(item) and _words(last):
            assert isinstance(last, Term)
            assert isinstance(item, Term)
            out[-1] = Term("text", f"{last.value} {item.value}", at=last.at)
        else:
            out.append(item)
    return out


def _words(item: Node | None) -> bool:
    return isinstance(item, Term) and item.key == "text" and not item.quoted


def span(term: Term) -> tuple[float, float]:
    """The bounds in `low..high`, either of which may be left out; a single number is a lower bound.

    Raises InterpError when it is no range.
    """
    low, dots, high = term.value.partition("..")
    try:
        bounds = float(low) if low else 0.0, float(high) if dots and high else float("inf")
    except ValueError:
        raise InterpError(
            f"{term.key}:{term.value} is no range (at character {term.at}); write {term.key}:1e-5..1e-2, either end may "
            "be left out."
        ) from None
    if not bounds[0] <= bounds[1]:
        raise InterpError(
            f"{term.key}:{term.value} is empty (at character {term.at}): its low end is above its high end."
        )
    return bounds


def yes(term: Term) -> bool:
    """Whether a condition of yes or no says yes; InterpError when it says neither."""
    if term.value.lower() not in ("yes", "no", "true", "false"):
        raise InterpError(f"{term.key}:{term.value} is neither yes nor no (at character {term.at}).")
    return term.value.lower() in ("yes", "true")
