"""Batches as the loop takes them: from any number on, with rows looked at beforehand and rows kept back at the end."""

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from interp.sae.architecture import Architecture
from interp.training.batch import joined, pick, rows_of
from interp.types import InterpError


class BatchQueue:
    """Batches from number `first` on; the last `back` rows are never given out. Empty batches are passed over."""

    def __init__(self, batches: Any, first: int, back: int) -> None:
        self.skipped: int | None = None
        """Rows of the batches before `first`, where they had to be gone through."""
        if hasattr(batches, "from_batch"):
            self.iterator: Iterator[Any] = filter(rows_of, batches.from_batch(first))
        else:
            self.iterator = filter(rows_of, batches)
            self.skipped = sum(rows_of(batch) for batch in islice(self.iterator, first))
        self.back, self.queue, self.held = back, deque[Any](), 0
        self.seconds: list[float] = []
        """Of the first draws, those that `peek` made."""
        own = getattr(batches, "parts", (batches,))[0]
        self.fill: int | None = None
        """Batches that one filling of the shuffle buffer gives, where the batches have one."""
        if hasattr(own, "buffer"):
            self.fill = max(min(own.buffer, own.rows) // own.batch_size, 1)

    def check_skipped(self, tokens: int, step: int) -> None:
        """Raises InterpError when the batches passed over are not those that a saved run was trained on."""
        if self.skipped is not None and self.skipped != tokens:
            raise InterpError(
                f"the first {step:,} batches hold {self.skipped:,} rows, and held {tokens:,} when this run was saved; it "
                "goes on only with the batches it began with (--restart begins anew)."
            )

    def peek(self, rows: int) -> list[Any]:
        """The first batches, with that many rows if there are; they are still given out afterwards."""
        more = True
        while self.held < rows and more:
            began = time.perf_counter()
            more = self._draw()
            self.seconds.append(time.perf_counter() - began)
        return list(self.queue)

    def seconds_of(self, count: int) -> float:
        """Seconds to draw what so many batches need beyond those that `peek` drew, by these. What the first took more
        than the others is the price of filling a buffer, where there is one."""
        count, usual = max(count - len(self.queue), 0), sorted(self.seconds)[len(self.seconds) // 2]
        return count * usual + (self.seconds[0] - usual) * (count // self.fill if self.fill else 0)

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

    def kept(self, architecture: Architecture, column: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of the `back` rows after the last batch given out: the same however the run got there."""
        while self.held < self.back and self._draw():
            pass
        picked = [pick(batch, column) for batch in self.queue]
        return joined([batch for batch in picked if batch is not None], architecture, self.back, device)
