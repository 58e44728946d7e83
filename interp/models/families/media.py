"""What models read that is no text: pictures and clips of sound, and what their positions are called.

A position of a picture is a patch, of a clip a frame of a few hundredths of a second. Each has a number of its own, as a token
has: 0 is whatever stands for no part of the picture or clip (CLS, registers, the silence that fills a clip up), and is masked
like a separator. So activations, indexes and searches take places as they take tokens.

Axes    B item, T position of an item.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.render.look import NO_PLACE
from interp.types import InterpError

PREPARES = "preprocessor_config.json"
PATCH = re.compile(r"r(\d+)c(\d+)")
FRAME = re.compile(r"(\d+\.\d+)s")
ITEM = re.compile(r"row|p\d+|([a-h]\d+){2,8}|z\d+y\d+x\d+|y\d+x\d+")
"""Positions of items of numbers (see `own.place_words`)."""


class Places(list[int]):
    """The numbers of an item's positions, and with them what the model is given for it."""

    def __init__(self, places: Sequence[int], given: Tensor) -> None:
        super().__init__(places)
        self.given = given


def given(items: Sequence[Sequence[int]]) -> Tensor | None:
    """What a model is given for these items, side by side; None for texts, whose tokens are all there is."""
    tensors = [item.given for item in items if isinstance(item, Places)]
    return torch.stack(tensors) if tensors else None


@dataclass(frozen=True, eq=False)
class Media:
    """How one model reads pictures, clips or items of numbers."""

    kind: str
    """`pictures`, `sound` or `numbers`."""
    words: list[str]
    """What each number of a place is called; the first stands for no place."""
    places: list[int]
    """Of a picture, or of a clip that is full, the numbers of its positions."""
    read: Callable[[Path], Places]
    """A file as the model takes it; InterpError when it cannot be read."""
    shape: tuple[int, ...]
    """Of what the model is given for one item."""

    def sample(self, rows: int) -> tuple[Int[Tensor, "B T"], Shaped[Tensor, "B ..."]]:
        """(numbers of places, what is given) of random items, to see what the model does with any."""
        noise = torch.randn(rows, *self.shape, generator=torch.Generator().manual_seed(0))
        return torch.tensor([self.places] * rows), noise


def kind_of(words: Sequence[str]) -> str:
    """`pictures`, `sound`, `numbers` or `text`, by what positions are called."""
    first = words[1] if len(words) > 1 and words[0] == NO_PLACE else ""
    kinds = {"pictures": PATCH, "sound": FRAME, "numbers": ITEM}
    return next((kind for kind, named in kinds.items() if named.fullmatch(first)), "text")


def grid(words: Sequence[str]) -> tuple[int, int]:
    """(rows, columns) of the patches of a picture; InterpError when these are no names of patches, row by row."""
    last = PATCH.fullmatch(words[-1]) if words else None
    rows, columns = (int(last[1]) + 1, int(last[2]) + 1) if last else (0, 0)
    if not last or rows * columns + 1 != len(words):
        raise InterpError("the names of its places are no rows of patches; build the index anew.")
    return rows, columns


def seconds_of(words: Sequence[str]) -> list[float]:
    """The second at which each frame begins; InterpError when these are no names of frames."""
    found = [FRAME.fullmatch(word) for word in words[1:]]
    if not found or not all(found):
        raise InterpError("the names of its places are no seconds; build the index anew.")
    return [float(each[1]) for each in found if each]


def processor(kind: Any, folder: Path | None, name: str) -> Any:
    """The model's own way of preparing its input (an Auto class of transformers); InterpError when its files do not say."""
    if folder is None or not (folder / PREPARES).exists():
        raise InterpError(
            f"{name} has no {PREPARES}, so how its input is prepared is not known; put the file of the model's publisher "
            "into its folder."
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InterpError(f"the {PREPARES} of {name} cannot be used: {first}") from error
