"""Tokens as descriptions name them."""

from collections.abc import Iterable
from functools import lru_cache

from interp.render import visible
from interp.render.words import counted

PARTS = {"pictures": ("patches", "picture"), "sound": ("frames", "clip"), "numbers": ("positions", "item")}
"""By what was indexed, what fires, and what it is part of."""


def parts_of(kind: str, documents: int, folder: str) -> str:
    """What a feature of pictures or sound fires on, of which a patch's or frame's name says only where it lies; and the folder
    that it was found to prefer, if any."""
    parts, whole = PARTS[kind]
    of = f"{parts} of {counted(documents, whole)}"
    return f"‘{' '.join(map(visible, folder.split(' ')))}’ most, {of}" if folder else of


def meaning_texts(top_tokens: list[list[int]], vocabulary: list[str]) -> list[str]:
    """What a sentence encoder is given for each feature: its strongest tokens, which say more than they would in a
    sentence."""
    return [", ".join(distinct([vocabulary[t] for t in tokens], 5)) for tokens in top_tokens]


def distinct(tokens: Iterable[str], count: int) -> list[str]:
    """The first few tokens that differ by more than case and spaces; what comes after them is not asked for."""
    kept: dict[str, str] = {}
    for token in tokens:
        if len(kept) == count:
            break
        kept.setdefault(folded(token), token.strip(" ") or token)
    return list(kept.values())


@lru_cache(maxsize=1 << 16)  # every feature's description asks for the same few thousand
def folded(token: str) -> str:
    """The token without case and spaces (spaces alone stay)."""
    return token.strip().lower() or token


def quoted(tokens: list[str]) -> str:
    """Each token in quotation marks, with commas between."""
    return ", ".join(f"‘{visible(token)}’" for token in tokens)
