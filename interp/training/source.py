"""Batches as the loop takes them: from any number on, with rows looked at beforehand and rows kept back at the end."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from interp.sae.architecture import Architecture
from interp.training.optimise import sides


def rows_of(batch: Any) -> int:
    """Rows of a batch, or of the first part of one that is there."""
    while not isinstance(batch, Tensor):
        if not isinstance(batch, tuple | list):
            return 0  # `optimise` says what a batch is
        batch = next((part for part in batch if part is not None), None)
    return len(batch) if batch.ndim else 0


def total_rows(batches: Any, column: int | None = None) -> int | None:
    """Rows that the batches (or a column of them) hold, when they say so."""
    if column is not None and hasattr(batches, "lengths"):
        return int(batches.lengths[column]) * int(batches.batch_size)
    if hasattr(batches, "__len__") and hasattr(batches, "batch_size"):
        return len(batches) * int(batches.batch_size)
    return None


def pick(batch: Any, column: int | None) -> Any:
    """The part of a batch that a run reads."""
    return batch if column is None else batch[column]


class Source:
    """Batches from number `first` on; the last `back` rows are never given out."""

    def __init__(self, batches: Any, first: int, back: int) -> None:
        if hasattr(batches, "from_batch"):
            self.iterator: Iterator[Any] = batches.from_batch(first)
        else:
            self.iterator = iter(batches)
            for _ in range(first):
                next(self.iterator, None)
        self.back, self.queue, self.held = back, deque[Any](), 0

    def peek(self, rows: int) -> list[Any]:
        """The first batches, with that many rows if there are; they are still given out afterwards."""
        while self.held < rows and self._draw():
            pass
        return list(self.queue)

    def __iter__(self) -> Iterator[Any]:
        while self.queue or self._draw():
            own = rows_of(self.queue[0])
            while self.held - own < self.back:
                if not self._draw():
                    return
            self.held -= own
            yield self.queue.popleft()

    def _draw(self) -> bool:
        batch = next(self.iterator, None)
        if batch is not None:
            self.queue.append(batch)
            self.held += rows_of(batch)
        return batch is not None

    def kept(self, architecture: Architecture, column: int | None) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of the `back` rows after the last batch given out: the same however the run got there."""
        while self.held < self.back and self._draw():
            pass
        picked = [pick(batch, column) for batch in self.queue]
        pairs = [sides(batch, architecture) for batch in picked if batch is not None]
        empty = torch.zeros(0, architecture.d_in), torch.zeros(0, architecture.d_out)
        parts = zip(*pairs, strict=True) if pairs else [(side,) for side in empty]
        inputs, targets = (torch.cat(list(part))[: self.back] for part in parts)
        return inputs, targets
