"""Activations on disk, position by position.

Axes    N position, D width at a hook point.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.activations import manifest as manifests
from interp.activations.batches import Batches, Group, make_batches
from interp.activations.eight_bit import INT8, read_bytes
from interp.activations.manifest import known_sha256, read_manifest
from interp.activations.pairs import paired, paired_rows
from interp.activations.remote import Fetching
from interp.corpus import TokenBlocks
from interp.mask import Mask, norm_cutoff
from interp.objects import ObjectFolder, is_url
from interp.render.terminal import say
from interp.render.words import counted
from interp.types import InterpError, unknown

BUFFER = 1_048_576
"""Tokens that a store's batches are mixed over."""


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Activations on disk, position by position, with the mask that leaves sinks out."""

    folder: Path
    """Where its files lie; of a store at a URL, those that were fetched."""
    recipe: dict[str, Any]
    shards: list[dict[str, Any]] = field(repr=False)
    _cutoffs: dict[str, float] = field(default_factory=dict, repr=False)
    fetching: Fetching | None = field(default=None, repr=False)
    """Of a store at a URL, what brings its shards here."""

    @staticmethod
    def open(folder: str | Path, *, shards: int | None = None) -> "ActivationStore":
        """The store in a folder or at a URL that `harvest` wrote, or its first `shards`, which an unfinished one may have too.

        Raises InterpError when there is none, when it is unfinished or has not so many shards yet, and when the URL cannot be
        reached.
        """
        fetching = Fetching(ObjectFolder.at(str(folder))) if is_url(folder) else None
        path: Path | str = fetching.there.url if fetching else Path(folder)
        if fetching:
            manifest = fetching.begin()
        elif (Path(path) / "manifest.json").exists():
            manifest = read_manifest(Path(path))
        else:
            raise InterpError(
                f"there are no activations in {path}; `interp harvest MODEL CORPUS HOOK --into {path}` makes them."
            )
        found = manifest["shards"]
        whole = manifest["recipe"] and sum(s["positions"] for s in found) >= manifest["recipe"]["positions"]
        if not whole if shards is None else len(found) < shards:
            raise InterpError(
                f"the harvest in {path} is not finished ({counted(len(found), 'shard')} so far); run the same "
                "`interp harvest` again: it goes on."
            )
        if fetching:
            fetching.tell(len(found))
        store = ActivationStore(
            fetching.folder if fetching else Path(path), manifest["recipe"], found, fetching=fetching
        )
        return store if shards is None else store.head(shards)

    @property
    def where(self) -> str:
        """The folder or URL, as sentences name it."""
        return self.fetching.there.url if self.fetching else str(self.folder)

    @property
    def positions(self) -> int:
        return int(self.recipe["positions"])

    @cached_property
    def blocks(self) -> TokenBlocks:
        """The text; InterpError when its files are not those that the manifest speaks of."""
        whole = TokenBlocks.load(self.folder)
        rows = self.positions // whole.block
        if rows > len(whole.tokens_NT) or whole.block != self.recipe["block"] or self.positions % whole.block:
            raise InterpError(
                f"the tokens in {self.where} are not those its manifest.json speaks of; harvest again with --restart."
            )
        return replace(whole, tokens_NT=whole.tokens_NT[:rows], document_NT=whole.document_NT[:rows])

    def head(self, shards: int) -> "ActivationStore":
        """The first shards as a store of their own."""
        kept = self.shards[:shards]
        recipe = self.recipe | {"positions": sum(s["positions"] for s in kept)}
        return ActivationStore(self.folder, recipe, kept, fetching=self.fetching)

    def check_hook(self, hook_name: str) -> None:
        """Raises InterpError when that hook point was not harvested."""
        if hook_name not in self.recipe["hooks"]:
            raise unknown("harvested hook point", hook_name, self.recipe["hooks"])

    def read(self, shard: dict[str, Any], key: str) -> Tensor:
        """One tensor of a shard, in the dtype it was harvested in; its hash is compared when it is first read.

        Raises InterpError when the shard is not the one that was harvested, or cannot be read.
        """
        path = self.folder / shard["file"]
        try:
            at_hand = self.fetching.at_hand(shard, key) if self.fetching else _checked(path, shard.get("sha256", ""))
            with at_hand as path, safe_open(path, framework="pt") as file:
                stored = INT8 if not key.startswith(manifests.NORM) and self.recipe.get("stored") == INT8 else ""
                tensor = read_bytes(file, key, self.recipe["dtype"]) if stored else file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            again = "delete it, and it is fetched again" if self.fetching else "harvest again with --restart"
            raise InterpError(f"{path} cannot be read ({error}); {again}.") from None
        if len(tensor) != shard["positions"]:
            raise InterpError(
                f"{path} holds {len(tensor):,} positions, and its manifest.json says {shard['positions']:,}; harvest again "
                "with --restart."
            )
        return tensor

    def norms(self, hook_name: str) -> Float[Tensor, " N"]:
        self.check_hook(hook_name)
        return torch.cat([self.read(shard, f"norm/{hook_name}") for shard in self.shards])

    def norm_cutoff(self, hook_name: str) -> float:
        """The norm above which a position is a sink: see `mask.norm_cutoff`."""
        if hook_name not in self._cutoffs:
            self._cutoffs[hook_name] = cutoff_of(self.norms(hook_name), self.blocks.real_NT(), hook_name)
        return self._cutoffs[hook_name]

    def keep(self, hook_name: str, norm_cutoff: float | None = None) -> Bool[Tensor, " N"]:
        """True where a position counts: a document's own token that is no sink."""
        cutoff = self.norm_cutoff(hook_name) if norm_cutoff is None else norm_cutoff
        return Mask({hook_name: cutoff}).counted({hook_name: self.norms(hook_name)}, self.blocks.real_NT().reshape(-1))

    def in_order(self, hook_name: str) -> Iterator[tuple[int, Float[Tensor, "N D"]]]:
        """(first position, activations) shard by shard."""
        self.check_hook(hook_name)
        for shard in self.shards:
            yield shard["first"], self.read(shard, hook_name)

    def pieces(self, hook_name: str) -> Iterator[tuple[int, int, Callable[[], Tensor]]]:
        """(first position, positions, function that gives the activations) shard by shard."""
        self.check_hook(hook_name)
        for shard in self.shards:

            def read(shard: dict[str, Any] = shard) -> Tensor:
                return self.read(shard, hook_name)

            yield shard["first"], shard["positions"], read

    def width(self, hook_name: str) -> int:
        self.check_hook(hook_name)
        return int(self.read(self.shards[0], hook_name).shape[1])

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
        """Shuffled float32 batches for training, sinks left out, mixed over `buffer` tokens; see `Batches`.

        Of several hook points: tuples of tensors, of the positions that count at all of them. Of `blocks` of the text
        only, if given. With `pairs` rows 2i and 2i + 1 are two positions of one document, and pairs are shuffled.
        """
        return make_batches(self, hook_names, batch_size, epochs, seed, buffer, blocks, pairs)

    def group_size(self, buffer: int) -> int:
        """Shards that fill a buffer."""
        return max(1, buffer // manifests.SHARD_POSITIONS)

    def mixing(self, shards: int) -> None:
        """Of a store at a URL: keep here at least as many shards as are mixed with each other."""
        if self.fetching:
            self.fetching.mixing(shards)

    def groups(self, batches: Batches, epoch: int) -> Iterator[Group]:
        """An epoch's shuffle buffers: the shards in a new order, so many at a time, their rows (or pairs) permuted."""
        keep, document = self.counted(batches), self.blocks.document_NT.reshape(-1)

        def mask(shard: dict[str, Any]) -> Tensor:
            return keep[_span(shard)]

        draw = torch.Generator().manual_seed(batches.seed * 1_000_003 + epoch)
        mixed = [self.shards[i] for i in torch.randperm(len(self.shards), generator=draw).tolist()]
        mixed, size = [shard for shard in mixed if mask(shard).any()], self.group_size(batches.buffer)
        self.mixing(min(size, len(mixed)))
        for start in range(0, len(mixed), size):
            shards = mixed[start : start + size]
            rows = torch.cat([mask(shard) for shard in shards])
            if batches.pairs:
                documents = torch.cat([document[_span(shard)] for shard in shards])
                rows = paired(rows, documents, self.blocks.block, batches.pairs, draw)
            else:
                rows = rows.nonzero()
            order = torch.randperm(len(rows), generator=draw)

            def read(
                shards: list[dict[str, Any]] = shards, rows: Tensor = rows, order: Tensor = order
            ) -> tuple[Tensor, ...]:
                mixed = rows[order].view(-1)
                return tuple(self._mixed(shards, hook, mixed) for hook in batches.hooks)

            yield Group(rows.numel(), read)

    def _mixed(self, shards: list[dict[str, Any]], hook_name: str, rows_R: Tensor) -> Tensor:
        """These rows of the shards, counted through all of them, in that order; beside them one shard is in memory at a time."""
        first, mixed_RD = 0, torch.empty(0)
        for shard in shards:
            x_ND = self.read(shard, hook_name)
            if not first:
                mixed_RD = x_ND.new_empty(len(rows_R), x_ND.shape[1])
            there = ((rows_R >= first) & (rows_R < first + len(x_ND))).nonzero().squeeze(1)
            mixed_RD[there] = x_ND[rows_R[there] - first]
            first += len(x_ND)
        return mixed_RD

    def rows(self, batches: Batches) -> int:
        """Rows of one epoch."""
        kept = self.counted(batches)
        if batches.pairs:
            return paired_rows(kept, self.blocks.document_NT.reshape(-1), self.blocks.block, batches.pairs)
        return int(kept.sum())

    def counted(self, batches: Batches) -> Bool[Tensor, " N"]:
        """True at the positions of the batches' blocks that count at every hook point."""
        if not batches.counted:
            hooks, block = batches.hooks, self.blocks.block
            mask = Mask({hook: self.norm_cutoff(hook) for hook in hooks})
            kept = mask.counted({hook: self.norms(hook) for hook in hooks}, self.blocks.real_NT().reshape(-1))
            kept[: batches.blocks.start * block] = False
            kept[batches.blocks.stop * block :] = False
            batches.counted.append(kept)
        return batches.counted[0]


def _span(shard: dict[str, Any]) -> slice:
    """The shard's positions in the text."""
    return slice(shard["first"], shard["first"] + shard["positions"])


@contextmanager
def _checked(path: Path, wanted: str) -> Iterator[Path]:
    """The file; InterpError when it has not the hash that its manifest names (which may name none)."""
    if wanted and known_sha256(path) != wanted:
        raise InterpError(
            f"{path} is not the shard that was harvested (its SHA-256 differs from manifest.json's): it was changed, "
            "swapped or cut short. Harvest again with --restart."
        )
    yield path


def cutoff_of(norms_N: Tensor, real_NT: Tensor, hook_name: str) -> float:
    """The cut-off of a hook point's norms (`mask.norm_cutoff`).

    Says how many of them are not finite, which are left out; InterpError when none is left.
    """
    real_N = norms_N[real_NT.reshape(-1)]
    finite_N = real_N[real_N.isfinite()]
    if not len(finite_N):
        raise InterpError(
            f"no position of {hook_name} counts: of {len(norms_N):,} positions {len(real_N):,} are a document's own "
            "tokens, and none of them is finite; check the text, or harvest again in float32."
        )
    if len(finite_N) < len(real_N):
        say(f"{len(real_N) - len(finite_N):,} positions of {hook_name} hold a NaN or an infinity and are left out.")
    return norm_cutoff(finite_N)
