"""Build the index: one pass of the dictionary over activations, DuckDB's external sort, one pass over the sorted rows.

The first pass writes a part for every shard, so that a killed build goes on with the next part. The sorted rows stream
by, some features at a time, so memory does not grow with the text. To extend an index, the parts of the new text are
sorted together with the rows that are there.

Axes    N position, F feature, M activation, D d_in.
"""

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from interp import places
from interp.activations import ActivationSource
from interp.codes import Entries, encode_rows
from interp.corpus import TokenBlocks, write_parquet
from interp.device import keep_freed_memory
from interp.index import weights
from interp.index.coactive import coactive_columns
from interp.index.format import (
    EXAMPLES,
    FORMAT,
    PAIRS,
    ROWS_PER_GROUP,
    STATISTICS,
    activation_writer,
    code_type,
    publish,
    quoted,
    settle,
)
from interp.index.read import FeatureIndex, meaning_texts
from interp.index.stats import Activations, Measured, measure, whole_features
from interp.mask import Mask
from interp.models import Model
from interp.models.sentence import sentence_encoder
from interp.processors import threads
from interp.progress import bar
from interp.render.terminal import say
from interp.render.words import size
from interp.sae.dictionary import Dictionary, one_read
from interp.types import InterpError

SORTED_BYTES = 16
"""What a row of a sort takes of DuckDB's memory."""
TEXT_BYTES = 48
"""What a position of the text takes of memory: its token, document and place, as they are read and as they are used."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What the index keeps and what building it may use."""

    keep: Literal["all", "examples"] = "all"
    """`all` activations, or only those in the windows of the examples."""
    memory_gib: float = 2.0
    """Beyond the model and the dictionary. The text's own tables are held; half of what they leave is DuckDB's, which
    spills to disk when it is used up."""
    threads: int = field(default_factory=threads)
    """How many sort and count at once; what is written does not depend on it."""
    extend: bool = False
    """Add the text to the index that is there."""
    restart: bool = False
    """Begin anew, not where a killed build stopped."""


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
) -> None:
    """Write the index of `sae` over the store into a folder (see `FeatureIndex`).

    `sae` is a `Dictionary`, `store` an `ActivationSource`. Sinks (`norm_cutoff`) and separators are left out of every count.
    Raises InterpError when the dictionary reads several hook points, when the store lacks the one, when their widths differ, when an index of
    something else is to be extended, when the text does not fit the memory, and when another process builds there.
    """
    config = config or IndexConfig()
    hook = hook_name or one_read(sae, "an index").name
    store.check_hook(hook)
    keep_freed_memory()
    with places.only_one(Path(into), "the index"):
        _build(sae, store, model, Path(into), config, norm_cutoff, sae_sha256, hook)


def _build(
    sae: Dictionary,
    store: ActivationSource,
    model: Model,
    folder: Path,
    config: IndexConfig,
    norm_cutoff: float,
    sae_sha256: str,
    hook: str,
) -> None:
    work = folder / ".build"
    places.drop_partials(folder)
    if config.restart:
        shutil.rmtree(work, ignore_errors=True)
    settle(folder)
    before = FeatureIndex.open(folder) if config.extend else None
    meta = _meta(sae, store, model, hook, norm_cutoff, sae_sha256, config, before)
    sort_gib = _sort_gib(config.memory_gib, meta["positions"])
    stamp = work / "build.json"
    if not stamp.exists() or places.read_json(stamp) != meta:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        places.write_json(stamp, meta)
    run = _Run(sae, work, config, before, sort_gib)
    _encode(run, store, hook, norm_cutoff)
    shutil.rmtree(run.made, ignore_errors=True)
    run.made.mkdir()
    text = _text(run, store, hook)
    _by_position(run, text)
    features = _by_feature(run, text)
    _write_vocabulary(model, run.made)
    _features(run, features, model)
    kept = int(text["kept"].to_numpy(zero_copy_only=False).sum())
    publish(run.made, folder, meta | {"kept_positions": kept})


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
    meta = {
        "format": FORMAT,
        "sae_sha256": sha256,
        "name": sae.name,
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


@dataclass
class _Run:
    """One build: where it works, and the index it extends."""

    sae: Dictionary
    work: Path
    config: IndexConfig
    before: FeatureIndex | None
    sort_gib: float
    fires_F: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def made(self) -> Path:
        return self.work / "made"

    @property
    def first(self) -> int:
        """Position at which the new text begins."""
        return int(self.before.meta["positions"]) if self.before else 0

    @property
    def parts(self) -> list[Path]:
        return sorted(self.work.glob("part-*.parquet"))

    @property
    def codes(self) -> Path:
        """Features in order of position, raw: what is read at random for co-activation."""
        return self.work / "codes"


def _encode(run: _Run, store: ActivationSource, hook: str, norm_cutoff: float) -> None:
    """One part of (feature, position, value) a shard, exact float32 values, and which of its positions count."""
    sae = run.sae
    real_N, mask = store.blocks.real_NT().reshape(-1), Mask({hook: norm_cutoff})
    with bar(f"index {sae.name}", store.positions) as step, torch.inference_mode():
        for number, (first, positions, read) in enumerate(store.pieces(hook)):
            part = run.work / f"part-{number:05d}.parquet"
            if not part.exists():
                x_ND = read()
                if x_ND.shape[1] != sae.d_in:
                    raise InterpError(
                        f"{hook} has width {x_ND.shape[1]} and the SAE reads {sae.d_in}: it was made for another model."
                    )
                kept_N = mask.counted({hook: x_ND}, real_N[first : first + positions])
                with places.whole_file(part.with_suffix(".kept")) as partial:
                    partial.write_bytes(np.packbits(kept_N.numpy()).tobytes())
                _write_part(encode_rows(sae, x_ND, kept_N), part, run.first + first)
            step(positions)


def _write_part(entries: Entries, part: Path, first: int) -> None:
    columns = {
        "feature": entries.feature_A.astype(np.uint32),
        "position": (entries.row_A + first).astype(np.uint32),
        "value": entries.value_A.astype(np.float32),
    }
    with places.whole_file(part) as partial:
        pq.write_table(pa.table(columns), partial, compression="none", use_dictionary=False)


def _text(run: _Run, store: ActivationSource, hook: str) -> dict[str, pa.Array]:
    """token, document and kept of every position, that of the index before included; documents.parquet is written."""
    blocks: TokenBlocks = store.blocks
    documents = blocks.documents
    kept = [np.unpackbits(np.frombuffer(p.with_suffix(".kept").read_bytes(), np.uint8)) for p in run.parts]
    sizes = [positions for _, positions, _ in store.pieces(hook)]
    columns = {
        "token": blocks.tokens_NT.reshape(-1).numpy().astype(np.uint32),
        "document": blocks.document_NT.reshape(-1).numpy().astype(np.uint32),
        "kept": np.concatenate([k[:n] for k, n in zip(kept, sizes, strict=True)]).astype(bool),
    }
    if run.before:
        old = pq.read_table(run.before.path("tokens.parquet"))
        there = pq.read_table(run.before.path("documents.parquet"))
        columns["document"] = columns["document"] + np.uint32(len(there))
        columns = {name: np.concatenate([old[name].to_numpy(), column]) for name, column in columns.items()}
        number = pa.array(np.arange(len(there), len(there) + len(documents), dtype=np.uint32))
        documents = pa.concat_tables([there, documents.set_column(0, "document", number).cast(there.schema)])
    write_parquet(documents, run.made / "documents.parquet")
    return {name: pa.array(column) for name, column in columns.items()}


def _by_position(run: _Run, text: dict[str, pa.Array]) -> None:
    """The parts, which are in order of position, as one file; and the number of features active at each position."""
    total = len(text["token"])
    active_N = np.zeros(total, dtype=np.uint32)
    run.fires_F = np.zeros(run.sae.d_sae, dtype=np.int64)
    kind = code_type(run.sae.d_sae)
    path = run.made / "positions.parquet"
    keep_all = run.config.keep == "all"
    with run.codes.open("wb") as codes, activation_writer(path) as writer:
        for feature, position, value in _rows_by_position(run):
            codes.write(feature.astype(kind).tobytes())
            if not len(position):
                continue
            low, high = int(position[0]), int(position[-1]) + 1
            active_N[low:high] += np.bincount(position - low, minlength=high - low).astype(np.uint32)
            run.fires_F += np.bincount(feature, minlength=len(run.fires_F))
            if keep_all:
                table = pa.table({"feature": feature, "position": position, "value": pa.array(value)})
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    if not keep_all:
        path.unlink()
    text["active"] = pa.array(active_N)
    table = pa.table({"position": pa.array(np.arange(total, dtype=np.uint32)), **text})
    write_parquet(table, run.made / "tokens.parquet")


def _rows_by_position(run: _Run) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if run.before:
        for batch in pq.ParquetFile(run.before.path("positions.parquet")).iter_batches(1 << 20):
            yield batch["feature"].to_numpy(), batch["position"].to_numpy(), batch["value"].to_numpy()
    for part in run.parts:
        table = pq.read_table(part)
        yield table["feature"].to_numpy(), table["position"].to_numpy(), halves(table["value"].to_numpy())


def halves(values: np.ndarray) -> np.ndarray:
    """float32 as float16, by PyTorch, which is several times faster than numpy."""
    return torch.tensor(values).half().numpy()


def _by_feature(run: _Run, text: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """activations.parquet, pairs.parquet and examples.parquet; the columns of features.parquet come back."""
    token_N, document_N = text["token"].to_numpy(), text["document"].to_numpy()
    offset_N = np.concatenate([[0], np.cumsum(text["active"].to_numpy(), dtype=np.int64)])
    kept, total = int(np.sum(text["kept"].to_numpy(zero_copy_only=False))), int(offset_N[-1])
    codes = np.memmap(run.codes, dtype=code_type(run.sae.d_sae), mode="r") if total else np.zeros(0, np.uint16)
    keep_all, chunks = run.config.keep == "all", []

    def work(rows: Activations) -> tuple[Activations, Measured, dict[str, Any]]:
        found = measure(rows, token_N, document_N)
        more = coactive_columns(rows, found.columns, codes, offset_N, run.fires_F, kept)
        return rows, found, more | (_exact(run.before, run.first, rows, found.columns) if run.before else {})

    with (
        activation_writer(run.made / "activations.parquet") as activations,
        pq.ParquetWriter(run.made / "examples.parquet", EXAMPLES, compression="zstd") as examples,
        pq.ParquetWriter(run.made / "pairs.parquet", PAIRS, compression="zstd") as pairs,
        bar("index: statistics", total, "activations") as step,
    ):
        for rows, found, more in _ahead(work, whole_features(_sorted(run)), run.config.threads):
            chunks.append(found.columns | more)
            examples.write_table(found.examples.cast(EXAMPLES))
            pairs.write_table(found.pairs.cast(PAIRS), row_group_size=ROWS_PER_GROUP)
            activations.write_table(_stored(rows, found, keep_all), row_group_size=ROWS_PER_GROUP)
            step(len(rows))
    if not keep_all:
        (run.made / "pairs.parquet").unlink()
    columns = {name: _spread(chunks, name, run.sae.d_sae, kind) for name, kind in STATISTICS.items()}
    total_F, fires_F = columns["total"].to_numpy(), columns["fires"].to_numpy()
    return {
        "feature": pa.array(np.arange(run.sae.d_sae, dtype=np.uint32)),
        **columns,
        "stored": columns["fires" if keep_all else "near"],
        "density": pa.array(fires_F / max(kept, 1)),
        "mean": pa.array((total_F / np.maximum(fires_F, 1)).astype(np.float32)),
    }


def _ahead(work: Callable[[Any], Any], items: Iterator[Any], at_once: int) -> Iterator[Any]:
    """Results in order, so many at a time in threads (what they call lets go of the interpreter)."""
    with ThreadPoolExecutor(at_once) as pool:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _exact(before: FeatureIndex, first: int, rows: Activations, columns: dict[str, Any]) -> dict[str, Any]:
    """Total and maximum without the rounding of the rows that were stored before (positions below `first`)."""
    new_M = np.where(rows.position_M >= first, rows.value_M, np.float32(0))
    start_G = np.cumsum(columns["fires"]) - columns["fires"]
    old = before.features.loc[columns["feature"]]
    return {
        "total": old["total"].to_numpy() + np.add.reduceat(new_M.astype(np.float64), start_G),
        "max": np.maximum(old["max"].to_numpy(), np.maximum.reduceat(new_M, start_G)),
    }


def _stored(rows: Activations, found: Measured, keep_all: bool) -> pa.Table:
    kept = slice(None) if keep_all else found.near_M
    value = pa.array(halves(rows.value_M[kept]))
    return pa.table({"feature": rows.feature_M[kept], "position": rows.position_M[kept], "value": value})


def _sorted(run: _Run) -> Iterator[pa.RecordBatch]:
    """Every activation by (feature, position), in DuckDB's share of the memory.

    So many features at a time that their rows fit it: a sort that spills takes three times as long.
    """
    source = f"SELECT feature, position, value FROM read_parquet({quoted(run.work / 'part-*.parquet')})"
    if run.before:
        old = quoted(run.before.path("activations.parquet"))
        source += f" UNION ALL SELECT feature, position, value::FLOAT FROM read_parquet({old})"
    with duckdb.connect() as db:
        db.execute(f"SET memory_limit='{run.sort_gib}GiB'; SET threads={run.config.threads}")
        db.execute(f"SET temp_directory={quoted(run.work)}")
        for low, high in _ranges(run.fires_F, int(run.sort_gib * 2**30 / SORTED_BYTES)):
            rows: Any = db.sql(f"FROM ({source}) WHERE feature BETWEEN {low} AND {high} ORDER BY feature, position")
            yield from rows.to_arrow_reader(1 << 19)


def _ranges(fires_F: np.ndarray, at_once: int) -> Iterator[tuple[int, int]]:
    """(first, last) feature of stretches that fire at most `at_once` times, or are one feature."""
    low, held = 0, 0
    for feature, fires in enumerate(fires_F.tolist()):
        if held and held + fires > at_once:
            yield low, feature - 1
            low, held = feature, 0
        held += fires
    yield low, len(fires_F) - 1


def _spread(chunks: list[dict[str, Any]], name: str, d_sae: int, kind: pa.DataType) -> pa.Array:
    """A statistic with a row for every feature; those that never fire get 0, or a list as long as the others' or empty."""
    if not pa.types.is_list(kind):
        column = np.zeros(d_sae, dtype=kind.to_pandas_dtype())
        for chunk in chunks:
            column[chunk["feature"]] = chunk[name]
        return pa.array(column)
    parts = [chunk[name] for chunk in chunks]
    if parts and not isinstance(parts[0], tuple):  # every feature has as many
        matrix = np.zeros((d_sae, parts[0].shape[1]), dtype=kind.value_type.to_pandas_dtype())
        for chunk, part in zip(chunks, parts, strict=True):
            matrix[chunk["feature"]] = part
        return weights.lists(matrix, kind.value_type)
    length = np.zeros(d_sae, dtype=np.int32)
    for chunk, (lengths, _) in zip(chunks, parts, strict=True):
        length[chunk["feature"]] = lengths
    flat = np.concatenate([np.zeros(0), *(values for _, values in parts)])
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(flat.astype(kind.value_type.to_pandas_dtype()), kind.value_type))


@torch.inference_mode()
def _features(run: _Run, columns: dict[str, Any], model: Model) -> None:
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
    texts = meaning_texts(columns["top_tokens"].to_pylist(), table["text"].to_pylist())
    try:
        vectors = sentence_encoder().encode(texts)
    except InterpError as error:
        say(f"index: no meanings, so `text:` will go by words ({error})")
        return
    save_file({"meanings": vectors.half()}, run.made / "meanings.safetensors")


def _write_vocabulary(model: Model, folder: Path) -> None:
    texts = model.vocabulary
    columns = {
        "token": np.arange(len(texts), dtype=np.uint32),
        "text": texts,
        "bytes": model.vocabulary_bytes,
    }
    write_parquet(pa.table(columns), folder / "vocabulary.parquet")
