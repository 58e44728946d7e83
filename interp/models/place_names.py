"""What stands for text where a model reads pictures or sound: names of places, and files in the place of prompts."""

from collections.abc import Sequence

from torch import nn

from interp import places
from interp.models.families import Frame, Media, Places
from interp.models.text import Text
from interp.types import InterpError


class PlaceNames(Text):
    """The places of one model's pictures or clips, spoken to as a tokenizer is."""

    def __init__(self, media: Media, module: nn.Module, name: str, frame: Frame, n_ctx: int) -> None:
        super().__init__(None, module, name, frame, n_ctx)
        self.media = media

    @property
    def reads(self) -> str:
        """`pictures` or `sound`."""
        return self.media.kind

    @property
    def embedded(self) -> int:
        """How many places there are, the one that stands for none included."""
        return len(self.media.words)

    @property
    def vocabulary(self) -> list[str]:
        """What each place is called."""
        return self.media.words

    @property
    def vocabulary_bytes(self) -> list[bytes]:
        """The same as bytes."""
        return [word.encode() for word in self.media.words]

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Raises InterpError: this model reads no text."""
        raise InterpError(f"{self.name} reads {self.media.kind}, not text; name a file or a folder of them.")

    def prompt(self, text: str, *, special: bool = False) -> Places:
        """The file of that name as the model takes it; InterpError when it cannot be read, or may not be."""
        return self.media.read(places.named_file(text))

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """The places as they are."""
        return list(tokens)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Raises InterpError: this model reads no text."""
        return self.tokenize("")

    def conversation(self, turns: Sequence[tuple[str, str]]) -> list[int] | None:
        """None: there is no template."""
        return None

    def decode(self, tokens: Sequence[int]) -> str:
        """The names of the places."""
        return " ".join(self.media.words[token] for token in tokens)

    def some_tokens(self, count: int) -> list[int]:
        """The first places."""
        return self.media.places[:count]
