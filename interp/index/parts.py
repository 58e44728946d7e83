"""A build's first pass: a part of (feature, position, value) for every shard of activations, in order of position.

Axes    N position, F feature, D d_in.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from interp import places, several
from interp.activations import ActivationSource
from interp.checkpoint.trained import TrainedOn
from interp.codes import Entries, encode_rows
from interp.corpus import TokenBlocks, write_parquet
from interp.index.format import (
    ROWS_PER_GROUP,
    TRAINED_ON,
    activation_writer,
    code_type,
)
from interp.index.read import FeatureIndex
from interp.index.text import hidden, without_places, write_tokens
from interp.mask import Mask
from interp.processors import threads
from interp.progress import bar
from interp.sae.dictionary import Dictionary
from interp.types import InterpError


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
    together: bool = False
    """Share the parts with other processes that build the same index there; one of them puts it together."""
    only_missing: bool = False
    """Leave an index alone that lies there already and is the one that is asked for."""


@dataclass
class Build:
    """One build: where it works, and the index it extends."""

    sae: Dictionary
    work: Path
    config: IndexConfig
    before: FeatureIndex | None
    sort_gib: float
    trained: TrainedOn = field(default_factory=lambda: TrainedOn(None))
    """What the SAE was trained on."""
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


def write_parts(
    run: Build,
    store: ActivationSource,
    hook: str,
    norm_cutoff: float,
    work: several.Work,
    over: Callable[[], bool],
) -> None:
    """One part of (feature, position, value) a shard, exact float32 values, and which of its positions count.

    Of parts that several processes share, returns when all are made, or when one of them has put the index together (`over`).
    Raises InterpError when the hook point is not as wide as the dictionary reads.
    """
    sae = run.sae
    real_N, mask = store.blocks.real_NT().reshape(-1), Mask({hook: norm_cutoff})
    pieces = {f"part-{number:05d}": piece for number, piece in enumerate(store.pieces(hook))}

    def path(name: str) -> Path:
        return run.work / f"{name}.parquet"

    with bar(f"index {sae.name}", store.positions) as step, torch.inference_mode():

        def passed(name: str) -> None:
            step(pieces[name][1])

        with closing(work.shares(list(pieces), lambda name: path(name).exists() or over(), passed)) as mine:
            for name in mine:
                first, positions, read = pieces[name]
                x_ND = read()
                if x_ND.shape[1] != sae.d_in:
                    raise InterpError(
                        f"{hook} has width {x_ND.shape[1]} and the SAE reads {sae.d_in}: it was made for another model."
                    )
                kept_N = mask.counted({hook: x_ND}, real_N[first : first + positions])
                with places.whole_file(path(name).with_suffix(".kept")) as partial:
                    partial.write_bytes(np.packbits(kept_N.numpy()).tobytes())
                write_part(encode_rows(sae, x_ND, kept_N), path(name), run.first + first)
                step(positions)


def write_part(entries: Entries, part: Path, first: int) -> None:
    columns = {
        "feature": entries.feature_A.astype(np.uint32),
        "position": (entries.row_A + first).astype(np.uint32),
        "value": entries.value_A.astype(np.float32),
    }
    with places.whole_file(part) as partial:
        pq.write_table(pa.table(columns), partial, compression="none", use_dictionary=False)


def _rows_by_position(run: Build) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if run.before:
        for batch in pq.ParquetFile(run.before.path("positions.parquet")).iter_batches(1 << 20):
            yield batch["feature"].to_numpy(), batch["position"].to_numpy(), batch["value"].to_numpy()
    for part in run.parts:
        table = pq.read_table(part)
        yield table["feature"].to_numpy(), table["position"].to_numpy(), halves(table["value"].to_numpy())


def halves(values: np.ndarray) -> np.ndarray:
    """float32 as float16, by PyTorch, which is several times faster than numpy."""
    return torch.tensor(values).half().numpy()


def write_text(run: Build, store: ActivationSource, hook: str) -> dict[str, pa.Array]:
    """token, document and kept of every position, those of the index before included.

    documents.parquet and tokens.parquet are written. In an index of examples, which is made to be shared, documents that
    may not be passed on have no tokens, and nothing says where a file lies on this machine.
    """
    blocks: TokenBlocks = store.blocks
    shared = run.config.keep == "examples"
    documents = _marked(without_places(blocks.documents) if shared else blocks.documents, run.trained)
    kept = [np.unpackbits(np.frombuffer(p.with_suffix(".kept").read_bytes(), np.uint8)) for p in run.parts]
    sizes = [positions for _, positions, _ in store.pieces(hook)]
    columns: dict[str, np.ndarray] = {
        "token": blocks.tokens_NT.reshape(-1).numpy().astype(np.uint32),
        "document": blocks.document_NT.reshape(-1).numpy().astype(np.uint32),
        "kept": np.concatenate([k[:n] for k, n in zip(kept, sizes, strict=True)]).astype(bool),
    }
    if run.before:
        there = run.before.documents_table
        old = {"token": run.before.tokens, "document": run.before.document_at, "kept": run.before.kept}
        columns["document"] = columns["document"] + np.uint32(len(there))
        columns = {name: np.concatenate([old[name], column]).astype(column.dtype) for name, column in columns.items()}
        number = pa.array(np.arange(len(there), len(there) + len(documents), dtype=np.uint32))
        documents = pa.concat_tables([there, documents.set_column(0, "document", number).cast(there.schema)])
    write_parquet(documents, run.made / "documents.parquet")
    token_N, document_N = columns["token"], columns["document"]
    hidden_N = hidden(documents, token_N, document_N, blocks.separator) & shared
    write_tokens(run.made, token_N, document_N, hidden_N)
    return {name: pa.array(column) for name, column in columns.items()}


def _marked(documents: pa.Table, trained: TrainedOn) -> pa.Table:
    """The documents, each with whether the SAE was trained on it; as they are, if they say so (those of an index)."""
    if TRAINED_ON in documents.column_names:
        return documents
    digests, splits = (documents[name].to_pylist() for name in ("sha256", "split"))
    return documents.append_column(TRAINED_ON, pa.array(trained.marks(digests, splits), pa.string()))


def write_by_position(run: Build, text: dict[str, pa.Array]) -> None:
    """The parts, which are in order of position, as one file; the number of features active at each position is counted."""
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
