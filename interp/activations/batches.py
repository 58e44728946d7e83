"""Shuffled batches of activations, in an order that the seed fixes.

Axes    N position, B batch, D width at a hook point.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.activations.pairs import Pairing, pairing
from interp.corpus import TokenBlocks
from interp.types import InterpError


@runtime_checkable
class ActivationSource(Protocol):
    """Activations in order, and mixed into batches: an `ActivationStore`, or a `Stream` that makes them."""

    @property
    def recipe(self) -> dict[str, Any]:
        """What the activations are of: model, hook points, text."""
        ...

    @property
    def blocks(self) -> TokenBlocks: ...
    @property
    def positions(self) -> int: ...
    def check_hook(self, hook_name: str) -> None:
        """Raises InterpError when there is nothing of that hook point."""
        ...

    def width(self, hook_name: str) -> int: ...
    def norm_cutoff(self, hook_name: str) -> float:
        """The norm above which a position is a sink (see `mask`)."""
        ...

    def pieces(self, hook_name: str) -> Iterator[tuple[int, int, Callable[[], Tensor]]]:
        """(first position, positions, function that gives their activations (N, D)) in the order of the text."""
        ...

    def batches(
        self,
        hook_names: str | Sequence[str],
        batch_size: int,
        *,
        epochs: float = 1.0,
        seed: int = 0,
        buffer: int = ...,
        blocks: range | None = None,
        pairs: str | None = None,
    ) -> "Batches": ...
    def groups(self, batches: "Batches", epoch: int) -> Iterator["Group"]:
        """An epoch's shuffle buffers."""
        ...

    def rows(self, batches: "Batches") -> int:
        """Rows of one epoch."""
        ...


@dataclass(frozen=True)
class Group:
    """A shuffle buffer that has not been filled yet."""

    rows: int
    read: Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Batches:
    """An iterable of (B, D) float32 tensors (or of tuples of them) in an order fixed by the seed, which can begin at
    any batch: the groups before it are passed over unread."""

    source: ActivationSource
    hooks: tuple[str, ...]
    single: bool
    batch_size: int
    epochs: float
    seed: int
    buffer: int
    """Tokens that are mixed with each other."""
    blocks: range
    """Of the text."""
    pairs: Pairing | None = None
    """Rows 2i and 2i + 1 of a batch are two positions of one document (see `pairs`); None: rows stand alone."""
    held_out: dict[str, Any] = field(default_factory=dict)
    """What the run that reads this is measured on: it goes on only with the same."""
    counted: list[Tensor] = field(default_factory=list, repr=False)
    """What a store keeps here once it is known: which positions are given out."""

    @property
    def recipe(self) -> dict[str, Any]:
        """What fixes the order and the content, for a run that goes on to compare."""
        text = self.source.recipe["tokens_sha256"]
        fields = {"hooks": list(self.hooks), "epochs": self.epochs, "seed": self.seed, "buffer": self.buffer}
        fields |= {"blocks": [self.blocks.start, self.blocks.stop], "held_out": self.held_out}
        fields |= {"pairs": self.pairs} if self.pairs else {}
        fields |= {"stored": stored} if (stored := self.source.recipe.get("stored")) else {}
        fields |= {"items_sha256": items} if (items := self.source.blocks.items_sha256()) else {}
        return fields | {"tokens_sha256": text, "model_sha256": self.source.recipe["model_sha256"]}

    @cached_property
    def rows(self) -> int:
        """Rows of one epoch."""
        return self.source.rows(self)

    def __len__(self) -> int:
        return int(self.rows * self.epochs) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Any]:
        """The batches from number `first` on."""
        left, skip = len(self) - first, first * self.batch_size
        carry: tuple[Tensor, ...] | None = None
        epoch = 0
        while left > 0:
            for group in self.source.groups(self, epoch):
                held = 0 if carry is None else len(carry[0])
                if skip >= group.rows + held:
                    skip, carry = skip - group.rows - held, None
                    continue
                made: tuple[Tensor, ...] = ()  # a buffer goes before the next is filled
                made = group.read()
                if carry is not None:
                    made = tuple(torch.cat([old, new]) for old, new in zip(carry, made, strict=True))
                made, skip = tuple(x[skip:] for x in made), 0
                whole = len(made[0]) // self.batch_size * self.batch_size
                for start in range(0, whole, self.batch_size):
                    if left <= 0:
                        return
                    batch = tuple(x[start : start + self.batch_size].float() for x in made)
                    yield batch[0] if self.single else batch
                    left -= 1
                carry = tuple(x[whole:].clone() for x in made)
            epoch += 1


def make_batches(
    source: ActivationSource,
    hook_names: str | Sequence[str],
    batch_size: int,
    epochs: float,
    seed: int,
    buffer: int,
    blocks: range | None,
    pairs: str | None,
) -> Batches:
    """A source's batches at hook points, of `blocks` of its text (all, without).

    Raises InterpError when a hook point is not there, for no positive number of epochs, and for an odd batch of pairs.
    """
    how = pairing(pairs, batch_size)
    hooks = names(hook_names)
    for name in hooks:
        source.check_hook(name)
    if not 0 < epochs < float("inf"):
        raise InterpError(f"epochs is {epochs}; it must be a positive number of passes.")
    blocks = range(len(source.blocks.tokens_NT)) if blocks is None else blocks
    return Batches(source, hooks, isinstance(hook_names, str), batch_size, epochs, seed, buffer, blocks, how)


@dataclass(frozen=True, eq=False)
class Together:
    """Several `Batches` in step, each as it would be alone: tuples with one batch of each, None for one that has ended."""

    parts: tuple[Batches, ...]

    @property
    def batch_size(self) -> int:
        return self.parts[0].batch_size

    @property
    def lengths(self) -> tuple[int, ...]:
        """Batches of each part."""
        return tuple(len(part) for part in self.parts)

    def __len__(self) -> int:
        return max(self.lengths)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[tuple[Any, ...]]:
        """The tuples from number `first` on."""
        return zip_longest(*(part.from_batch(first) for part in self.parts))


def names(hook_names: str | Sequence[str]) -> tuple[str, ...]:
    return (hook_names,) if isinstance(hook_names, str) else tuple(hook_names)
