"""An index of examples, cut out of a full one: what `keep="examples"` would have built, without the model."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus import write_parquet
from interp.corpus.blocks import FILE
from interp.index import pictures
from interp.index.format import FORMAT, ROWS_PER_GROUP, activation_writer, publish
from interp.index.read import FeatureIndex
from interp.index.stats import Near
from interp.index.text import hidden, text_sha256, without_places, write_counted, write_tokens
from interp.models.open import open_view
from interp.types import InterpError

WHOLE_ONLY = ("positions.parquet", "pairs.parquet", "unembedding.safetensors")
ROWS = ("activations.parquet", "features.parquet")
TEXT = ("tokens.parquet", "documents.parquet", "counted.parquet", "token_counts.parquet")


def cut(index: FeatureIndex, into: Path, *, without_text: bool = False, model: str = "") -> int:
    """Write the index into a folder as one that keeps activations in the windows of its examples only, without the tokens
    of documents that may not be passed on, or `without_text` of any; how many these are comes back.

    One that keeps no more than that is copied, each file's hash compared. `model` is the model's name, for indexes from
    before they had it. Raises InterpError when a file is not the one that was written.
    """
    made = into / ".build" / "made"
    made.mkdir(parents=True)
    whole = not index.partial
    changed = whole or without_text or FILE in index.documents_table.column_names
    skipped = (
        *(WHOLE_ONLY + ROWS if whole else ()),
        *(TEXT if changed else ()),
        *((pictures.NAME,) if without_text else ()),
    )
    for name in index.meta["files"]:
        if name not in skipped:
            shutil.copyfile(index.path(name), made / name)
    if whole:
        _cut_rows(index, made)
        if index.kind == "pictures" and not without_text:
            _copy_pictures(index, made, model)
    kept = {key: value for key, value in index.meta.items() if key not in ("files", "sha256")}
    if changed:
        kept |= {"format": FORMAT, "model": kept.get("model") or model} | _cut_text(index, made, without_text)
    publish(made, into, kept | {"keep": "examples"})
    return len(np.unique(index.document_at[FeatureIndex.open(into).stored_tokens[1]]))


def _cut_text(index: FeatureIndex, made: Path, without_text: bool) -> dict[str, str]:
    """The files of the text, and what index.json says of it."""
    documents, document_N = without_places(index.documents_table), index.document_at
    token_N, hidden_N = index.stored_tokens
    if without_text:  # whose text may be passed on is the publisher's to say
        column = documents.column_names.index("passes_on")
        documents = documents.set_column(column, "passes_on", pa.array([False] * len(documents)))
    write_parquet(documents, made / "documents.parquet")
    write_tokens(made, token_N, document_N, hidden_N | hidden(documents, token_N, document_N, index.separator))
    write_counted(made, index.kept, np.diff(index.offsets), index.token_counts)
    return {"text_sha256": str(index.meta.get("text_sha256") or text_sha256(token_N))}


def _cut_rows(index: FeatureIndex, made: Path) -> None:
    """activations.parquet in the windows of examples (see `index.stats`), and features.parquet, which counts them."""
    examples, near = index.sql("SELECT feature, position FROM {examples}"), Near.of(index.kind, index.block)
    wanted = near.wanted(examples["feature"].to_numpy(), examples["position"].to_numpy())
    stored_F = np.zeros(index.d_sae, dtype=np.int64)
    with activation_writer(made / "activations.parquet") as writer:
        for batch in pq.ParquetFile(index.path("activations.parquet")).iter_batches(1 << 20):
            kept = np.isin(near.keys(batch["feature"].to_numpy(), batch["position"].to_numpy()), wanted)
            if kept.any():
                table = pa.Table.from_batches([batch.filter(pa.array(kept))]).cast(writer.schema)
                stored_F += np.bincount(table["feature"].to_numpy(), minlength=index.d_sae)
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    features = pq.read_table(index.path("features.parquet"))
    column = features.column_names.index("stored")
    stored = pa.array(stored_F.astype(np.uint32))
    write_parquet(features.set_column(column, "stored", stored), made / "features.parquet")


def _copy_pictures(index: FeatureIndex, made: Path, model: str) -> None:
    """pictures.parquet, of the pictures that are still where they lay; none where the model is not on this machine."""
    try:
        view = open_view(str(index.meta.get("model") or model))
    except InterpError:
        return
    documents = index.documents_table
    passes_D = documents["passes_on"].to_numpy(zero_copy_only=False)
    pictures.write_pictures(made, documents, passes_D, index.document_at, view)
