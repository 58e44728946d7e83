"""Stretches of an index's text cut out, edited, and read again as texts of their own: by the tokenizer and by claims.

Axes    N position of the index, D document, V vocabulary, I excerpt.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from interp.evidence.positions import TESTING, usable
from interp.evidence.rewriting import Rewritten, Window
from interp.index import FeatureIndex
from interp.predicates import Text
from interp.predicates.windows import subjects
from interp.predicates.written import write
from interp.types import InterpError


@runtime_checkable
class Tokenizes(Protocol):
    """What reading a text anew needs of a `Model`."""

    name: str
    tokenizer: Any

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the text alone."""


@dataclass(frozen=True, eq=False)
class Stock:
    """The text that examples are taken from, and where features fire in it."""

    text: Text
    testing_N: np.ndarray
    """True where an example may be taken: in documents that no label is made from."""
    fired: Callable[[int], tuple[np.ndarray, np.ndarray]]
    """(positions, ascending, and values) of a feature's activations."""
    count_V: np.ndarray
    """How often each token stands in the text."""
    bytes_V: Sequence[bytes]
    sha256: str
    """A name for all of this."""

    @staticmethod
    def of(index: FeatureIndex, encode: Callable[[list[str]], Any] | None = None) -> "Stock":
        """An index's; `encode` reads contexts for claims about their subject.

        Raises InterpError when the index has no testing documents.
        """
        testing_N = usable(index) == TESTING
        if not testing_N.any():
            raise InterpError(
                "the index has no text of the split labels with its tokens, whose examples are edited; index more text."
            )
        text = index.passages if encode is None else index.passages.read_by(encode)
        return Stock(text, testing_N, index.fired, index.token_counts, index.vocabulary_bytes, name_of(index))

    def window(self, position: int, before: int, after: int, special: frozenset[int]) -> Window:
        """Up to so many tokens before and after a position, of its document and block, without special tokens."""
        text = self.text
        low, high = position, position

        def goes_on(place: int) -> bool:
            if not 0 <= place < len(text.token_N) or int(text.token_N[place]) in special:
                return False
            same = text.document_N[place] == text.document_N[position]
            return bool(same and place // text.block == position // text.block)

        while position - low < before and goes_on(low - 1):
            low -= 1
        while high - position < after and goes_on(high + 1):
            high += 1
        raw = [self.bytes_V[int(token)] for token in text.token_N[low : high + 1]]
        return Window(before=raw[: position - low], peak=raw[position - low], after=raw[position - low + 1 :])


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A text as the model reads it, and where its peak is."""

    tokens: Sequence[int]
    """The separator first."""
    at: int


def read_again(text: Rewritten, model: Tokenizes, bytes_V: Sequence[bytes], separator: int) -> Excerpt | None:
    """The text by the model's own tokenizer; None where it is no text (bytes that are no character), or the tokens do not spell it."""
    try:
        tokens = model.tokenize(text.text.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    if not tokens or max(tokens) >= len(bytes_V):
        return None
    raw = [bytes_V[token] for token in tokens]
    spelled = b"".join(raw)
    put_before = len(spelled) - len(text.text)  # some tokenizers put a space before every text
    if spelled != b" " * put_before + text.text or put_before > 1:
        return None
    end_T = np.cumsum([len(one) for one in raw])
    return Excerpt(tokens=[separator, *tokens], at=1 + int(np.searchsorted(end_T, text.end + put_before)))


def special_tokens(model: Tokenizes, separator: int) -> frozenset[int]:
    """Tokens that no text spells; InterpError for a model without a tokenizer."""
    if model.tokenizer is None:
        raise InterpError(
            f"{model.name} has no tokenizer, so no text of it can be edited; open it with the tokenizer it was trained with."
        )
    return frozenset({separator, *(int(token) for token in model.tokenizer.all_special_ids)})


def as_text(
    excerpts: Sequence[Excerpt], document_I: np.ndarray, stock: Stock, separator: int, *, subject: bool
) -> tuple[Text, np.ndarray]:
    """(the excerpts as documents of one text, the position of each one's peak): what claims are asked of.

    Each keeps its document's source, topic, title and language, which an edit of a few words does not change. `subject` says whether
    it is to be asked what they are about. Raises InterpError when that is to be asked and no sentence encoder is at hand.
    """
    whole = stock.text
    length_I = np.array([len(one.tokens) for one in excerpts], dtype=np.int64)
    first_I = np.cumsum(length_I) - length_I
    token_N = np.array([token for one in excerpts for token in one.tokens], dtype=np.int64)
    number_N = np.repeat(np.arange(len(excerpts)), length_I)
    text = Text(
        token_N,
        number_N,
        token_N != separator,
        len(token_N) + 1,
        separator,
        whole.vocabulary,
        ["labels"] * len(excerpts),
        {name: [column[document] for document in document_I.tolist()] for name, column in whole.columns.items()},
        write=lambda: write(token_N, number_N, stock.bytes_V, separator),
        encode=whole.encode,
        language_known_D=whole.values["language"][1][document_I],
    )
    if subject:
        text.remembered["subjects"] = subjects(whole).elsewhere(text)
    return text, first_I + np.array([one.at for one in excerpts], dtype=np.int64)


def name_of(index: FeatureIndex) -> str:
    """A name for an index's text and firings: positions that edits tell of are those of the index with the same."""
    return hashlib.sha256(json.dumps(index.meta["files"], sort_keys=True).encode()).hexdigest()
