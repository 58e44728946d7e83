"""The embedded model behind the `llm` package's plugin interface, as `interp/smollm2`.

It is small, so its names are poor; it is a real model that runs on this machine, and nothing is sent anywhere. Installed, it is
a plugin for `llm` itself too: `llm -m interp/smollm2 'Name three rivers.'`.
"""

import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import llm
from llm.parts import TextPart
from pydantic import Field

if TYPE_CHECKING:
    from interp.models import Model

NAME = "interp/smollm2"
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What the bytes of a character decode to until its last one is there."""


class SmolLM2(llm.Model):
    """SmolLM2-135M-Instruct, opened when it is first asked."""

    model_id = NAME
    can_stream = True

    class Options(llm.Options):
        """What a prompt may ask for."""

        temperature: float = Field(default=0.0, ge=0, description="0 takes the likeliest token")
        top_p: float = Field(default=1.0, gt=0, le=1, description="the share of the probability that is drawn from")
        max_tokens: int = Field(default=96, ge=1, description="tokens of an answer, at most")
        seed: int = Field(default=0, ge=0, description="of what is drawn")

    def __init__(self) -> None:
        self._opening = threading.Lock()

    @cached_property
    def _opened(self) -> "Model":
        from interp.models import open_model

        return open_model("smollm2")

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """The answer, as its tokens come. Raises InterpError for a prompt that is longer than the model reads."""
        with self._opening:
            model = self._opened
        tokens = model.chat(turns(prompt.messages))
        asked: SmolLM2.Options = prompt.options
        steps = model.stream(
            [tokens],
            max_new_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
        )
        answer: list[int] = []
        said = ""
        for (token,) in steps:
            if token is None or token in model.ends:
                break
            answer.append(token)
            text = model.decode(answer)
            if not text.endswith(UNFINISHED):
                yield text[len(said) :]
                said = text
        response.set_usage(input=len(tokens), output=len(answer))


def turns(messages: Any) -> list[dict[str, str]]:
    """A conversation of `llm` as a chat template takes it; of parts that are no text nothing is read."""
    written = [
        (message.role, "".join(part.text for part in message.parts if isinstance(part, TextPart)))
        for message in messages
    ]
    return [{"role": role, "content": text} for role, text in written if text]


@llm.hookimpl
def register_models(register: Any) -> None:
    """Called by `llm` when it looks for models."""
    register(SmolLM2())
