"""What is measured on, and the batches of the rest, which is trained on."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from interp.activations import ActivationSource, ActivationStore, Batches, Stream
from interp.render.words import counted
from interp.types import InterpError

HELD_OUT_ROWS = 65_536
Names = str | tuple[str, ...]
"""Hook points by name: a batch is one tensor of one, a tuple of tensors of several."""


@dataclass(frozen=True)
class HeldOut:
    """Text that is measured on and never trained on."""

    source: ActivationSource
    blocks: range
    training: range
    """Blocks of the training text that are trained on."""
    how: str

    @staticmethod
    def of(source: ActivationSource, given: ActivationStore | None) -> "HeldOut":
        """A store of its own, or the last tenth of the training text's blocks, with at most HELD_OUT_ROWS positions.

        Raises InterpError when the text has one block only, and when `given` is of another model.
        """
        count = len(source.blocks.tokens_NT)
        if given is None:
            if count < 2:
                raise InterpError("a single block of text leaves none to measure on; harvest more, or give held_out.")
            first = count - max(min(count // 10, HELD_OUT_ROWS // source.blocks.block), 1)
            return HeldOut(source, range(first, count), range(first), "the last blocks of the text")
        if given.recipe["model_sha256"] != source.recipe["model_sha256"]:
            raise InterpError(
                f"{given.folder} holds activations of {given.recipe['model']}, and not of the same model "
                f"({source.recipe['model']}) as those to train on; harvest held-out text from that one."
            )
        return HeldOut(given, range(len(given.blocks.tokens_NT)), range(count), "a text of its own")

    @property
    def recipe(self) -> dict[str, Any]:
        """What the card says of it."""
        text = {key: self.source.recipe[key] for key in ("corpus", "tokens_sha256")}
        return {"how": self.how, "blocks": [self.blocks.start, self.blocks.stop], **text}

    def rows(self, names: Names) -> Tensor | tuple[Tensor, ...]:
        """At most HELD_OUT_ROWS rows, shuffled, as one batch.

        Raises InterpError when no position counts.
        """
        batches = self.source.batches(names, 1, buffer=self.source.positions, blocks=self.blocks)
        if not batches.rows:
            raise InterpError(
                f"no position of {self.how} counts, so there is nothing to measure on; hold out more text."
            )
        rows: Tensor | tuple[Tensor, ...] = next(iter(replace(batches, batch_size=min(batches.rows, HELD_OUT_ROWS))))
        return rows


def hold_out_last(source: Stream, seed: int, count: int) -> tuple[Stream, HeldOut]:
    """(the stream with its blocks in an order that the seed draws, but for the last `count`; these, to be measured on).

    Raises InterpError when the text has no more blocks than those.
    """
    blocks = len(source.blocks.tokens_NT)
    if blocks <= count:
        raise InterpError(
            f"{counted(blocks, 'block')} of text leave nothing to train on beside the {count} that are measured on; "
            "stream more tokens."
        )
    source = source.shuffled(seed, count)
    last, others = range(blocks - count, blocks), range(blocks - count)
    return source, HeldOut(source, last, others, "the last blocks of the text")


def batches_of(
    source: ActivationSource,
    names: Names,
    size: int,
    epochs: float,
    buffer: int | None,
    measured: HeldOut,
    pairs: str | None = None,
) -> Batches:
    """What is trained on, mixed over `buffer` tokens (without, the source's own number), in `pairs` if asked."""
    least, mixed = min(size, source.positions // 4 or 1), {} if buffer is None else {"buffer": buffer}
    if pairs and least < size:
        least = max(least // 2 * 2, 2)
    made = source.batches(names, least, epochs=epochs, blocks=measured.training, pairs=pairs, **mixed)
    return replace(made, held_out=measured.recipe)
