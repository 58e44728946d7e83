"""Harvest a model's activations, keep them on disk, and mix them into training batches.

Axes    N position, B batch, D width at the hook point.

A store is a folder: `manifest.json`, `tokens.parquet` and `documents.parquet` (the text, see corpus), and
`shard-00000.safetensors` and so on, each with one (N, D) tensor a hook point and the norms of its rows.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
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
from interp.progress import bar
from interp.render.terminal import say
from interp.render.words import duration, size
from interp.types import InterpError, unknown

FORMAT = 1
SHARD_POSITIONS = 65_536
BUFFER = 1_048_576
"""Tokens that a store's batches are mixed over."""
STREAM_BUFFER = 262_144
CUTOFF_BLOCKS = 64
SPARE = 0.01
_SHARD_NAME = re.compile(r"shard-\d{5,9}\.safetensors")
_SHARD: dict[str, Any] = {"file": str, "first": int, "positions": int}
_RECIPE: dict[str, Any] = {
    **dict.fromkeys(("model", "source", "model_sha256", "dtype", "attention", "tokens_sha256"), str),
    **dict.fromkeys(("positions", "block", "separator"), int),
    "hooks": list,
    "corpus": dict,
}
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
    InterpError when the disk has no room, when the folder holds another harvest (unless `restart`), and when another
    process harvests into it.
    """
    folder = Path(into)
    for name in hook_names:
        model.check_hook(name)
    if not hook_names or tokens <= 0:
        raise InterpError("nothing to harvest: name at least one hook point and one token.")
    fresh = not folder.exists()
    try:
        with places.only_one(folder, "the harvest"):
            _harvest(model, corpus, hook_names, tokens, folder, split, batch_blocks, restart)
    except InterpError:
        if fresh:  # a text that cannot be read leaves no folder behind; one that holds something stays
            with suppress(OSError):
                folder.rmdir()
        raise
    return ActivationStore.open(folder)


def _harvest(
    model: Model,
    corpus: Corpus,
    hook_names: Sequence[str],
    tokens: int,
    folder: Path,
    split: str | None,
    batch_blocks: int,
    restart: bool,
) -> None:
    blocks = _blocks(model, corpus, tokens, split, folder, restart)
    recipe = _recipe(model, corpus, list(dict.fromkeys(hook_names)), blocks, split)
    manifest = _manifest(folder, recipe, restart, model)
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
                save_file(tensors, partial)
                digest = places.sha256_file(partial)
            entry = {"file": name, "first": start * blocks.block, "positions": rows.numel(), "sha256": digest}
            manifest["shards"].append(entry)
            places.write_json(folder / "manifest.json", manifest)


def _recipe(model: Model, corpus: Corpus, hooks: list[str], blocks: TokenBlocks, split: str | None) -> dict[str, Any]:
    """What activations are of, for the card of what is trained on them."""
    return {
        "format": FORMAT,
        "model": model.name,
        "source": model.source,
        "model_sha256": model.fingerprint(),
        "dtype": model.dtype_name,
        "attention": model.attention,
        "hooks": hooks,
        "corpus": {"name": corpus.name, "licence": corpus.licence, "version": corpus.version, "split": split}
        | ({"reading": blocks.reading} if blocks.reading else {}),
        "positions": blocks.positions,
        "block": blocks.block,
        "separator": blocks.separator,
        "tokens_sha256": blocks.sha256(),
    }


def _blocks(model: Model, corpus: Corpus, tokens: int, split: str | None, folder: Path, restart: bool) -> TokenBlocks:
    """The token blocks on disk, or new ones written there."""
    asked = {"corpus": corpus.name, "version": corpus.version, "tokens": tokens, "split": split}
    if (folder / "manifest.json").exists():
        kept = (_own_manifest if restart else _read_manifest)(folder)["asked"]
        if (folder / "documents.parquet").exists() and not restart:
            _refuse_change(folder, kept, asked)
            return TokenBlocks.load(folder)
    blocks = tokenize(corpus, model, tokens, split=split)
    if blocks.positions < tokens * 0.99:
        say(f"the corpus ends after {blocks.positions:,} tokens; {tokens:,} were asked.")
    for stale in folder.glob("shard-*.safetensors"):
        stale.unlink()
    (folder / "manifest.json").unlink(missing_ok=True)
    blocks.save(folder)
    places.write_json(folder / "manifest.json", {"asked": asked, "recipe": None, "shards": []})
    return blocks


def _own_manifest(folder: Path) -> dict[str, Any]:
    """A harvest's manifest, whatever became of it; InterpError when it is another program's, which nothing replaces."""
    manifest = places.read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or not {"asked", "recipe", "shards"} <= manifest.keys():
        raise InterpError(f"{folder}/manifest.json is another program's, not a harvest's; choose another folder.")
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    """What the store says of itself, each part of the kind that `harvest` writes; InterpError names one that is not."""
    path, manifest = folder / "manifest.json", _own_manifest(folder)
    recipe, shards = manifest["recipe"], manifest["shards"]
    wrong = places.unlike(manifest, {"asked": dict, "shards": list} | ({} if recipe is None else {"recipe": dict}))
    wrong = wrong or (places.unlike(recipe, _RECIPE) if recipe is not None else "")
    positions = 0
    for shard in [] if wrong else shards:
        wrong = wrong or _wrong_shard(path, shard, positions)
        positions += 0 if wrong else shard["positions"]
    if not wrong and recipe is not None:
        hooks, block = recipe["hooks"], recipe["block"]
        if not max(positions, 1) <= recipe["positions"] < 2**40:
            wrong = f"positions is {recipe['positions']}, and its shards hold {positions}"
        elif not (block > 1 and hooks and all(isinstance(hook, str) for hook in hooks)):
            wrong = f"hooks is {str(hooks)[:60]} and block {block}"
    if wrong:
        raise InterpError(f"{path} is not as `interp harvest` wrote it: {wrong}; harvest again with --restart.")
    return manifest


def _wrong_shard(path: Path, shard: Any, first: int) -> str:
    """What is wrong with a shard that should begin at position `first`; InterpError for a file outside the folder."""
    name = shard.get("file") if isinstance(shard, dict) else None
    if isinstance(name, str) and (Path(name).name != name or name == ".." or "\\" in name):
        raise InterpError(f"{path} names the shard {name!r}, which is no file of that folder.")
    if wrong := places.unlike(shard, _SHARD):
        return wrong
    fits = _SHARD_NAME.fullmatch(shard["file"]) and shard["first"] == first and 0 < shard["positions"] < 2**40
    return "" if fits and isinstance(shard.get("sha256", ""), str) else f"a shard is {str(shard)[:80]}"


def _manifest(folder: Path, recipe: dict[str, Any], restart: bool, model: Model) -> dict[str, Any]:
    manifest = _read_manifest(folder)
    if manifest["recipe"] is None or restart:
        manifest |= {"recipe": recipe, "shards": []}
        places.write_json(folder / "manifest.json", manifest)
    named = str(manifest["recipe"].get("model_sha256"))  # perhaps by a name of the first kind
    _refuse_change(folder, manifest["recipe"], recipe | {"model_sha256": model.fingerprint_like(named)})
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
            f"the harvest needs {size(needed)} in {folder}, which has {size(free)} free; "
            "ask for fewer tokens or hook points, or choose a folder on a larger disk."
        )
    began = time.perf_counter()
    model.run(rows, hooks)
    rate = rows.numel() / (time.perf_counter() - began)
    say(f"harvest: {positions:,} tokens, {size(needed)}, about {duration(positions / rate)} at {rate:,.0f} tokens/s")


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


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Activations on disk, position by position, with the mask that leaves sinks out."""

    folder: Path
    recipe: dict[str, Any]
    shards: list[dict[str, Any]] = field(repr=False)
    _cutoffs: dict[str, float] = field(default_factory=dict, repr=False)

    @staticmethod
    def open(folder: str | Path) -> "ActivationStore":
        """The store in a folder that `harvest` wrote; InterpError when there is none or it is unfinished."""
        path = Path(folder)
        if not (path / "manifest.json").exists():
            raise InterpError(
                f"there are no activations in {path}; `interp harvest MODEL CORPUS HOOK --into {path}` makes them."
            )
        manifest = _read_manifest(path)
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
        if rows > len(whole.tokens_NT) or whole.block != self.recipe["block"] or self.positions % whole.block:
            raise InterpError(
                f"the tokens in {self.folder} are not those its manifest.json speaks of; harvest again with --restart."
            )
        return replace(whole, tokens_NT=whole.tokens_NT[:rows], document_NT=whole.document_NT[:rows])

    def head(self, shards: int) -> "ActivationStore":
        """The first shards as a store of their own."""
        kept = self.shards[:shards]
        return ActivationStore(self.folder, self.recipe | {"positions": sum(s["positions"] for s in kept)}, kept)

    def check_hook(self, hook_name: str) -> None:
        if hook_name not in self.recipe["hooks"]:
            raise unknown("harvested hook point", hook_name, self.recipe["hooks"])

    def read(self, shard: dict[str, Any], key: str) -> Tensor:
        """One tensor of a shard, in the dtype it was harvested in; its hash is compared when it is first read.

        Raises InterpError when the shard is not the one that was harvested, or cannot be read.
        """
        path = self.folder / shard["file"]
        try:
            _check_shard(path, shard.get("sha256", ""))
            with safe_open(path, framework="pt") as file:
                found = file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise InterpError(f"{path} cannot be read ({error}); harvest again with --restart.") from None
        if len(found) != shard["positions"]:
            raise InterpError(
                f"{path} holds {len(found):,} positions, and its manifest.json says {shard['positions']:,}; harvest again "
                "with --restart."
            )
        return found

    def norms(self, hook_name: str) -> Float[Tensor, " N"]:
        self.check_hook(hook_name)
        return torch.cat([self.read(shard, f"norm/{hook_name}") for shard in self.shards])

    def norm_cutoff(self, hook_name: str) -> float:
        """`SINK_RATIO` times the median norm of the real positions: above it, a position is a sink."""
        if hook_name not in self._cutoffs:
            self._cutoffs[hook_name] = _cutoff(self.norms(hook_name), self.blocks.real_NT(), hook_name)
        return self._cutoffs[hook_name]

    def keep(self, hook_name: str, norm_cutoff: float | None = None) -> Bool[Tensor, " N"]:
        """True where a position counts: a document's own token that is no sink."""
        cutoff = self.norm_cutoff(hook_name) if norm_cutoff is None else norm_cutoff
        return self.blocks.real_NT().reshape(-1) & (self.norms(hook_name) <= cutoff)

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
    ) -> "Batches":
        """Shuffled float32 batches for training, sinks left out, mixed over `buffer` tokens; see `Batches`.

        Of several hook points: tuples of tensors, of the positions that count at all of them. Of `blocks` of the text
        only, if given.
        """
        return _batches(self, hook_names, batch_size, epochs, seed, buffer, blocks)

    def group_size(self, buffer: int) -> int:
        """Shards that fill a buffer."""
        return max(1, buffer // SHARD_POSITIONS)

    def groups(self, batches: "Batches", epoch: int) -> Iterator["Group"]:
        """An epoch's shuffle buffers: the shards in a new order, so many at a time, their rows permuted."""
        keep = batches.keep()

        def mask(shard: dict[str, Any]) -> Tensor:
            return keep[shard["first"] : shard["first"] + shard["positions"]]

        draw = torch.Generator().manual_seed(batches.seed * 1_000_003 + epoch)
        mixed = [self.shards[i] for i in torch.randperm(len(self.shards), generator=draw).tolist()]
        mixed, size = [shard for shard in mixed if mask(shard).any()], self.group_size(batches.buffer)
        for start in range(0, len(mixed), size):
            shards = mixed[start : start + size]
            kept = torch.cat([mask(shard) for shard in shards])
            order = torch.randperm(int(kept.sum()), generator=draw)

            def read(
                shards: list[dict[str, Any]] = shards, kept: Tensor = kept, order: Tensor = order
            ) -> tuple[Tensor, ...]:
                rows = kept.nonzero().squeeze(1)[order]
                return tuple(torch.cat([self.read(s, hook) for s in shards])[rows] for hook in batches.hooks)

            yield Group(len(order), read)

    def rows(self, batches: "Batches") -> int:
        """Rows of one epoch."""
        return int(batches.keep().sum())


_known_shards: dict[tuple[str, int, int], str] = {}
"""SHA-256 by path, time and size of the shards this process has hashed: each once, however many epochs read it."""


def _check_shard(path: Path, wanted: str) -> None:
    """Raises InterpError when the file has not the hash that its manifest names (which may name none)."""
    about = path.stat()
    key = str(path), about.st_mtime_ns, about.st_size
    if wanted and key not in _known_shards:
        _known_shards[key] = places.sha256_file(path)
    if wanted and _known_shards[key] != wanted:
        raise InterpError(
            f"{path} is not the shard that was harvested (its SHA-256 differs from manifest.json's): it was changed, "
            "swapped or cut short. Harvest again with --restart."
        )


@dataclass(frozen=True, eq=False)
class StoresTogether(ActivationStore):
    """Stores of several models over the same tokens, as one: `2:blocks.3.hook_resid_post` is that of the second."""

    parts: tuple[ActivationStore, ...] = ()

    @staticmethod
    def of(stores: Sequence[ActivationStore]) -> "StoresTogether":
        """Raises InterpError, naming what differs, when the stores are not of the same tokens."""
        first = stores[0].recipe
        for store in stores[1:]:
            for key in ("tokens_sha256", "positions", "separator", "block"):
                if store.recipe[key] != first[key]:
                    raise InterpError(
                        f"{store.folder} and {stores[0].folder} differ in {key}; models can be read side by side over the "
                        "same tokens only: harvest the same text, with models that share a tokenizer."
                    )
        several = {
            key: " + ".join(str(store.recipe[key]) for store in stores)
            for key in ("model", "model_sha256", "source", "dtype", "attention")
        }
        hooks = [f"{i}:{hook}" for i, store in enumerate(stores, 1) for hook in store.recipe["hooks"]]
        shards = [shards[0] | {"parts": shards} for shards in zip(*(store.shards for store in stores), strict=True)]
        return StoresTogether(stores[0].folder, first | several | {"hooks": hooks}, shards, parts=tuple(stores))

    def head(self, shards: int) -> "StoresTogether":
        return StoresTogether.of([store.head(shards) for store in self.parts])

    def read(self, shard: dict[str, Any], key: str) -> Tensor:
        norm, name = ("norm/", key.removeprefix("norm/")) if key.startswith("norm/") else ("", key)
        number, hook = name.split(":", 1)
        which = int(number) - 1
        return self.parts[which].read(shard["parts"][which], norm + hook)


def open_stores(folders: str | Path) -> ActivationStore:
    """The store in a folder, or those in several folders joined by "+", side by side."""
    names = str(folders)
    if "+" not in names or (Path(names) / "manifest.json").exists():
        return ActivationStore.open(names)
    return StoresTogether.of([ActivationStore.open(name.strip()) for name in names.split("+")])


def _cutoff(norms_N: Tensor, real_NT: Tensor, hook_name: str) -> float:
    """`SINK_RATIO` times the median norm of the real positions.

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
    return SINK_RATIO * float(finite_N.median())


def _hooks(hook_names: str | Sequence[str]) -> tuple[str, ...]:
    return (hook_names,) if isinstance(hook_names, str) else tuple(hook_names)


@dataclass(frozen=True)
class Group:
    """A shuffle buffer that has not been filled yet."""

    rows: int
    read: Callable[[], tuple[Tensor, ...]]


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

    def check_hook(self, hook_name: str) -> None:
        if hook_name not in self.recipe["hooks"]:
            raise unknown("streamed hook point", hook_name, self.recipe["hooks"])

    def pieces(self, hook_name: str) -> Iterator[tuple[int, int, Callable[[], Tensor]]]:
        """As an `ActivationStore`'s; the model runs when a piece's function is called."""
        self.check_hook(hook_name)
        per = SHARD_POSITIONS // self.blocks.block
        for start in range(0, len(self.blocks.tokens_NT), per):
            rows = self.blocks.tokens_NT[start : start + per]

            def read(rows: Tensor = rows) -> Tensor:
                return self._run(rows, (hook_name,))[0]

            yield start * self.blocks.block, rows.numel(), read

    def width(self, hook_name: str) -> int:
        self.check_hook(hook_name)
        return int(self.model.run(self.blocks.tokens_NT[:1], [hook_name]).activations[hook_name].shape[-1])

    def norm_cutoff(self, hook_name: str) -> float:
        """`SINK_RATIO` times the median norm of the real positions of the first blocks."""
        self.check_hook(hook_name)
        key = f"cutoff/{hook_name}"
        if key not in self._last:
            some = self.blocks.tokens_NT[:CUTOFF_BLOCKS]
            norms = self._run(some, (hook_name,))[0].float().norm(dim=1)
            self._last[key] = _cutoff(norms, self.blocks.real_NT()[:CUTOFF_BLOCKS], hook_name)
        return self._last[key]

    def batches(
        self,
        hook_names: str | Sequence[str],
        batch_size: int,
        *,
        epochs: float = 1.0,
        seed: int = 0,
        buffer: int = STREAM_BUFFER,
        blocks: range | None = None,
    ) -> "Batches":
        """As an `ActivationStore`'s; a buffer is filled with texts in their order."""
        if buffer < batch_size:
            raise InterpError(f"the shuffle buffer is {buffer} tokens, less than a batch of {batch_size}; enlarge it.")
        return _batches(self, hook_names, batch_size, epochs, seed, buffer, blocks)

    def groups(self, batches: "Batches", epoch: int) -> Iterator[Group]:
        """An epoch's shuffle buffers, in the order of the text (so a corpus should be mixed, as `mix` does)."""
        draw = torch.Generator().manual_seed(batches.seed * 1_000_003 + epoch)
        for part, rows in self._counts(batches):
            seed = int(torch.randint(2**62, (1,), generator=draw))

            def read(part: range = part, rows: int = rows, seed: int = seed) -> tuple[Tensor, ...]:
                return self._fill(batches, part, rows, seed)

            yield Group(rows, read)

    def rows(self, batches: "Batches") -> int:
        """Rows of one epoch."""
        return sum(rows for _, rows in self._counts(batches))

    def _counts(self, batches: "Batches") -> list[tuple[range, int]]:
        """(blocks, rows given out) of each buffer: whole batches, a hundredth left for sinks, so that the numbers
        are known before the model runs."""
        per = max(1, batches.buffer // self.blocks.block)
        real = self.blocks.real_NT().sum(1)
        found = []
        for start in range(batches.blocks.start, batches.blocks.stop, per):
            part = range(start, min(start + per, batches.blocks.stop))
            rows = int(int(real[part.start : part.stop].sum()) * (1 - SPARE)) // batches.batch_size * batches.batch_size
            if rows:
                found.append((part, rows))
        return found

    def _fill(self, batches: "Batches", part: range, rows: int, seed: int) -> tuple[Tensor, ...]:
        if self._last.get("where") != part:  # one run of the model serves every hook point
            made = self._run(self.blocks.tokens_NT[part.start : part.stop], tuple(self.recipe["hooks"]))
            self._last.update(where=part, made=dict(zip(self.recipe["hooks"], made, strict=True)))
        by_hook: dict[str, Tensor] = self._last["made"]
        keep = self.blocks.real_NT()[part.start : part.stop].reshape(-1).clone()
        for hook in batches.hooks:
            keep &= by_hook[hook].float().norm(dim=1) <= self.norm_cutoff(hook)
        kept = keep.nonzero().squeeze(1)
        if not len(kept):
            raise InterpError("no position of a shuffle buffer counts (all are padding or sinks); check the corpus.")
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))
        chosen = kept[order.repeat(-(-rows // len(kept)))[:rows]]  # more sinks than spared: some rows come twice
        return tuple(by_hook[hook][chosen] for hook in batches.hooks)

    def _run(self, tokens_NT: Tensor, hooks: tuple[str, ...]) -> tuple[Tensor, ...]:
        made = _shard(self.model, tokens_NT, list(hooks), self.batch_blocks, lambda count: None)
        return tuple(made[hook] for hook in hooks)


def stream(
    model: Model, corpus: Corpus, hook_names: str | Sequence[str], tokens: int, *, split: str | None = None
) -> Stream:
    """Activations straight from the model, for when the disk is small; `Stream.batches` feeds training."""
    hooks = list(dict.fromkeys(_hooks(hook_names)))
    for name in hooks:
        model.check_hook(name)
    if not hooks or tokens <= 0:
        raise InterpError("nothing to stream: name at least one hook point and one token.")
    blocks = tokenize(corpus, model, tokens, split=split)
    return Stream(model, blocks, _recipe(model, corpus, hooks, blocks, split))


@dataclass(frozen=True, eq=False)
class Batches:
    """An iterable of (B, D) float32 tensors (or of tuples of them) in an order fixed by the seed, which can begin at
    any batch: the groups before it are passed over unread."""

    source: ActivationStore | Stream
    hooks: tuple[str, ...]
    single: bool
    batch_size: int
    epochs: float
    seed: int
    buffer: int
    """Tokens that are mixed with each other."""
    blocks: range
    """Of the text."""
    held_out: dict[str, Any] = field(default_factory=dict)
    """What the run that reads this is measured on: it goes on only with the same."""
    _kept: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def recipe(self) -> dict[str, Any]:
        """What fixes the order and the content, for a run that goes on to compare."""
        text = self.source.recipe["tokens_sha256"]
        fields = {"hooks": list(self.hooks), "epochs": self.epochs, "seed": self.seed, "buffer": self.buffer}
        fields |= {"blocks": [self.blocks.start, self.blocks.stop], "held_out": self.held_out}
        return fields | {"tokens_sha256": text, "model_sha256": self.source.recipe["model_sha256"]}

    def keep(self) -> Tensor:
        """True at the positions of a store that count at every hook point."""
        if not self._kept:
            assert isinstance(self.source, ActivationStore)
            kept = torch.stack([self.source.keep(hook) for hook in self.hooks]).all(0)
            block = self.source.blocks.block
            kept[: self.blocks.start * block] = False
            kept[self.blocks.stop * block :] = False
            self._kept.append(kept)
        return self._kept[0]

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


def _batches(
    source: ActivationStore | Stream,
    hook_names: str | Sequence[str],
    batch_size: int,
    epochs: float,
    seed: int,
    buffer: int,
    blocks: range | None,
) -> Batches:
    hooks = _hooks(hook_names)
    for name in hooks:
        source.check_hook(name)
    if not 0 < epochs < float("inf"):
        raise InterpError(f"epochs is {epochs}; it must be a positive number of passes.")
    blocks = range(len(source.blocks.tokens_NT)) if blocks is None else blocks
    return Batches(source, hooks, isinstance(hook_names, str), batch_size, epochs, seed, buffer, blocks)


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
