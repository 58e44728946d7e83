"""What a tokenizer and the embedding it belongs to make of text: token ids, prompts, conversations, and back."""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.models.families import Frame
from interp.models.vocabulary import vocabulary, vocabulary_bytes
from interp.types import InterpError

ANY = 2**31
"""Rows of an embedding that cannot be told: then every token passes."""


class Text:
    """A model's own tokenizer, for any number of threads: it keeps its settings on itself."""

    def __init__(self, tokenizer: Any, module: nn.Module, name: str, frame: Frame, n_ctx: int) -> None:
        self.tokenizer, self.module, self.name = tokenizer, module, name
        self.frame, self.n_ctx = frame, n_ctx
        self._turn = threading.Lock()

    @property
    def separator(self) -> int:
        """The token between documents, or after each."""
        return self.frame.separator

    @property
    def reads(self) -> str:
        """`text`; of places, `pictures` or `sound`."""
        return "text"

    @property
    def alone(self) -> tuple[int, int] | None:
        """The tokens before and after a text that is read by itself; None where texts are packed."""
        return self.frame.around

    @cached_property
    def embedded(self) -> int:
        """How many token ids have an embedding; the tokenizer may know more or fewer."""
        return _rows(getattr(self.module, "get_input_embeddings", lambda: None)()) or ANY

    @property
    def embedding(self) -> Float[Tensor, "V D"] | None:
        """The vector that each token id begins as, in float32; None where there is no such table."""
        table = getattr(self.module, "get_input_embeddings", lambda: None)()
        matrix = next((p for p in table.parameters() if p.ndim == 2), None) if table is not None else None
        return None if matrix is None else matrix.detach().float()

    @cached_property
    def vocabulary(self) -> list[str]:
        """What each token id looks like: those of the tokenizer, and those that only the (un)embedding has rows for."""
        return vocabulary(self.tokenizer, self._ids)

    @cached_property
    def vocabulary_bytes(self) -> list[bytes]:
        """The bytes of each token id."""
        return vocabulary_bytes(self.tokenizer, self._ids)

    @property
    def _ids(self) -> int:
        head = getattr(self.module, "get_output_embeddings", lambda: None)()
        rows = [len(p) for p in head.parameters() if p.ndim == 2] if head is not None else []
        return max([self.embedded if self.embedded < ANY else 0, *rows])

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of the text alone; see `Model.tokenize`."""
        with self._turn:
            ids = list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special))
        return self._checked(ids)

    def _checked(self, ids: list[int]) -> list[int]:
        if ids and max(ids) >= self.embedded:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise InterpError(
                f"the text holds the token {token!r} ({max(ids)}), which the tokenizer of {self.name} knows and its model "
                f"does not: it embeds tokens 0 to {self.embedded - 1}; use the tokenizer it was trained with."
            )
        return ids

    def prompt(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids as the model should see them, and InterpError as `Model.prompt` says."""
        tokens = self.tokenize(text, special=special)
        if not tokens:
            raise InterpError("the text is empty; give at least one word.")
        known = {self.frame.first, self.frame.separator, *self.tokenizer.all_special_ids} if special else set()
        around = self.framed([])
        own = len(tokens)
        tokens = [*(() if tokens[0] in known else around[:1]), *tokens, *(() if tokens[-1] in known else around[1:])]
        if len(tokens) > self.n_ctx:
            most = self.n_ctx - len(around)
            raise InterpError(f"the text has {own:,} tokens, and {self.name} reads at most {most:,}; shorten it.")
        return tokens

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """The tokens with what the family puts around a text."""
        return [self.frame.first, *tokens, *([self.frame.separator] if self.frame.alone else [])]

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, and InterpError as `Model.chat` says."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise InterpError(f"{self.name} has no chat template; pass raw text instead.")
        with self._turn:
            ids = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        return self._checked([int(token) for token in ids])

    def conversation(self, turns: Sequence[tuple[str, str]]) -> list[int] | None:
        """Token ids of a whole conversation; see `Model.conversation`."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        messages = [{"role": role, "content": text} for role, text in turns]
        with self._turn:
            ids = self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        return self._checked([int(token) for token in ids])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that the tokens spell."""
        with self._turn:
            return str(self.tokenizer.decode(list(tokens)))

    def some_tokens(self, count: int) -> list[int]:
        """The first token of a text and tokens from all over the vocabulary, to see what a model does with any text."""
        known = min(self.embedded, 2**15)
        return [self.frame.first, *(known * part // count for part in range(1, count))]

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """(tokens, which are real) of the prompts as rows of one length, filled with separators on the left (texts that are read
        by themselves: on the right)."""
        longest = max(map(len, prompts), default=0)
        tokens_BT = torch.full((len(prompts), longest), self.frame.separator)
        real_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            first = 0 if self.frame.alone else longest - len(prompt)
            tokens_BT[row, first : first + len(prompt)] = torch.tensor(list(prompt))
            real_BT[row, first : first + len(prompt)] = True
        return tokens_BT, real_BT


def _rows(table: nn.Module | None) -> int:
    """Rows of the first matrix of an embedding; 0 where there is none."""
    weight = next((p for p in table.parameters() if p.ndim == 2), None) if table is not None else None
    return len(weight) if weight is not None else 0
