"""What a model does with text, by its own tokenizer; a part of `Model`.

Axes    B prompt, T token.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.models.families import Frame, Media
from interp.models.place_names import PlaceNames
from interp.models.text import Text


class ReadsText:
    """The tokenizer of a model, and what is put around its texts."""

    name: str
    module: nn.Module
    tokenizer: Any
    frame: Frame
    n_ctx: int
    media: Media | None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def separator(self) -> int:
        """Token between documents, or after each (0 for SmolLM2, which is not its bos); never counted."""
        return self.frame.separator

    @property
    def alone(self) -> tuple[int, int] | None:
        """The tokens before and after each text, where the family reads texts by themselves; None where they are packed."""
        return self.frame.around

    @property
    def reads(self) -> str:
        """`text`, `pictures` or `sound`."""
        return self.text.reads

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of a text, or of a part of one, with what the family puts around it."""
        return self.text.framed(tokens)

    @cached_property
    def text(self) -> Text:
        """The tokenizer, with what the model's embedding knows of its tokens; of pictures and sound, names of places."""
        if self.media is not None:
            return PlaceNames(self.media, self.module, self.name, self.frame, self.n_ctx)
        return Text(self.tokenizer, self.module, self.name, self.frame, self.n_ctx)

    @property
    def embedded_tokens(self) -> int:
        """How many token ids have an embedding; the tokenizer may know more or fewer."""
        return self.text.embedded

    @property
    def vocabulary(self) -> list[str]:
        """What each token id looks like: those of the tokenizer, and those that only the (un)embedding has rows for."""
        return self.text.vocabulary

    @property
    def vocabulary_bytes(self) -> list[bytes]:
        """The bytes of each token id."""
        return self.text.vocabulary_bytes

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of the text alone: no bos, no separator.

        A text that spells a special token, such as `<|im_end|>`, stays text unless `special`. Raises InterpError for a
        token that the tokenizer knows and the model has no embedding for.
        """
        return self.text.tokenize(text, special=special)

    def prompt(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids as the model should see them: the separator, then the text.

        With `special`, special tokens that the text spells (a rendered chat template, say) are read as such, and no
        separator is put before a text that begins with one. Of a model of pictures or sound the text is the name of a
        file. Raises InterpError when the text is empty or longer than the context, and when the file cannot be read.
        """
        return self.text.prompt(text, special=special)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of a conversation in the model's own template, with nothing put in front.

        A message is `{"role": "user", "content": "Hi"}`. Raises InterpError when the tokenizer has no template.
        """
        return self.text.chat(messages)

    def conversation(self, turns: Sequence[tuple[str, str]]) -> list[int] | None:
        """Token ids of (role, text) pairs in the model's own template, with nothing to go on from; None without a template."""
        return self.text.conversation(turns)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that the tokens spell."""
        return self.text.decode(tokens)

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """(tokens, which are real): the prompts as rows of one length, filled on the left."""
        tokens_BT, real_BT = self.text.padded(prompts)
        return tokens_BT.to(self.device), real_BT.to(self.device)

    def some_tokens(self, count: int) -> Int[Tensor, "1 T"]:
        """The separator and tokens from all over the vocabulary, to see what the model does with any text."""
        return torch.tensor([self.text.some_tokens(count)], device=self.device)
