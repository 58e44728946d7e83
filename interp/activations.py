"""Harvest a model's activations, keep them on disk, and mix them into training batches.

Axes    N position, B batch, D width at the hook point.

A store is a folder: `manifest.json`, `tokens.parquet` and `documents.parquet` (the text, see corpus), and
`shard-00000.safetensors` and so on, each with one (N, D) tensor a hook point and the norms of its rows.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.corpus import Corpus, TokenBlocks, tokenize
from interp.models import Model
from interp.progress import bar, say
from interp.types import InterpError, unknown

FORMAT = 1
SHARD_POSITIONS = 65_536
SINK_RATIO = 6.0
"""A position is a sink when its norm exceeds this many times the median (field: layer 15's are 100 times)."""


def harvest(
    model: Model,
    corpus: Corpus,
    hook_names: Sequence[str],
    tokens: int,
    into: str | Path,
    *,
    split: str | None = None,
    batch_blocks: int = 16,
    restart: bool = False,
) -> "ActivationStore":
    """The store of activations at `hook_names` over `tokens` positions of the corpus.

    One forward pass feeds all hook points and ends at the last. Killed at any moment, the same call goes on
    with the first shard that is missing. Says beforehand how much disk and time it expects. Raises
    InterpError when the disk has no room, and when the folder holds another harvest (unless `restart`).
    """
    folder = Path(into)
    for name in hook_names:
        model.check_hook(name)
    if not hook_names or tokens <= 0:
        raise InterpError("nothing to harvest: name at least one hook point and one token.")
    blocks = _blocks(model, corpus, tokens, split, folder, restart)
    recipe: dict[str, Any] = {
        "format": FORMAT,
        "model": model.name,
        "source": model.source,
        "model_sha256": model.fingerprint(),
        "dtype": model.dtype_name,
        "attention": model.attention,
        "hooks": list(dict.fromkeys(hook_names)),
        "corpus": {"name": corpus.name, "licence": corpus.licence, "version": corpus.version, "split": split},
        "positions": blocks.positions,
        "block": blocks.block,
        "separator": blocks.separator,
        "tokens_sha256": blocks.sha256(),
    }
    manifest = _manifest(folder, recipe, restart)
    per_shard = SHARD_POSITIONS // blocks.block
    starts = list(range(0, len(blocks.tokens_NT), per_shard))
    todo = starts[len(manifest["shards"]) :]
    left = sum(len(blocks.tokens_NT[start : start + per_shard]) for start in todo) * blocks.block
    if todo:
        _estimate(model, blocks, recipe["hooks"], left, batch_blocks, folder)
    with bar(f"harvest {model.name}", left) as step:
        for start in todo:
            rows = blocks.tokens_NT[start : start + per_shard]
            tensors = _shard(model, rows, recipe["hooks"], batch_blocks, step)
            name = f"shard-{start // per_shard:05d}.safetensors"
            with places.whole_file(folder / name) as partial:
                _save(tensors, partial)
                digest = places.sha256_file(partial)
            entry = {"file": name, "first": start * blocks.block, "positions": rows.numel(), "sha256": digest}
            manifest["shards"].append(entry)
            places.write_json(folder / "manifest.json", manifest)
    return ActivationStore.open(folder)


def _blocks(model: Model, corpus: Corpus, tokens: int, split: str | None, folder: Path, restart: bool) -> TokenBlocks:
    """The token blocks on disk, or new ones written there."""
    if (folder / "documents.parquet").exists() and (folder / "manifest.json").exists() and not restart:
        asked = {"corpus": corpus.name, "version": corpus.version, "tokens": tokens, "split": split}
        kept = places.read_json(folder / "manifest.json")["asked"]
        _refuse_change(folder, kept, asked)
        return TokenBlocks.load(folder)
    blocks = tokenize(corpus, model, tokens, split=split)
    if blocks.positions < tokens * 0.99:
        say(f"the corpus ends after {blocks.positions:,} tokens; {tokens:,} were asked.")
    for stale in folder.glob("shard-*.safetensors"):
        stale.unlink()
    (folder / "manifest.json").unlink(missing_ok=True)
    blocks.save(folder)
    asked = {"corpus": corpus.name, "version": corpus.version, "tokens": tokens, "split": split}
    places.write_json(folder / "manifest.json", {"asked": asked, "recipe": None, "shards": []})
    return blocks


def _manifest(folder: Path, recipe: dict[str, Any], restart: bool) -> dict[str, Any]:
    manifest = places.read_json(folder / "manifest.json")
    if manifest["recipe"] is None or restart:
        manifest |= {"recipe": recipe, "shards": []}
        places.write_json(folder / "manifest.json", manifest)
    _refuse_change(folder, manifest["recipe"], recipe)
    return manifest


def _refuse_change(folder: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if kept.get(key) != value:
            raise InterpError(
                f"{folder} holds a harvest with {key} = {kept.get(key)!r}, and {value!r} was asked; "
                "choose another folder, or restart (--restart) to replace it."
            )


def _estimate(
    model: Model, blocks: TokenBlocks, hooks: list[str], positions: int, batch_blocks: int, folder: Path
) -> None:
    """Say what the harvest will take, from one timed batch; refuse when the disk has no room."""
    rows = blocks.tokens_NT[:batch_blocks]
    seen = model.run(rows[:1], hooks).activations
    width = sum(int(x.shape[-1]) * x.element_size() for x in seen.values())
    needed, free = positions * width, places.free_bytes(folder)
    if needed * 1.02 > free:
        raise InterpError(
            f"the harvest needs {needed / 2**30:.1f} GiB in {folder}, which has {free / 2**30:.1f} free; "
            "ask for fewer tokens or hook points, or choose a folder on a larger disk."
        )
    began = time.perf_counter()
    model.run(rows, hooks)
    rate = rows.numel() / (time.perf_counter() - began)
    say(
        f"harvest: {positions:,} tokens, {needed / 2**30:.2f} GiB, about {positions / rate / 60:.1f} min at {rate:,.0f} tokens/s"
    )


def _shard(model: Model, rows_NT: Tensor, hooks: list[str], batch_blocks: int, step: Any) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {name: [] for name in hooks}
    for batch in rows_NT.split(batch_blocks):
        for name, x in model.run(batch, hooks).activations.items():
            if x.ndim != 3:
                raise InterpError(
                    f"{name} has shape {tuple(x.shape)}; only hook points of shape (B, T, D) can be harvested."
                )
            parts[name].append(x.reshape(-1, x.shape[-1]).cpu())
        step(batch.numel())
    tensors = {name: torch.cat(xs) for name, xs in parts.items()}
    return tensors | {f"norm/{name}": x.float().norm(dim=-1) for name, x in tensors.items()}


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a full disk arrives wrapped
        if "os error 28" in str(error).lower() or "no space" in str(error).lower():
            raise places.disk_error(path, OSError(28, "no space left on device")) from error
        raise InterpError(f"cannot write {path}: {error}.") from error


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Activations on disk, position by position, with the mask that leaves sinks out."""

    folder: Path
    recipe: dict[str, Any]
    shards: list[dict[str, Any]] = field(repr=False)

    @staticmethod
    def open(folder: str | Path) -> "ActivationStore":
        """The store in a folder that `harvest` wrote; InterpError when there is none or it is unfinished."""
        path = Path(folder)
        manifest = places.read_json(path / "manifest.json")
        shards = manifest["shards"]
        if manifest["recipe"] is None or sum(s["positions"] for s in shards) < manifest["recipe"]["positions"]:
            raise InterpError(
                f"the harvest in {path} is not finished; run the same `interp harvest` again: it goes on."
            )
        return ActivationStore(path, manifest["recipe"], shards)

    @property
    def positions(self) -> int:
        return int(self.recipe["positions"])

    @cached_property
    def blocks(self) -> TokenBlocks:
        whole = TokenBlocks.load(self.folder)
        rows = self.positions // whole.block
        return replace(whole, tokens_NT=whole.tokens_NT[:rows], document_NT=whole.document_NT[:rows])

    def head(self, shards: int) -> "ActivationStore":
        """The first shards as a store of their own."""
        kept = self.shards[:shards]
        return ActivationStore(self.folder, self.recipe | {"positions": sum(s["positions"] for s in kept)}, kept)

    def check_hook(self, hook_name: str) -> None:
        if hook_name not in self.recipe["hooks"]:
            raise unknown("harvested hook point", hook_name, self.recipe["hooks"])

    def read(self, shard: dict[str, Any], key: str) -> Tensor:
        """One tensor of a shard, in the dtype it was harvested in."""
        path = self.folder / shard["file"]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise InterpError(f"{path} cannot be read ({error}); harvest again with --restart.") from None

    def norms(self, hook_name: str) -> Float[Tensor, " N"]:
        self.check_hook(hook_name)
        return torch.cat([self.read(shard, f"norm/{hook_name}") for shard in self.shards])

    def norm_cutoff(self, hook_name: str) -> float:
        """`SINK_RATIO` times the median norm of the real positions: above it, a position is a sink."""
        real = self.blocks.real_NT().reshape(-1)
        return SINK_RATIO * float(self.norms(hook_name)[real].median())

    def keep(self, hook_name: str, norm_cutoff: float | None = None) -> Bool[Tensor, " N"]:
        """True where a position counts: a document's own token that is no sink."""
        cutoff = self.norm_cutoff(hook_name) if norm_cutoff is None else norm_cutoff
        return self.blocks.real_NT().reshape(-1) & (self.norms(hook_name) <= cutoff)

    def in_order(self, hook_name: str) -> Iterator[tuple[int, Float[Tensor, "N D"]]]:
        """(first position, activations) shard by shard."""
        self.check_hook(hook_name)
        for shard in self.shards:
            yield shard["first"], self.read(shard, hook_name)

    def batches(
        self, hook_name: str, batch_size: int, *, epochs: float = 1.0, seed: int = 0, buffer: int = 1_048_576
    ) -> "Batches":
        """Shuffled float32 batches for training, sinks left out; see `Batches`."""
        self.check_hook(hook_name)
        return Batches(self, hook_name, batch_size, epochs, seed, max(1, buffer // SHARD_POSITIONS))


@dataclass(frozen=True, eq=False)
class Batches:
    """An iterable of (B, D) float32 tensors in an order fixed by the seed, which can begin at any batch.

    Each epoch draws the shards in a new order and mixes `group` of them at a time: the shuffle buffer.
    """

    store: ActivationStore
    hook_name: str
    batch_size: int
    epochs: float
    seed: int
    group: int

    @cached_property
    def _keep(self) -> Tensor:
        return self.store.keep(self.hook_name)

    @cached_property
    def rows(self) -> int:
        """Rows of one epoch."""
        return int(self._keep.sum())

    def __len__(self) -> int:
        return int(self.rows * self.epochs) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Float[Tensor, "B D"]]:
        """The batches from number `first` on; groups before it are passed over unread."""
        left, skip = len(self) - first, first * self.batch_size
        carry: Tensor | None = None
        epoch = 0
        while left > 0:
            for kept, shards, order in self._groups(epoch):
                rows = int(kept.sum())
                held = 0 if carry is None else len(carry)
                if skip >= rows + held:
                    skip, carry = skip - rows - held, None
                    continue
                x = torch.cat([self.store.read(shard, self.hook_name) for shard in shards])[kept][order]
                x = x if carry is None else torch.cat([carry, x])
                x, skip = x[skip:], 0
                whole = len(x) // self.batch_size * self.batch_size
                for start in range(0, whole, self.batch_size):
                    if left <= 0:
                        return
                    yield x[start : start + self.batch_size].float()
                    left -= 1
                carry = x[whole:].clone()
            epoch += 1

    def _groups(self, epoch: int) -> Iterator[tuple[Tensor, list[dict[str, Any]], Tensor]]:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        ids = torch.randperm(len(self.store.shards), generator=draw).tolist()
        for start in range(0, len(ids), self.group):
            shards = [self.store.shards[i] for i in ids[start : start + self.group]]
            kept = torch.cat([self._keep[s["first"] : s["first"] + s["positions"]] for s in shards])
            yield kept, shards, torch.randperm(int(kept.sum()), generator=draw)
