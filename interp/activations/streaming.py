"""Activations as a model makes them, for when the disk is small.

Axes    N position, T position in a block, D width at a hook point.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.activations import manifest as manifests
from interp.activations.batches import Batches, Group, make_batches, names
from interp.activations.harvesting import run_shard
from interp.activations.manifest import recipe_of
from interp.activations.pairs import paired, paired_rows
from interp.activations.store import cutoff_of
from interp.corpus import Corpus, TokenBlocks, tokenize
from interp.mask import Mask
from interp.models import Model
from interp.types import InterpError, unknown

BUFFER = 262_144
"""Tokens that a stream's batches are mixed over."""
CUTOFF_BLOCKS = 64
"""Of the first blocks' norms the cut-off for sinks is made."""
SPARE = 0.01
"""The share of a buffer's positions that is left for sinks."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A model's activations as they are made: nothing is written to disk, and `batches` is as an `ActivationStore`'s.

    A shuffle buffer is filled by running the model over its tokens, so a run that goes on runs the model over the
    buffer it was in, once more.
    """

    model: Model
    blocks: TokenBlocks
    recipe: dict[str, Any]
    batch_blocks: int = 16
    _last: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def positions(self) -> int:
        return self.blocks.positions

    def shuffled(self, seed: int, last: int) -> "Stream":
        """The same with its blocks in another order, all but the `last`: so that a buffer holds parts of many texts."""
        blocks = self.blocks.shuffled(seed, last)
        recipe = self.recipe | {"tokens_sha256": blocks.sha256(), "blocks_shuffled": {"seed": seed, "but": last}}
        return Stream(self.model, blocks, recipe, self.batch_blocks)

    def check_hook(self, hook_name: str) -> None:
        """Raises InterpError when that hook point is not streamed."""
        if hook_name not in self.recipe["hooks"]:
            raise unknown("streamed hook point", hook_name, self.recipe["hooks"])

    def pieces(self, hook_name: str) -> Iterator[tuple[int, int, Callable[[], Tensor]]]:
        """As an `ActivationStore`'s; the model runs when a piece's function is called."""
        self.check_hook(hook_name)
        per = manifests.SHARD_POSITIONS // self.blocks.block
        for start in range(0, len(self.blocks.tokens_NT), per):
            some = range(start, min(start + per, len(self.blocks.tokens_NT)))

            def read(some: range = some) -> Tensor:
                return self._run(some, (hook_name,))[0]

            yield start * self.blocks.block, len(some) * self.blocks.block, read

    def width(self, hook_name: str) -> int:
        self.check_hook(hook_name)
        return int(self._run(range(1), (hook_name,))[0].shape[-1])

    def norm_cutoff(self, hook_name: str) -> float:
        """The norm above which a position is a sink, from the first blocks' (see `mask.norm_cutoff`)."""
        self.check_hook(hook_name)
        key = f"cutoff/{hook_name}"
        if key not in self._last:
            some, hooks = range(min(CUTOFF_BLOCKS, len(self.blocks.tokens_NT))), tuple(self.recipe["hooks"])
            for hook, x_ND in zip(hooks, self._run(some, hooks), strict=True):  # of all, so that the model runs once
                norms = x_ND.float().norm(dim=1)
                self._last[f"cutoff/{hook}"] = cutoff_of(norms, self.blocks.real_NT()[:CUTOFF_BLOCKS], hook)
        return self._last[key]

    def batches(
        self,
        hook_names: str | Sequence[str],
        batch_size: int,
        *,
        epochs: float = 1.0,
        seed: int = 0,
        buffer: int = BUFFER,
        blocks: range | None = None,
        pairs: str | None = None,
    ) -> Batches:
        """As an `ActivationStore`'s; a buffer is filled with texts in their order.

        Raises InterpError when the buffer is smaller than a batch.
        """
        if buffer < batch_size:
            raise InterpError(f"the shuffle buffer is {buffer} tokens, less than a batch of {batch_size}; enlarge it.")
        return make_batches(self, hook_names, batch_size, epochs, seed, buffer, blocks, pairs)

    def groups(self, batches: Batches, epoch: int) -> Iterator[Group]:
        """An epoch's shuffle buffers, in the order of the text (so a corpus should be mixed, as `mix` does)."""
        draw = torch.Generator().manual_seed(batches.seed * 1_000_003 + epoch)
        for part, rows in self._counts(batches):
            seed = int(torch.randint(2**62, (1,), generator=draw))

            def read(part: range = part, rows: int = rows, seed: int = seed) -> tuple[Tensor, ...]:
                return self._fill(batches, part, rows, seed)

            yield Group(rows, read)

    def rows(self, batches: Batches) -> int:
        """Rows of one epoch."""
        return sum(rows for _, rows in self._counts(batches))

    def _counts(self, batches: Batches) -> list[tuple[range, int]]:
        """(blocks, rows given out) of each buffer: whole batches, a hundredth left for sinks, so that the numbers
        are known before the model runs."""
        per = max(1, batches.buffer // self.blocks.block)
        real_NT, documents = self.blocks.real_NT(), self.blocks.document_NT
        buffers = []
        for start in range(batches.blocks.start, batches.blocks.stop, per):
            part = range(start, min(start + per, batches.blocks.stop))
            real, document = (of[part.start : part.stop].reshape(-1) for of in (real_NT, documents))
            most = paired_rows(real, document, self.blocks.block, batches.pairs) if batches.pairs else int(real.sum())
            rows = int(most * (1 - SPARE)) // batches.batch_size * batches.batch_size
            if rows:
                buffers.append((part, rows))
        return buffers

    def _fill(self, batches: Batches, part: range, rows: int, seed: int) -> tuple[Tensor, ...]:
        if self._last.get("where") != part:  # one run of the model serves every hook point
            self._last.pop("made", None)  # a buffer goes before the next is filled
            made = self._run(part, tuple(self.recipe["hooks"]))
            self._last.update(where=part, made=dict(zip(self.recipe["hooks"], made, strict=True)))
        by_hook: dict[str, Tensor] = self._last["made"]
        mask = Mask({hook: self.norm_cutoff(hook) for hook in batches.hooks})
        real_N = self.blocks.real_NT()[part.start : part.stop].reshape(-1)
        counted, draw = mask.counted(by_hook, real_N), torch.Generator().manual_seed(seed)
        if batches.pairs:
            document = self.blocks.document_NT[part.start : part.stop].reshape(-1)
            kept = paired(counted, document, self.blocks.block, batches.pairs, draw)
        else:
            kept = counted.nonzero()
        if not len(kept):
            raise InterpError("no position of a shuffle buffer counts (all are padding or sinks); check the corpus.")
        order = torch.randperm(len(kept), generator=draw)
        # Where there are more sinks than were spared, some rows come twice.
        chosen = kept[order.repeat(-(-rows // kept.numel()))[: rows // kept.shape[1]]].view(-1)
        return tuple(by_hook[hook][chosen] for hook in batches.hooks)

    def _run(self, some: range, hooks: tuple[str, ...]) -> tuple[Tensor, ...]:
        made = run_shard(self.model, self.blocks, some, list(hooks), self.batch_blocks, lambda count: None)
        return tuple(made[hook] for hook in hooks)


def stream(
    model: Model, corpus: Corpus, hook_names: str | Sequence[str], tokens: int, *, split: str | None = None
) -> Stream:
    """Activations straight from the model, for when the disk is small; `Stream.batches` feeds training.

    Raises InterpError when a hook point does not exist, or none or no token is named.
    """
    hooks = list(dict.fromkeys(names(hook_names)))
    for name in hooks:
        model.check_hook(name)
    if not hooks or tokens <= 0:
        raise InterpError("nothing to stream: name at least one hook point and one token.")
    blocks = tokenize(corpus, model, tokens, split=split)
    return Stream(model, blocks, recipe_of(model, corpus, hooks, blocks, split))
