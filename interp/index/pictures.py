"""Small copies of the pictures that examples are from, in an index that is shared, for machines where the pictures are not.

A copy is the whole picture as the model's processor resizes and crops it, so that patches lie over it as over the picture. Only
pictures that examples use are copied, the strongest examples' first, and none of a document that may not be passed on.

Axes    N position, D document.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus import write_parquet
from interp.corpus.blocks import FILE
from interp.corpus.tables import check_parquet, decoding, read_parquet
from interp.progress import bar
from interp.types import InterpError

NAME = "pictures.parquet"
KINDS = {"document": "whole", "picture": "bytes"}
SIDE = 128
"""Pixels of a copy's longer side."""
QUALITY = 70
MOST = 4096
"""Copies in an index: some 16 MiB."""
LARGEST = 64 << 10
"""Bytes of a copy that is read; those written have some 4 KiB."""
WIDEST = 256
"""Pixels of the longer side of a copy that is read."""
BYTES = 256 << 20
"""The largest file that a copy is made of."""


def write_pictures(
    made: Path, documents: pa.Table, passes_D: np.ndarray, document_N: np.ndarray, view: Callable[[Path], Any]
) -> int:
    """Write pictures.parquet beside examples.parquet, and how many copies there are; no file when there are none.

    `documents` says where pictures lie (`FILE`), `view` gives one as the model sees it. A file that is gone, cannot be read or is
    another than the indexed one has no copy.
    """
    if FILE not in documents.column_names:
        return 0
    files, digests = documents[FILE].to_pylist(), documents["sha256"].to_pylist()
    rows, copies = [], []
    wanted = [row for row in used(made / "examples.parquet", document_N) if passes_D[row]][:MOST]
    with bar("index: pictures", len(wanted), "pictures") as step:
        for row in wanted:
            copy = _copy(Path(files[row]), digests[row], view)
            if copy:
                rows.append(row)
                copies.append(copy)
            step(1)
    if rows:
        order = np.argsort(rows)
        columns = {"document": np.array(rows, dtype=np.uint32)[order], "picture": [copies[at] for at in order]}
        write_parquet(pa.table(columns), made / NAME)
    return len(rows)


def used(examples: Path, document_N: np.ndarray) -> list[int]:
    """The documents that examples are from, those of the strongest first."""
    table = pq.read_table(examples, columns=["band", "rank", "position"])
    order = np.lexsort((table["rank"].to_numpy(), table["band"].to_numpy()))
    row_E = document_N[table["position"].to_numpy()[order]]
    return list(dict.fromkeys(row_E.tolist()))


def _copy(path: Path, digest: str, view: Callable[[Path], Any]) -> bytes:
    """A small JPEG of a file's picture, without anything that the file said of it; empty when there can be none."""
    try:
        if path.stat().st_size > BYTES:
            return b""
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return b""
        seen = view(path)
    except (OSError, ValueError, InterpError):
        return b""
    seen.thumbnail((SIDE, SIDE))
    seen.info.clear()  # Pillow would write a JPEG's comment again
    out = io.BytesIO()
    seen.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def read_pictures(path: Path) -> dict[int, bytes]:
    """The copies by document, as they lie in the file; `open_copy` decodes one.

    Raises InterpError when the file is not as `write_pictures` writes it.
    """
    too_large = InterpError(
        f"{path} holds more than small copies of pictures; fetch it again, or build the index anew."
    )
    check_parquet(path, KINDS)
    with decoding(path):
        known = pq.read_metadata(path)
        unpacked = sum(known.row_group(at).total_byte_size for at in range(known.num_row_groups))
    if known.num_rows > MOST or max(unpacked, path.stat().st_size) > MOST * LARGEST:  # before it is unpacked
        raise too_large
    table = read_parquet(path, KINDS)
    copies = table["picture"].to_pylist()
    if any(len(copy) > LARGEST for copy in copies):
        raise too_large
    return dict(zip(table["document"].to_pylist(), copies, strict=True))


def open_copy(copy: bytes) -> Any:
    """Pillow's image of a copy; InterpError when it is no small JPEG, which is known before it is decoded."""
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(copy), formats=["JPEG"])
        if max(opened.size) > WIDEST:
            raise InterpError(
                f"its copy in the index has {opened.width} × {opened.height} pixels, which is no small one."
            )
        seen = opened.convert("RGB")
        seen.info.clear()
        return seen
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InterpError("its copy in the index cannot be read as a JPEG; build the index anew.") from None
