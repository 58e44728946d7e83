"""An index of examples, cut out of a full one: what `keep="examples"` would have built, without the model."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus import write_parquet
from interp.index.format import ROWS_PER_GROUP, WINDOW, activation_writer, publish
from interp.index.read import FeatureIndex

WHOLE_ONLY = ("positions.parquet", "pairs.parquet", "unembedding.safetensors")


def cut(index: FeatureIndex, into: Path) -> None:
    """Write the index into a folder as one that keeps activations in the windows of its examples only.

    One that keeps no more than that is copied, each file's hash compared. Raises InterpError when a file is not the one
    that was written.
    """
    made = into / ".build" / "made"
    made.mkdir(parents=True)
    skipped = () if index.partial else (*WHOLE_ONLY, "activations.parquet", "features.parquet")
    for name in index.meta["files"]:
        if name not in skipped:
            shutil.copyfile(index.path(name), made / name)
    if not index.partial:
        _cut_rows(index, made)
    kept = {key: value for key, value in index.meta.items() if key not in ("files", "sha256")}
    publish(made, into, kept | {"keep": "examples"})


def _cut_rows(index: FeatureIndex, made: Path) -> None:
    """activations.parquet in the windows of examples (see `index.stats`), and features.parquet, which counts them."""
    examples = index.sql("SELECT feature, position FROM {examples}")
    feature = examples["feature"].to_numpy().astype(np.int64) << 32
    chunk = examples["position"].to_numpy().astype(np.int64) // WINDOW
    windows = np.unique(np.concatenate([feature + chunk + step for step in (-1, 0, 1)]))
    with activation_writer(made / "activations.parquet") as writer:
        for batch in pq.ParquetFile(index.path("activations.parquet")).iter_batches(1 << 20):
            key = (batch["feature"].to_numpy().astype(np.int64) << 32) + batch["position"].to_numpy() // WINDOW
            near = np.isin(key, windows)
            if near.any():
                table = pa.Table.from_batches([batch.filter(pa.array(near))]).cast(writer.schema)
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    features = pq.read_table(index.path("features.parquet"))
    column = features.column_names.index("stored")
    write_parquet(features.set_column(column, "stored", features["near"]), made / "features.parquet")
