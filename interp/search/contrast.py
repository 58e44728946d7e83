"""Which features separate two sets of texts: effect size, AUROC, Mann–Whitney p-value, Benjamini–Hochberg q.

Axes    A text of the first set, B text of the second, F feature.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus import CORPORA, open_corpus
from interp.search.query import Term
from interp.types import InterpError

LARGEST = 1000
"""Texts of a set that are read: those with the smallest SHA-256, so that the choice is fixed and no one's."""
POOL = 20_000
"""Texts of a corpus among which they are chosen."""
TOKENS = 64
"""Tokens of a text that are read."""
csv.field_size_limit(1 << 30)  # a field may be a whole text


@dataclass(frozen=True)
class Contrast:
    """A row of figures a feature; features active on no text have AUROC .5 and p 1."""

    auroc_F: np.ndarray
    """Chance that a text of the first set has the larger maximum; ties count half."""
    effect_F: np.ndarray
    """Difference of mean maxima, in pooled standard deviations (Cohen's d); infinite where neither set varies."""
    p_F: np.ndarray
    q_F: np.ndarray
    """Over all features of the dictionary."""
    sizes: tuple[int, int]


def contrast(first_AF: np.ndarray, second_BF: np.ndarray) -> Contrast:
    """The figures of each feature from its largest activation on each text."""
    from scipy import stats

    sizes = len(first_AF), len(second_BF)
    auroc_F, effect_F, p_F = np.full(first_AF.shape[1], 0.5), np.zeros(first_AF.shape[1]), np.ones(first_AF.shape[1])
    live = np.flatnonzero(first_AF.any(0) | second_BF.any(0))
    for part in np.array_split(live, max(len(live) // 1024, 1)):
        a, b = first_AF[:, part].astype(np.float64), second_BF[:, part].astype(np.float64)
        if not len(part):
            continue
        test = stats.mannwhitneyu(a, b, axis=0, method="asymptotic")
        auroc_F[part], p_F[part] = test.statistic / (sizes[0] * sizes[1]), test.pvalue
        pooled = ((sizes[0] - 1) * a.var(0, ddof=1) + (sizes[1] - 1) * b.var(0, ddof=1)) / (sum(sizes) - 2)
        apart, spread = a.mean(0) - b.mean(0), np.sqrt(pooled)
        varies = spread > 1e-9 * (a.mean(0) + b.mean(0))  # beyond rounding; activations are not negative
        effect_F[part] = np.where(varies, apart / np.where(varies, spread, 1.0), np.copysign(np.inf, apart))
        effect_F[part] = np.where(apart == 0, 0.0, effect_F[part])
    p_F = np.nan_to_num(p_F, nan=1.0)
    return Contrast(auroc_F, effect_F, p_F, stats.false_discovery_control(p_F), sizes)


def sets(term: Term) -> tuple[list[str], list[str]]:
    """The two sets of texts that a `contrast:` names; InterpError when there are not two different ones."""
    parts = [part.strip() for part in term.value.split(",") if part.strip()]
    if len(parts) != 2:
        raise InterpError(
            f"contrast:{term.value} names {len(parts)} set(s) of texts (at character {term.at}); write contrast:A,B."
        )
    first, second = parts
    if "#" in first and "#" not in second and not Path(second).exists() and second not in CORPORA:
        second = first.rpartition("=")[0] + "=" + second  # FILE#column=one,other
    found = texts(first), texts(second)
    shared = set(found[0]) & set(found[1])
    if shared:
        raise InterpError(f"{first} and {second} have {len(shared)} text(s) in common; contrast two different sets.")
    for name, these in zip((first, second), found, strict=True):
        if len(these) < 5:
            raise InterpError(f"{name} has {len(these)} text(s); a contrast needs at least 5 in each set.")
    return found


def texts(name: str) -> list[str]:
    """The texts of a set, at most LARGEST: lines of a .txt file, rows of a .csv, .jsonl or .parquet file, documents of a
    corpus; after #, `column=value` that must hold."""
    where, _, condition = name.partition("#")
    column, equals, value = condition.partition("=")
    if condition and not equals:
        raise InterpError(f"{name}: write #column=value after the file or corpus.")
    keep: Callable[[dict[str, Any]], bool] = lambda row: not column or str(row.get(column, "")) == value  # noqa: E731
    seen: set[str] = set()
    columns: set[str] = set()
    for number, row in enumerate(_rows(where)):
        columns |= set(row)
        if number >= POOL and len(seen) >= LARGEST:
            break
        if keep(row) and str(row["text"]).strip():
            seen.add(str(row["text"]).strip())
    if not seen:
        known = f" Its columns are {', '.join(sorted(columns))}." if column and column not in columns else ""
        raise InterpError(f"{name} has no text.{known}")
    return sorted(seen, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())[:LARGEST]


def _rows(where: str) -> Iterator[dict[str, Any]]:
    try:
        yield from _read(where)
    except UnicodeDecodeError as error:
        raise InterpError(f"{where} is not UTF-8 ({error.reason} at byte {error.start}); write it anew so.") from None
    except csv.Error as error:
        raise InterpError(f"{where} is no CSV: {error}.") from None


def _read(where: str) -> Iterator[dict[str, Any]]:
    path = Path(where).expanduser()
    if path.is_file() and path.suffix == ".txt":
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            yield {"text": line}
    elif path.is_file() and path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from _with_text(path, csv.DictReader(file))
    elif path.is_file() and path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            try:
                yield from _with_text(path, (json.loads(line) for line in file if line.strip()))
            except json.JSONDecodeError as error:
                raise InterpError(f"{path} is no JSON lines: {error}.") from None
    elif path.is_file() and path.suffix == ".parquet":
        try:
            batches = pq.ParquetFile(path).iter_batches(1024)
        except (pa.ArrowInvalid, OSError) as error:
            raise InterpError(f"{path} is not readable as Parquet: {error}.") from None
        yield from _with_text(path, (row for batch in batches for row in batch.to_pylist()))
    else:
        names = ("text", "source", "title", "topic", "split")
        for doc in open_corpus(where).documents():
            yield {name: getattr(doc, name) for name in names}


def _with_text(path: Path, rows: Any) -> Iterator[dict[str, Any]]:
    """Rows whose field `text`, or else the longest of their first row's strings, is the text."""
    chosen = None
    for row in rows:
        if not isinstance(row, dict):
            row = {"text": str(row)}
        if chosen is None:
            strings = {name: value for name, value in row.items() if isinstance(value, str)}
            if not strings and "text" not in row:
                raise InterpError(f"{path}: no column holds text; its columns are {', '.join(map(str, row))}.")
            chosen = "text" if "text" in row else max(strings, key=lambda name: len(strings[name]))
        yield row | {"text": row.get(chosen) or ""}
