"""Harvest a model's activations to disk: one pass feeds all hook points, shard by shard.

Axes    N block, T position, D width at a hook point.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp import places, several
from interp.activations import manifest as manifests
from interp.activations.eight_bit import INT8, check_stored, in_bytes, row_bytes
from interp.activations.manifest import own_manifest, read_manifest, recipe_of, refuse_change
from interp.activations.remote import Sending
from interp.activations.store import ActivationStore
from interp.corpus import Corpus, TokenBlocks, tokenize
from interp.corpus.changed import changed_files
from interp.models import Model
from interp.models.families import given
from interp.models.families.own import NUMBERS
from interp.objects import ObjectFolder, is_url
from interp.progress import bar
from interp.render.terminal import say
from interp.render.words import duration, size
from interp.types import InterpError


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
    together: bool = False,
    stored: str = "",
) -> ActivationStore:
    """The store of activations at `hook_names` over `tokens` positions of the corpus.

    One forward pass feeds all hook points and ends at the last. Killed at any moment, the same call goes on
    with the first shard that is missing. Says beforehand how much disk and time it expects. With `together` any number of
    processes that were given the same share the shards; each returns when all are there. `stored` is how activations are
    kept: as the model gives them, or int8 (see `eight_bit`). Into a URL that fsspec knows (s3://,
    gs://), shards are sent one by one, and one at a time is on the disk here. Raises
    InterpError when the disk has no room, when the folder holds another harvest (unless `restart`), when another
    process harvests into it (unless both do so `together`), and when a store at a URL does not take what is sent.
    """
    there = ObjectFolder.at(str(into)) if is_url(into) else None
    folder = there.kept_in("harvests") if there else Path(into)
    if there and together:
        raise InterpError(
            f"several processes share a harvest by locks in a folder, and {there.url} has none; harvest into a folder that all "
            "of them see (--into), or there in one process."
        )
    if there:
        places.refuse_read_only(f"nothing was sent to {there.url}")
    check_stored(stored)
    for name in hook_names:
        model.check_hook(name)
    if not hook_names or tokens <= 0:
        raise InterpError("nothing to harvest: name at least one hook point and one token.")
    if restart and together:
        raise InterpError(
            f"several processes cannot begin anew together, for the last to come would undo what the others did; delete "
            f"{folder}, or name another folder."
        )
    fresh = not folder.exists()
    try:
        with several.at_work(folder, "the harvest", together=together) as work:
            if not work.others():
                places.drop_partials(folder)
            sending = Sending(there, folder, work.notes) if there else None
            _harvest(model, corpus, hook_names, tokens, work, sending, split, batch_blocks, restart, stored)
    except InterpError:
        if fresh:  # a text that cannot be read leaves no folder behind; one that holds something stays
            with suppress(OSError):
                folder.rmdir()
        raise
    return ActivationStore.open(into)


def _harvest(
    model: Model,
    corpus: Corpus,
    hook_names: Sequence[str],
    tokens: int,
    work: several.Work,
    sending: Sending | None,
    split: str | None,
    batch_blocks: int,
    restart: bool,
    stored: str,
) -> None:
    where = sending.there.url if sending else str(work.folder)
    if sending:
        sending.begin(restart)
    blocks = _blocks(model, corpus, tokens, split, work, where, restart)
    recipe = recipe_of(model, corpus, list(dict.fromkeys(hook_names)), blocks, split, stored)
    manifest = _manifest(work.folder, where, recipe, restart, model)
    if sending:
        sending.send_text(restart)
    per_shard, total = manifests.SHARD_POSITIONS // blocks.block, len(blocks.tokens_NT)
    shards = {
        f"shard-{first // per_shard:05d}": range(first, min(first + per_shard, total))
        for first in range(0, total, per_shard)
    }
    there = {Path(entry["file"]).stem for entry in manifest["shards"]}

    def done(name: str) -> bool:
        return name in there or _note(work, name).exists()

    left = sum(len(some) for name, some in shards.items() if not done(name)) * blocks.block
    if left:
        _estimate(model, blocks, recipe, left, batch_blocks, work, sending)
        with work.apart():
            _make_shards(model, blocks, recipe, batch_blocks, work, sending, shards, done, left)
    _enter(work, sending, shards)
    if sending:
        sending.leave()


def _make_shards(
    model: Model,
    blocks: TokenBlocks,
    recipe: dict[str, Any],
    batch_blocks: int,
    work: several.Work,
    sending: Sending | None,
    shards: dict[str, range],
    done: Callable[[str], bool],
    left: int,
) -> None:
    """Run the model over every shard that is not done and that nobody else makes, and write it."""
    missing = [name for name in shards if not done(name)]
    with bar(f"harvest {model.name}", left) as step:

        def passed(name: str) -> None:
            step(len(shards[name]) * blocks.block)

        with closing(work.shares(missing, done, passed)) as mine:
            for name in mine:
                some, path = shards[name], work.folder / f"{name}.safetensors"
                places.drop_partials(work.folder, of=path.name)
                tensors = run_shard(model, blocks, some, recipe["hooks"], batch_blocks, step)
                if recipe.get("stored") == INT8:
                    tensors = in_bytes(tensors, recipe["hooks"])
                with places.whole_file(path) as partial:
                    save_file(tensors, partial)
                    digest = places.sha256_file(partial)
                where = {"first": some.start * blocks.block, "positions": len(some) * blocks.block}
                hashes = {"sha256": digest, "norms_sha256": manifests.norms_sha256(tensors)}
                places.write_json(_note(work, name), {"file": path.name, **where, **hashes})
                with places.only_one(work.folder, work.what, wait=-1):
                    _enter(work, sending, shards)


def _note(work: several.Work, name: str) -> Path:
    """What the manifest is to say of a shard: there when the shard is whole."""
    return work.notes / f"{name}.json"


def _enter(work: several.Work, sending: Sending | None, shards: dict[str, range]) -> None:
    """Enter the shards that are done in the manifest, which has them in order and without a gap. The folder must be held.

    Of a harvest that is sent, they and the manifest are sent before that.
    """
    manifest = read_manifest(work.folder)
    before = len(manifest["shards"])
    for name in list(shards)[before:]:
        if not _note(work, name).exists():
            break
        manifest["shards"].append(places.read_json(_note(work, name)))
    if len(manifest["shards"]) > before:
        if sending:
            sending.send_shards([shard["file"] for shard in manifest["shards"][before:]])
        places.write_json(work.folder / "manifest.json", manifest)
        if sending:
            sending.send_manifest()


def _blocks(
    model: Model, corpus: Corpus, tokens: int, split: str | None, work: several.Work, where: str, restart: bool
) -> TokenBlocks:
    """The token blocks on disk, or new ones written there."""
    folder = work.folder
    asked = {"corpus": corpus.name, "version": corpus.version, "tokens": tokens, "split": split}
    if (folder / "manifest.json").exists():
        kept = (own_manifest if restart else read_manifest)(folder)["asked"]
        if (folder / "documents.parquet").exists() and not restart:
            refuse_change(where, kept, asked)
            there = TokenBlocks.load(folder)
            if what := changed_files(there, corpus, model, tokens, split):
                raise InterpError(
                    f"{where} was harvested from {corpus.name} before its files changed: {what}; choose another folder, or "
                    "restart (--restart) to replace it. What is there can be used as it is, by its own name."
                )
            return there
    blocks = tokenize(corpus, model, tokens, split=split)
    if blocks.positions < tokens * 0.99:
        say(f"the corpus ends after {blocks.positions:,} tokens; {tokens:,} were asked.")
    for stale in folder.glob("shard-*.safetensors"):
        stale.unlink()
    (folder / "manifest.json").unlink(missing_ok=True)
    work.forget()
    blocks.save(folder)
    text = {name: places.sha256_file(folder / name) for name in manifests.TEXT}
    places.write_json(folder / "manifest.json", {"asked": asked, "recipe": None, "text": text, "shards": []})
    return blocks


def _manifest(folder: Path, where: str, recipe: dict[str, Any], restart: bool, model: Model) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest["recipe"] is None or restart:
        manifest |= {"recipe": recipe, "shards": []}
        places.write_json(folder / "manifest.json", manifest)
    named = str(manifest["recipe"].get("model_sha256"))  # perhaps by a name of the first kind
    asked = {"stored": None} | recipe | {"model_sha256": model.fingerprint_like(named)}
    refuse_change(where, manifest["recipe"], asked)
    return manifest


def _estimate(
    model: Model,
    blocks: TokenBlocks,
    recipe: dict[str, Any],
    positions: int,
    batch_blocks: int,
    work: several.Work,
    sending: Sending | None,
) -> None:
    """Say what the harvest will take, from one timed batch; refuse when the disk has no room.

    Of one that is sent, a shard is here while it is sent, and perhaps one that could not be.
    """
    folder, hooks, stored = work.folder, recipe["hooks"], recipe.get("stored", "")
    rows = blocks.tokens_NT[:batch_blocks]
    seen = model.run(rows[:1], hooks, given=given_of(model, blocks, range(1))).activations
    width = sum(row_bytes(int(x.shape[-1]), x.element_size(), stored) for x in seen.values())
    needed, free = positions * width, places.free_bytes(folder)
    here = min(needed, 2 * manifests.SHARD_POSITIONS * width) if sending else needed
    if here * 1.02 > free:
        raise InterpError(
            f"the harvest needs {size(here)} in {folder}, which has {size(free)} free; "
            "ask for fewer tokens or hook points, or choose a folder on a larger disk."
        )
    began = time.perf_counter()
    model.run(rows, hooks, given=given_of(model, blocks, range(len(rows))))
    rate = rows.numel() / (time.perf_counter() - began)
    alone = ", shared with whoever takes part" if work.together else ""
    alone += f", sent to {sending.there.url}" if sending else ""
    say(
        f"harvest: {positions:,} tokens, {size(needed)}, about {duration(positions / rate)} at {rate:,.0f} tokens/s{alone}"
    )


def given_of(model: Model, blocks: TokenBlocks, some: range) -> Tensor | None:
    """Of some blocks of pictures or sound, what the model is given, from their files; None of text.

    Raises InterpError when a file is gone or cannot be read.
    """
    files = blocks.files(some)
    return None if files is None else given([model.prompt(file) for file in files])


def run_shard(
    model: Model, blocks: TokenBlocks, some: range, hooks: list[str], batch_blocks: int, step: Any
) -> dict[str, Tensor]:
    """Activations of some blocks on the CPU, (N, D) by hook point, and their norms, (N,) by `norm/` and its name.

    Raises InterpError for a hook point that is not of shape (B, T, D).
    """
    whole: dict[str, Tensor] = {}  # each tensor is there once: what the model gives is put at its place as it comes
    block, at = blocks.block, 0
    for first in range(some.start, some.stop, batch_blocks):
        part = range(first, min(first + batch_blocks, some.stop))
        batch = blocks.tokens_NT[part.start : part.stop]
        for name, x in model.run(batch, hooks, given=given_of(model, blocks, part)).activations.items():
            if x.ndim != 3 or x.shape[:2] != batch.shape:
                own = (
                    f"; open the module with at={name!r} to have the positions of {name}"
                    if model.reads == NUMBERS
                    else ""
                )
                raise InterpError(
                    f"{name} has shape {tuple(x.shape)}; only hook points of shape (B, T, D), here {tuple(batch.shape)} and a "
                    f"width, can be harvested{own}."
                )
            x_ND = x.reshape(-1, x.shape[-1]).cpu()
            if name not in whole:
                whole[name] = x_ND.new_empty(len(some) * block, x_ND.shape[1])
                whole[f"norm/{name}"] = torch.empty(len(some) * block)
            whole[name][at : at + len(x_ND)] = x_ND
            whole[f"norm/{name}"][at : at + len(x_ND)] = x_ND.float().norm(dim=-1)
        at += batch.numel()
        step(batch.numel())
    return whole
