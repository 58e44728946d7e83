"""What an index is on disk: its files, their hashes, and how a finished one takes its place.

| file | a row is |
|---|---|
| `features.parquet` | a feature, with its statistics |
| `activations.parquet` | (feature, position, value), sorted so; value in float16 |
| `positions.parquet` | the same by (position, feature); with `keep="all"` only |
| `pairs.parquet` | (feature, token, count, clean): how often the feature fires on the token, and how often above its clean level; with `keep="all"` only |
| `examples.parquet` | (feature, band, rank, position, value) |
| `tokens.parquet` | a position: token (null in a document that may not be passed on, see `index.withheld`), document |
| `counted.parquet` | a position: whether it counts, how many features fire there |
| `token_counts.parquet` | a token of the vocabulary: how often it stands where positions count |
| `documents.parquet`, `vocabulary.parquet` | a document: source, title, topic, split, hash, whether it may be passed on, whether the SAE was trained on it; a token: text and bytes |
| `neurons.parquet` | (layer, neuron, feature, cosine): the features nearest to what each MLP neuron writes |
| `pictures.parquet` | (document, picture): a small JPEG of a picture that examples are from (see `index.pictures`); of pictures, with `keep="examples"` only |
| `meanings.safetensors` | a sentence vector for each feature's automatic description |
| `unembedding.safetensors` | what each token's logit reads from the residual stream; with `keep="all"` only |
| `index.json` | what it is an index of, and the SHA-256 of every other file |

`tokens.parquet`, `documents.parquet` and `vocabulary.parquet` may lie elsewhere, shared with other indexes over the same text
(see `checkpoint.shared`).
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp import places
from interp.checkpoint.shared import located
from interp.types import InterpError

FORMAT = 3
READ = (2, 3)
"""Formats that are read. In the second, tokens.parquet has what counted.parquet has, and its positions' numbers."""
WINDOW = 16
"""Positions shown on either side of an example."""
NEEDED = ("features", "activations", "examples", "tokens", "documents", "vocabulary")
OPTIONAL = ("positions", "pairs", "neurons", "counted", "token_counts", "pictures")
OURS = {f"{name}.parquet" for name in (*NEEDED, *OPTIONAL)} | {"meanings.safetensors", "unembedding.safetensors"}
COMMIT = "commit.json"
TRAINED_ON = "trained_on"
"""Column of documents.parquet: whether the SAE was trained on the document, `yes`, `no` or `unknown`."""
_META: dict[str, Any] = {
    **dict.fromkeys(("d_sae", "positions", "separator", "block"), int),
    **dict.fromkeys(("sae_sha256", "model_sha256", "keep", "hook_name"), str),
    "texts": list,
    "files": dict,
}
SETTLE_SECONDS = 30.0
"""How long a reader waits for another process that moves a finished index into its place."""

ROWS_PER_GROUP = 131_072
"""Rows a Parquet row group: what a reader decodes to get at one feature."""
ACTIVATIONS = pa.schema({"feature": pa.uint32(), "position": pa.uint32(), "value": pa.float16()})
EXAMPLES = pa.schema(
    {
        "feature": pa.uint32(),
        "band": pa.uint8(),
        "rank": pa.uint8(),
        "position": pa.uint32(),
        "value": pa.float16(),
    }
)
PAIRS = pa.schema({name: pa.uint32() for name in ("feature", "token", "count", "clean")})
_NUMBERS, _REALS = pa.list_(pa.uint32()), pa.list_(pa.float32())
STATISTICS = {
    "fires": pa.uint32(),
    "total": pa.float64(),
    "max": pa.float32(),
    "quantiles": _REALS,
    "histogram": _NUMBERS,
    "documents": pa.uint32(),
    "band_edges": _REALS,
    "token_entropy": pa.float32(),
    "top_tokens": _NUMBERS,
    "top_token_counts": _NUMBERS,
    "near": pa.uint32(),
    "coactive": _NUMBERS,
    "coactive_count": _NUMBERS,
    "coactive_lift": _REALS,
    "coactive_of": pa.uint32(),
}
"""Columns of features.parquet that come from activations."""
# Sorted integers: their differences are small, which a dictionary would hide.
ENCODING: dict[str, Any] = {"use_dictionary": ["feature"], "column_encoding": {"position": "DELTA_BINARY_PACKED"}}
EXAMPLES_ENCODING = ENCODING | {"use_dictionary": ["feature", "band", "rank"]}


def code_type(d_sae: int) -> type[np.uint16] | type[np.uint32]:
    """The narrowest integer that holds a feature's number."""
    return np.uint16 if d_sae <= 1 << 16 else np.uint32


def quoted(path: Path | str) -> str:
    """A path as a string of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def activation_writer(path: Path) -> pq.ParquetWriter:
    """A writer of (feature, position, value) in either order."""
    return pq.ParquetWriter(path, ACTIVATIONS, compression="zstd", compression_level=1, **ENCODING)


def publish(made: Path, folder: Path, meta: dict[str, Any]) -> None:
    """Move a finished index from `made` into `folder`, with `index.json` naming every file's hash.

    A note of what is to be moved is written first, so that a kill in between is made good by `settle`.
    """
    files = {path.name: places.sha256_file(path) for path in sorted(made.iterdir()) if path.is_file()}
    whole = meta | {"files": files}
    places.write_json(made / "index.json", whole | {"sha256": own_sha256(whole)})
    places.write_json(folder / COMMIT, {"from": made.relative_to(folder).as_posix(), "files": [*files, "index.json"]})
    settle(folder)


def own_sha256(meta: dict[str, Any]) -> str:
    """The SHA-256 of what an `index.json` says, its own hash left out."""
    said = {key: value for key, value in meta.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def read_meta(folder: Path) -> dict[str, Any]:
    """What `index.json` says, each part of the kind that `publish` writes.

    Raises InterpError when it is of another format, was edited, or is no description of an index.
    """
    path = folder / "index.json"
    meta = places.read_json(path)
    version = meta.get("format") if isinstance(meta, dict) else None
    if isinstance(meta, dict) and version not in READ:
        raise InterpError(
            f"the index in {folder} has format {version}, this version reads {READ[0]} and {READ[1]}; build it again."
        )
    why = places.unlike(meta, _META) if isinstance(meta, dict) else "it is no JSON object"
    if not why and not isinstance(meta.get("norm_cutoff", ""), int | float | None):  # None: nothing is cut off
        why = f"norm_cutoff is {str(meta.get('norm_cutoff'))[:60]!r}"
    if not why and meta["keep"] not in ("all", "examples"):
        why = f"keep is {meta['keep']!r}"
    if not why and not all(isinstance(digest, str) for digest in meta["files"].values()):
        why = "a file has no hash"
    numbers = [] if why else [meta["d_sae"], meta["positions"], meta["block"] - 1, meta["separator"] + 1]
    if any(not 0 < number < 2**40 for number in numbers):
        why = "a number of it cannot be"
    if not why and "sha256" in meta and own_sha256(meta) != meta["sha256"]:  # the first of format 2 had none
        why = "its hash differs"
    if why:
        raise InterpError(f"{path} is not as it was written ({why}); fetch it again, or build it anew.")
    return dict(meta)


def settle(folder: Path) -> None:
    """Finish a move that was cut short; nothing to do otherwise.

    Whoever opens the folder does so, which may be many at once: one of them moves, and the others wait for it. Raises
    InterpError when the folder cannot be written in.
    """
    if not (folder / COMMIT).exists():
        return
    with places.only_one(folder, "putting the index in its place", wait=SETTLE_SECONDS):
        if (folder / COMMIT).exists():
            _move(folder, _commit(folder))


def _commit(folder: Path) -> tuple[Path, list[str]]:
    """(where the files are, their names) of the note; InterpError when it is not as `publish` writes it."""
    todo = places.read_json(folder / COMMIT)
    made, names = (todo.get("from"), todo.get("files")) if isinstance(todo, dict) else (None, None)
    if made == ".build/made" and isinstance(names, list):
        known = OURS | {"index.json"}
        if all(isinstance(name, str) and name in known for name in names):
            return folder / made, names
    raise InterpError(
        f"{folder / COMMIT} is not as it was written; delete it, and build the index anew with `interp index SAE`."
    )


def _move(folder: Path, todo: tuple[Path, list[str]]) -> None:
    made, names = todo
    for name in names:
        if (made / name).exists():
            (made / name).chmod(0o644)  # safetensors writes for the owner only
            os.replace(made / name, folder / name)
    for name in OURS - set(names):  # of the index before; whatever else lies here is not ours to take away
        (folder / name).unlink(missing_ok=True)
    if made.parent.exists():
        places.drop_folder(made.parent)
    (folder / COMMIT).unlink()


def checker(folder: Path, meta: dict[str, Any]) -> Callable[[str], Path]:
    """A function from a file's name to its path, which compares its SHA-256 when the file is first asked for.

    That function raises InterpError when the file is missing or not the one that was written.
    """
    known: set[str] = set()

    def path_of(name: str) -> Path:
        digest = meta["files"].get(name)
        path = located(folder, name, str(digest))
        if name not in known:
            if digest is None or not path.exists():
                raise InterpError(f"the index in {folder} has no {name}; `interp index SAE` builds it anew.")
            if places.sha256_file(path) != digest:
                raise InterpError(
                    f"{path} is not the file that was written with this index (its SHA-256 differs): it was cut short "
                    "or edited. Fetch it again, or build the index anew with `interp index SAE --restart`."
                )
            known.add(name)
        return path

    return path_of
