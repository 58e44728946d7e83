"""Batches as the loop takes them: from any number on, with rows looked at beforehand and rows kept back at the end."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from interp.sae.architecture import Architecture
from interp.training.optimise import Batch, sides
from interp.types import InterpError


def rows_of(batch: Batch) -> int:
    return len(batch if isinstance(batch, Tensor) else batch[0])


def total_rows(batches: Any) -> int | None:
    """Rows that the batches hold, when they say so."""
    if hasattr(batches, "__len__") and hasattr(batches, "batch_size"):
        return len(batches) * int(batches.batch_size)
    return None


class Source:
    """Batches from number `first` on; at least the last `back` rows are never given out."""

    def __init__(self, batches: Any, first: int, back: int) -> None:
        if hasattr(batches, "from_batch"):
            self.iterator: Iterator[Batch] = batches.from_batch(first)
        else:
            self.iterator = iter(batches)
            for _ in range(first):
                next(self.iterator, None)
        self.back, self.queue = back, deque[Batch]()

    def peek(self, rows: int) -> list[Batch]:
        """The first batches, with that many rows if there are; they are still given out afterwards."""
        while self._held() < rows and self._draw():
            pass
        if not self.queue:
            raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
        return list(self.queue)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            while self._held() <= self.back + (rows_of(self.queue[0]) if self.queue else 0) and self._draw():
                pass
            if not self.queue or self._held() <= self.back:
                return
            yield self.queue.popleft()

    def _draw(self) -> bool:
        batch = next(self.iterator, None)
        if batch is not None:
            self.queue.append(batch)
        return batch is not None

    def _held(self) -> int:
        return sum(map(rows_of, self.queue))

    def kept(self, rows: int, architecture: Architecture) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of the rows that were not given out."""
        pairs = [sides(batch, architecture) for batch in self.queue]
        empty = torch.zeros(0, architecture.d_in), torch.zeros(0, architecture.d_out)
        parts = zip(*pairs, strict=True) if pairs else [(side,) for side in empty]
        inputs, targets = (torch.cat(list(part))[:rows] for part in parts)
        return inputs, targets
