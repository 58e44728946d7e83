"""What a label is: one revision of what is said of a feature, and what no label has.

Nothing is overwritten: a change is a further revision, and a feature's newest one is what holds. Two kinds of things are said
in it. Tags and the star are the feature's: they stay when it gets another name, and it may have them without a name. Author,
note, status, method and predicate are the name's: they begin anew with another name, unless they are given.
"""

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from interp.types import InterpError, check_feature, unknown

STATUSES = ("proposed", "confirmed", "refuted", "undecided", "withdrawn")
LONGEST, LONGEST_NAME, LONGEST_TAG = 2_000, 200, 40
"""Characters of a label, a note or a predicate, of an author's name or a method, and of a tag, at most."""
MOST_TAGS = 20
BETWEEN_TAGS = ",;\"'"
"""Besides spaces, what no tag holds, so that tags can be written side by side."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One revision of what is said of one feature."""

    feature: int
    text: str
    """The name; empty where there is none, or it was withdrawn."""
    author: str = ""
    note: str = ""
    status: str = "proposed"
    created: str = ""
    """UTC, ISO 8601."""
    tags: tuple[str, ...] = ()
    """Short words to find it by, in the order in which they were given."""
    starred: bool = False
    method: str = ""
    """How the name came about: person, import, predicate, llm:MODEL …; empty where nobody wrote it down."""
    predicate: str = ""
    """What the name claims, in the language of search; empty where it claims nothing that can be tried."""

    @property
    def meant(self) -> str:
        """What a search reads: the name and its note; of a note in which a run says how the name was judged, nothing."""
        return self.text if self.note.startswith(f"{self.status}: ") else f"{self.text} {self.note}".strip()


@dataclass(frozen=True, eq=False)
class Held:
    """What was said of an SAE's features when its book was read."""

    version: Any
    """What the store knows it by; None when nothing was ever written."""
    newest: Mapping[int, Label]
    """The newest revision of each feature, by number."""
    named: Mapping[int, Label]
    """Of those with a name."""

    @staticmethod
    def of(version: Any, newest: Mapping[int, Label]) -> "Held":
        """With these revisions, in whatever order."""
        ordered = dict(sorted(newest.items()))
        named = {feature: label for feature, label in ordered.items() if label.text}
        return Held(version, MappingProxyType(ordered), MappingProxyType(named))


NAMES = tuple(field.name for field in fields(Label))
OWN_BY_FEATURE = ("tags", "starred")
"""What stays when a feature is named anew."""


def checked(label: Label, d_sae: int) -> Label:
    """The label as it is kept: stripped, withdrawn when its text is empty. InterpError says what no label has."""
    check_feature(label.feature, d_sae, "this SAE")
    if label.status not in STATUSES:
        raise unknown("label status", label.status, STATUSES)
    for name in ("text", "author", "note", "method", "predicate"):
        _check_text(name, getattr(label, name))
    if max(len(label.text), len(label.note)) > LONGEST:
        raise InterpError(f"a label or note has at most {LONGEST:,} characters; shorten it.")
    if len(label.predicate) > LONGEST:
        raise InterpError(f"a predicate has at most {LONGEST:,} characters; shorten it.")
    if len(label.author) > LONGEST_NAME:
        raise InterpError(f"an author's name has at most {LONGEST_NAME} characters; shorten it.")
    if len(label.method) > LONGEST_NAME or not label.method.isprintable():
        raise InterpError(f"a method is one line of at most {LONGEST_NAME} characters, such as person or llm:MODEL.")
    text = label.text.strip()
    return replace(
        label,
        text=text,
        author=label.author.strip(),
        note=label.note.strip(),
        status=label.status if text else "withdrawn",
        tags=_checked_tags(label.tags),
        method=label.method.strip() if text else "",
        predicate=label.predicate.strip() if text else "",
    )


_HALF = re.compile("[\ud800-\udfff]")


def _check_text(name: str, text: str) -> None:
    if not text.isascii() and _HALF.search(text):
        raise InterpError(f"the {name} of this label is not text: it holds half of a character (a lone surrogate).")
    if "\0" in text:
        raise InterpError(f"the {name} of this label holds a character of number 0, which not every database keeps.")


def _checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags without those that came before, in either case; InterpError for one that is no short word."""
    kept: dict[str, str] = {}
    for tag in tags:
        if (
            not 0 < len(tag) <= LONGEST_TAG
            or not tag.isprintable()
            or any(c.isspace() or c in BETWEEN_TAGS for c in tag)
        ):
            raise InterpError(
                f"{tag[: 2 * LONGEST_TAG]!r} is no tag: one is a word of at most {LONGEST_TAG} characters without spaces, "
                "commas, semicolons and quotes."
            )
        kept.setdefault(tag.casefold(), tag)
    if len(kept) > MOST_TAGS:
        raise InterpError(f"a feature has at most {MOST_TAGS} tags, and these are {len(kept)}.")
    return tuple(kept.values())


def revised(before: Label | None, given: Mapping[str, Any], *, method: str = "person") -> Label:
    """The revision that follows: what is given, and of the rest what holds already.

    `method` is how another name came about, if that is not given.
    """
    if before is None:
        before = Label(feature=given["feature"], text="", status="withdrawn")
    text = given.get("text")
    if text is not None and text.strip() != before.text:
        stays = {name: getattr(before, name) for name in OWN_BY_FEATURE}
        before = Label(feature=before.feature, text="", method=method, **stays)
    return replace(before, **({"created": now()} | {name: value for name, value in given.items() if value is not None}))


def said(label: Label) -> Label:
    """The label without its date: two that are equal then say the same."""
    return replace(label, created="")


def split_tags(text: str) -> tuple[str, ...]:
    """Tags that are written side by side, with spaces, commas or semicolons between them."""
    return tuple("".join(" " if character in ",;" else character for character in text).split())


def now() -> str:
    """The time, in UTC, as labels keep it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
