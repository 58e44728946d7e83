"""Conditions written in a line: keys with values, joined by and, or, not and parentheses.

What a language of this kind has (which keys, what each takes) are its `Keys`; searches for features and claims about
positions are two of them. A key may take a condition of another language between parentheses: `at:(token:/x/ not is:digit)`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from interp.types import InterpError, unknown

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
    """Character of the line at which it begins, from 1."""
    inner: "Node | None" = field(default=None, compare=False)
    """The condition of another language that the key takes; `value` is how it is written."""

    def __str__(self) -> str:
        key = self.key + (f"@{self.option}" if self.option else "")
        if self.inner is not None:
            return f"{key}:({self.value})"
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


def terms(node: Node) -> list[Term]:
    """All conditions, from left to right."""
    if isinstance(node, Term):
        return [node]
    items = (node.item,) if isinstance(node, Not) else node.items
    return [term for item in items for term in terms(item)]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of a language and what each takes."""

    what: str
    """What one of its lines is called."""
    help: Mapping[str, str]
    """By key: what it asks."""
    regex: Collection[str] = ()
    options: Collection[str] = ()
    """Keys that take an @."""
    plain: str = ""
    """The key of words that have none; where it is empty, every condition names its own."""
    settings: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Keys that are no conditions, and their values."""
    groups: "Mapping[str, Keys]" = field(default_factory=dict)
    """Keys that take a condition of another language in parentheses."""


_TOKEN = re.compile(
    r"""(?:(?P<group>[A-Za-z_]+)(?:@(?P<how>-?\w+(?:,\w+)*))?:)?(?P<open>\() | (?P<close>\)) |
        (?:(?P<key>[A-Za-z_]+)(?:@(?P<option>-?\w+(?:,\w+)*))?:)?
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | /(?P<regex>(?:[^/\\]|\\.)+)/(?P<flags>[A-Za-z]*) | (?P<bare>[^\s"()]+) )(?=[\s()]|$)""",
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"(and|or|not)(?=[\s()]|$)", re.IGNORECASE)


def read(text: str, keys: Keys) -> tuple[Node, dict[str, str]]:
    """(the condition that a text means, its settings).

    Raises InterpError that points at the place of a mistake and names the keys.
    """
    reader = _Reader(text, keys)
    root = reader.any_of(0)
    if reader.peek() is not None:
        raise reader.mistake("there is no ( for this )")
    return root, reader.settings


class _Reader:
    """Reads a line from left to right."""

    def __init__(self, text: str, keys: Keys) -> None:
        self.text, self.keys, self.at = text, keys, 0
        self.settings: dict[str, str] = {}

    def mistake(self, what: str) -> InterpError:
        rest = self.text[self.at : self.at + 40]
        return InterpError(
            f"the {self.keys.what} cannot be read from character {self.at + 1}, {rest!r}: {what}. The keys are "
            f"{', '.join(self.keys.help)}."
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
        items = _joined(items, self.keys.plain)
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
        if match["open"] and match["group"]:
            return self.group(match, depth)
        if match["open"]:
            self.at = match.end()
            return self.inside(depth)
        return self.term(match)

    def inside(self, depth: int) -> Node:
        """What stands up to the parenthesis that closes."""
        inside = self.any_of(depth + 1)
        if self.peek() != ")":
            raise self.mistake("a ( is not closed")
        self.at += 1
        if inside == And(()):
            raise self.mistake("there is nothing between ( and )")
        return inside

    def group(self, match: re.Match[str], depth: int) -> Node:
        """A key with a condition of another language behind it."""
        key, at, outer = match["group"].lower(), self.at + 1, self.keys
        self.known(key, match["how"], at)
        if key not in outer.groups:
            takes = f"; {', '.join(outer.groups)} does" if outer.groups else ""
            raise InterpError(f"{key}: takes no parentheses (at character {at}){takes}.")
        self.at, self.keys = match.end(), outer.groups[key]
        inner = self.inside(depth)
        self.keys = outer
        return Term(key, str(inner), option=match["how"] or "", at=at, inner=inner)

    def known(self, key: str, option: str | None, at: int) -> None:
        """Raises InterpError for a key that does not exist, and for an @ behind one that takes none."""
        keys = self.keys
        if not key:
            raise InterpError(
                f"what begins at character {at} of the {keys.what} has no key; the keys are {', '.join(keys.help)}."
            )
        if key not in keys.help:
            try_ = f"The keys are {', '.join(keys.help)}."
            raise unknown(f"{_kind(keys)} key (at character {at})", key, keys.help, try_=try_)
        if option and key not in keys.options:
            raise InterpError(f"{key}: takes no @ (at character {at}); {', '.join(keys.options)} do.")

    def term(self, match: re.Match[str]) -> Node | None:
        """The condition that begins here; InterpError when its key does not exist or does not take what is given."""
        keys, at = self.keys, self.at + 1
        key = (match["key"] or keys.plain).lower()
        self.known(key, match["option"], at)
        if match["regex"] is not None and key not in keys.regex:
            raise InterpError(f"{key}: takes no /regex/ (at character {at}); {', '.join(keys.regex)} do.")
        self.at = match.end()
        option = match["option"] or ""
        if match["regex"] is not None:
            return Term(key, _flagged(match, at), regex=True, option=option, at=at)
        quoted = match["quoted"] is not None
        value = _unescaped(match["quoted"]) if quoted else match["bare"]
        if not quoted and key in keys.regex and re.fullmatch(r"/.*[^\\]/[A-Za-z]*", value):
            raise InterpError(
                f"{key}:{value} is neither a text nor one /regex/ (at character {at}); write / inside one as \\/, or put "
                "quotes around a text."
            )
        alone = value.rstrip(":").partition("@")[0].lower()
        if not quoted and not match["key"] and value.endswith(":") and alone in keys.help:
            raise InterpError(
                f"{value} has nothing to look for (at character {at}): its value stands right behind the colon."
            )
        if key in keys.settings:
            if value not in keys.settings[key]:
                raise unknown(f"{key} order", value, keys.settings[key], try_=f"(At character {at}.)")
            self.settings[key] = value
            return None
        if key in keys.groups:
            raise InterpError(
                f"{key}: takes a condition in parentheses (at character {at}), such as {key}:(token:/x/ not is:digit)."
            )
        if not value:
            raise InterpError(f"{key}: has nothing to look for (at character {at}).")
        return Term(key, value, quoted=quoted, option=option, at=at)


def _kind(keys: Keys) -> str:
    return "search" if keys.what == "query" else keys.what


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


def _joined(items: list[Node], plain: str) -> list[Node]:
    """Bare words that follow each other are one text, whose meaning is looked for."""
    out: list[Node] = []

    def words(item: Node | None) -> bool:
        return isinstance(item, Term) and bool(plain) and item.key == plain and not item.quoted

    for item in items:
        last = out[-1] if out else None
        if words(item) and words(last):
            assert isinstance(last, Term)
            assert isinstance(item, Term)
            out[-1] = Term(plain, f"{last.value} {item.value}", at=last.at)
        else:
            out.append(item)
    return out
