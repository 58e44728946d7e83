"""Build the index: one pass of the dictionary over activations, DuckDB's external sort, one pass over the sorted rows.

1. `parts`: a part for every shard of activations, so that a killed build goes on with the next part, and several processes
   share them (`interp/several.py`); then the parts, which are in order of position, as one file.
2. `by_feature`: the rows sorted by feature stream by, some features at a time, so memory does not grow with the text.
3. Here: what the weights say, the vocabulary, meanings; then the index takes its place in one step.

To extend an index, the parts of the new text are sorted together with the rows that are there.

Axes    N position, F feature, M activation, D d_in.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from interp import places, several
from interp.activations import ActivationSource
from interp.checkpoint.trained import TrainedOn
from interp.corpus import write_parquet
from interp.corpus.blocks import items_sha256
from interp.corpus.tables import read_documents
from interp.device import keeping_freed_memory
from interp.index import meanings, pictures, weights
from interp.index.by_feature import write_by_feature
from interp.index.clean import indexed_text
from interp.index.format import (
    FORMAT,
    publish,
    read_meta,
    settle,
)
from interp.index.parts import Build, IndexConfig, write_by_position, write_parts, write_text
from interp.index.read import FeatureIndex
from interp.index.stats import Near
from interp.index.text import text_sha256, write_counted
from interp.index.wording import meaning_texts
from interp.models import Model
from interp.models.families.media import kind_of
from interp.models.open import open_view
from interp.models.sentence import sentence_encoder
from interp.predicates import Text
from interp.render.terminal import say
from interp.render.words import size
from interp.sae.dictionary import Dictionary, one_read
from interp.types import InterpError

TEXT_BYTES = 72
"""What a position of the text takes of memory: its token, document and place, as they are read and as they are used, and
the positions in order of their tokens while these are sorted."""


@keeping_freed_memory()
def build_index(
    sae: Dictionary,
    store: ActivationSource,
    model: Model,
    into: str | Path,
    config: IndexConfig | None = None,
    *,
    norm_cutoff: float,
    sae_sha256: str = "",
    hook_name: str | None = None,
    trained: TrainedOn | None = None,
) -> None:
    """Write the index of `sae` over the store into a folder (see `FeatureIndex`).

    `trained` says which documents the SAE was trained on (`TrainedOn.read`), for each document's `trained_on`.
    `sae` is a `Dictionary`, `store` an `ActivationSource`. Sinks (`norm_cutoff`) and separators are left out of every count.
    Raises InterpError when the dictionary reads several hook points, when the store lacks the one, when their widths differ, when an index of
    something else is to be extended, when the text does not fit the memory, and when another process builds there (unless both do
    so `together`, and the same).
    """
    config = config or IndexConfig()
    hook = hook_name or one_read(sae, "an index").name
    store.check_hook(hook)
    if config.together and (config.extend or config.restart):
        raise InterpError(
            "several processes build an index together from its beginning: neither extend nor restart goes with that; do it in "
            "one process."
        )
    with several.at_work(Path(into), "the index", together=config.together) as work:
        _build(sae, store, model, work, config, norm_cutoff, sae_sha256, hook, trained or TrainedOn(None))


def _build(
    sae: Dictionary,
    store: ActivationSource,
    model: Model,
    work: several.Work,
    config: IndexConfig,
    norm_cutoff: float,
    sae_sha256: str,
    hook: str,
    trained: TrainedOn,
) -> None:
    folder, alone = work.folder, not work.others()
    build = folder / ".build"
    if alone:
        places.drop_partials(folder)
    if config.restart:
        shutil.rmtree(build, ignore_errors=True)
    settle(folder)
    before = FeatureIndex.open(folder) if config.extend else None
    meta = _meta(sae, store, model, hook, norm_cutoff, sae_sha256, config, before)
    sort_gib = _sort_gib(config.memory_gib, meta["positions"])

    def over() -> bool:
        return (work.together or config.only_missing) and _is_built(folder, meta)

    if over():
        return
    stamp = build / "build.json"
    if not stamp.exists() or not _goes_on(places.read_json(stamp), meta):
        if not alone:
            raise InterpError(_other_work(work, places.read_json(stamp) if stamp.exists() else {}, meta))
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        places.write_json(stamp, meta)
    run = Build(sae, build, config, before, sort_gib, trained)
    with work.apart():
        write_parts(run, store, hook, norm_cutoff, work, over)
    if not over():
        _put_together(run, store, model, folder, hook, meta)


def _put_together(
    run: Build, store: ActivationSource, model: Model, folder: Path, hook: str, meta: dict[str, Any]
) -> None:
    """The index, of parts that are all there; it takes its place."""
    shutil.rmtree(run.made, ignore_errors=True)
    run.made.mkdir()
    text = write_text(run, store, hook)
    write_by_position(run, text)
    _write_vocabulary(model, run.made)
    token_N, kept_N, active_N = (text[name].to_numpy(zero_copy_only=False) for name in ("token", "kept", "active"))
    write_counted(run.made, kept_N, active_N, np.bincount(token_N[kept_N], minlength=len(model.vocabulary)))
    kind = kind_of(model.vocabulary)
    features = write_by_feature(run, text, _said(run, text, meta, model), Near.of(kind, store.blocks.block))
    _features(run, features, model)
    if kind == "pictures" and run.config.keep == "examples":
        documents = store.blocks.documents
        passes_D = documents["passes_on"].to_numpy(zero_copy_only=False)
        pictures.write_pictures(run.made, documents, passes_D, text["document"].to_numpy(), open_view(model.source))
    publish(run.made, folder, meta | {"kept_positions": int(kept_N.sum()), "text_sha256": text_sha256(token_N)})


def _is_built(folder: Path, meta: dict[str, Any]) -> bool:
    """Whether the index that lies there is this one."""
    try:
        there = read_meta(folder)
        if len(meta["texts"]) == len(there["texts"]) == 1 and "items_sha256" in meta["texts"][0]:
            documents = read_documents(folder / "documents.parquet")  # an index of before says it nowhere else
            there["texts"] = [{**there["texts"][0], "items_sha256": items_sha256(documents)}]
    except InterpError:  # none, or one that cannot be read
        return False
    return {key: there.get(key) for key in meta} == meta


def _other_work(work: several.Work, begun: Any, meta: dict[str, Any]) -> str:
    """The sentence for processes that would build different indexes together."""
    said = begun if isinstance(begun, dict) else {}
    key = next((key for key in meta if said.get(key) != meta[key]), "format")
    return (
        f"other processes build an index in {work.folder} with {key} = {str(said.get(key))[:80]}, and this one has "
        f"{str(meta[key])[:80]}; all must be given the same: the same SAE, the same text, the same settings."
    )


def _goes_on(begun: Any, meta: dict[str, Any]) -> bool:
    """Whether the parts that lie there are of this index; they are the same in both formats."""
    said = begun if isinstance(begun, dict) else {}
    other = ("format", "model")
    return {k: v for k, v in said.items() if k not in other} == {k: v for k, v in meta.items() if k not in other}


def _sort_gib(memory_gib: float, positions: int) -> float:
    """DuckDB's share of the memory; InterpError when the text leaves it less than an eighth."""
    text = positions * TEXT_BYTES / 2**30
    if text > 0.75 * memory_gib:
        raise InterpError(
            f"an index of {positions:,} tokens holds {size(TEXT_BYTES * positions)} of text alone, and its memory is set to "
            f"{memory_gib:g} GiB; allow it {text / 0.75 + 0.1:.1f} GiB (--memory), or index fewer tokens."
        )
    return (memory_gib - text) / 2


def _meta(
    sae: Dictionary,
    store: ActivationSource,
    model: Model,
    hook: str,
    norm_cutoff: float,
    sha256: str,
    config: IndexConfig,
    before: FeatureIndex | None,
) -> dict[str, Any]:
    """What the index is of; everything that decides what it holds."""
    text = {"corpus": store.recipe["corpus"], "positions": store.positions} | {
        "tokens_sha256": store.recipe["tokens_sha256"]
    }
    text |= {"items_sha256": items} if (items := store.blocks.items_sha256()) else {}
    meta = {
        "format": FORMAT,
        "sae_sha256": sha256,
        "name": sae.name,
        "model": model.source,
        "model_sha256": store.recipe["model_sha256"],
        "hook_name": hook,
        # None where there is none: JSON has no infinity, and what is hashed must be what is read back.
        "norm_cutoff": norm_cutoff if math.isfinite(norm_cutoff) else None,
        "keep": config.keep,
        "d_sae": sae.d_sae,
        "separator": store.blocks.separator,
        "block": store.blocks.block,
        "texts": [text],
        "positions": store.positions,
    }
    if before is None:
        return meta
    named, own = str(before.meta.get("model_sha256")), meta["model_sha256"]
    if named == model.fingerprint_like(named) and own == model.fingerprint_like(own):
        meta["model_sha256"] = named  # the same weights, by the name they had when the index was begun
    if before.partial:
        raise InterpError(
            f"the index in {before.folder} keeps examples only, so it cannot be extended; build a full one, "
            "with keep='all'."
        )
    for key in ("sae_sha256", "model_sha256", "hook_name", "norm_cutoff", "keep", "d_sae", "separator", "block"):
        if before.meta[key] != meta[key]:
            raise InterpError(
                f"the index in {before.folder} has {key} = {before.meta[key]!r}, and the text to be added has "
                f"{meta[key]!r}; build another index for it."
            )
    texts = [*before.meta["texts"], text]
    return meta | {"texts": texts, "positions": before.meta["positions"] + store.positions}


def _said(run: Build, text: dict[str, pa.Array], meta: dict[str, Any], model: Model) -> Text:
    """The text as predicates look at it."""
    token_N, document_N, kept_N = (text[name].to_numpy(zero_copy_only=False) for name in ("token", "document", "kept"))
    documents = pq.read_table(run.made / "documents.parquet")
    vocabulary, block, separator = list(model.vocabulary), int(meta["block"]), int(meta["separator"])
    return indexed_text(token_N, document_N, kept_N, documents, vocabulary, block=block, separator=separator)


@torch.inference_mode()
def _features(run: Build, columns: dict[str, Any], model: Model) -> None:
    """features.parquet, with what the weights say; neurons, meanings and the unembedding beside it."""
    say("index: logits, neighbours, meanings")
    directions = run.sae.W_dec
    unembedding = weights.centred_unembedding(model)
    if unembedding is not None and unembedding.shape[0] != directions.shape[1]:
        unembedding = None  # it writes somewhere else than into the residual stream
    columns |= weights.logit_columns(directions, unembedding) | weights.neighbour_columns(directions)
    aligned, neurons = weights.neuron_columns(directions, model.neuron_outputs(directions.shape[1]))
    write_parquet(pa.table(columns | aligned), run.made / "features.parquet")
    write_parquet(neurons, run.made / "neurons.parquet")
    if run.config.keep == "all" and unembedding is not None:
        save_file({"unembedding": unembedding.half()}, run.made / "unembedding.safetensors")
    table = pq.read_table(run.made / "vocabulary.parquet", columns=["text"])
    if kind_of(words := table["text"].to_pylist()) != "text":  # where a patch lies says nothing of what it shows
        return
    texts = meaning_texts(columns["top_tokens"].to_pylist(), words)
    try:
        vectors = sentence_encoder().encode(texts)
    except InterpError as error:
        say(f"index: no meanings, so `text:` will go by words ({error})")
        return
    save_file(meanings.stored(vectors.float()), run.made / "meanings.safetensors")


def _write_vocabulary(model: Model, folder: Path) -> None:
    texts = model.vocabulary
    columns = {
        "token": np.arange(len(texts), dtype=np.uint32),
        "text": texts,
        "bytes": model.vocabulary_bytes,
    }
    write_parquet(pa.table(columns), folder / "vocabulary.parquet")
