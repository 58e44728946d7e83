"""A few words for a mined predicate, as a person would say them: ‘argue’ in all its forms, digits, French text."""

from collections.abc import Callable, Sequence

from interp.labels.propose.families import base, families
from interp.predicates import CLASSES, Predicate
from interp.predicates.predicate import LANGUAGE_NAMES, Slot
from interp.render import visible

WORDS = 3
"""Words, or families of them, that a name lists."""


def short(predicate: Predicate, vocabulary: Sequence[str], lemma: Callable[[str], str] = lambda word: word) -> str:
    """The name of a predicate; its sentence says all of it. `lemma` gives a word's first form, where a dictionary knows it."""

    def said(slot: Slot) -> str:
        return _slot(slot, vocabulary, lemma)

    if predicate.kind == "language":
        return f"text in {LANGUAGE_NAMES.get(predicate.value, predicate.value)}"
    if predicate.kind in ("source", "topic"):
        return f"text of {predicate.value}" if predicate.kind == "source" else f"text on {predicate.value}"
    if predicate.kind == "near":
        return f"near {said(predicate.near)}"
    here = said(predicate.here) if predicate.here else ""
    if predicate.kind == "piece" or predicate.inside:
        here = f"{here} inside a word" if here else "parts of words"
    parts = [here or "the token"]
    if predicate.earlier or predicate.before:
        before = [said(slot) for slot in (predicate.earlier, predicate.before) if slot]
        parts.append(f"after {' '.join(before)}" + (" …" if predicate.earlier and not predicate.before else ""))
    if predicate.next:
        parts.append(f"before {said(predicate.next)}")
    return " ".join(parts)


def _slot(slot: Slot, vocabulary: Sequence[str], lemma: Callable[[str], str]) -> str:
    """A class by its name; words by their families, as many as a reader keeps in mind."""
    if isinstance(slot, str):
        return CLASSES[slot][1]
    forms: dict[str, list[str]] = {}
    for text in (vocabulary[token] for token in slot):
        word = _plain(text)
        forms.setdefault(lemma(word) if word.islower() else word, []).append(text)
    said = [_family([text for word in family for text in forms[word]], family) for family in families(forms)]
    shown = len(said) if len(said) <= WORDS + 1 else WORDS  # one more takes no more room than to say so
    listed = ", ".join(f"‘{word}’" for word in said[:shown])
    return f"{listed} and {len(said) - shown} more" if len(said) > shown else listed


def _family(texts: list[str], words: list[str]) -> str:
    """The word for these tokens: the one that they are, in capitals where none is without; of several, their family's first."""
    plain = list(dict.fromkeys(_plain(text) for text in texts))
    word = base(words) if len(plain) > 1 else plain[0]
    capital = [text.strip(" ") for text in texts]
    begins = word[:1].upper() + word[1:]
    return begins if word.islower() and all(text[:1].isupper() for text in capital) else word


def _plain(text: str) -> str:
    """A token as a word: without spaces around it and in small letters; as it looks when it is no word, and as it is spelt with capitals inside."""
    word = text.strip(" ")
    if not word.isalpha() or (word.isupper() and len(word) > 1):
        return visible(text)
    if not (word.islower() or word.istitle()):  # ValueError
        return word
    return word.lower()
