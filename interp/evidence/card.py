"""The evidence of an SAE: its parts side by side in one file, a row a feature, and the card of one feature.

1.  Each part (PARTS) lies as a file of its own in `evidence_folder` under INTERP_HOME, where whatever makes it can go on.
2.  `join` puts those that are there side by side. What was not made here is taken from the evidence that came with the SAE, if
    that has it; what is nowhere is said to be missing, with the command that makes it.
3.  `evidence.parquet` lies beside the parts, or in the SAE's folder, to be shared with it. The one that was joined on this
    machine holds; where there is none, the one that came with the SAE (`find_evidence`).

Every column says its unit, its meaning and its part in the schema's metadata, and the schema of what each part was made. Reals
have BITS binary digits, so that a shipped file stays small.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp import places
from interp.checkpoint.files import EVIDENCE as FILE
from interp.corpus.tables import decoding, read_parquet
from interp.evidence import caused, edited, labels, replication, steered
from interp.evidence.part import Columns, Part, Record, Row, Said, check_columns
from interp.render import table_html, title_html
from interp.types import InterpError, check_feature, unknown

FORMAT = 1
META = b"interp.evidence"
PARTS: tuple[Part, ...] = (
    edited.PART,
    labels.PART,
    caused.PART,
    steered.PART,
    replication.PART,
    labels.RANDOM,
    labels.FINAL,
)
"""In the order in which they are told."""
BITS = 12
"""Of a real's significand that are kept: a relative error of at most 2^-12."""
COMMAND = "`interp evidence SAE` makes it"


@dataclass(frozen=True, kw_only=True)
class Of:
    """The weights that evidence is of."""

    name: str
    model: str
    sae_sha256: str
    """As the card has it."""
    d_sae: int
    same: frozenset[str] = frozenset()
    """Other hashes by which parts know the same weights."""


def evidence_folder(sae_sha256: str) -> Path:
    """Where the parts and the joined evidence of these weights lie on this machine."""
    return places.cache() / "evidence" / sae_sha256


def find_evidence(folder: Path, sae_sha256: str) -> Path | None:
    """The evidence that holds: the one that was joined on this machine, else the one in the SAE's folder."""
    here = (evidence_folder(sae_sha256) / FILE, folder / FILE)
    return next((path for path in here if path.exists()), None)


def find_part(name: str) -> Part:
    """The part of that name; InterpError when there is none."""
    for part in PARTS:
        if part.name == name:
            return part
    raise unknown("part of the evidence", name, [part.name for part in PARTS])


# ---- joined ----


def read_made(part: Part, of: Of) -> pa.Table | None:
    """A part's table as it was made on this machine; None where it was not.

    Raises InterpError when it cannot be read, or is of other weights.
    """
    path = evidence_folder(of.sae_sha256) / part.file
    if not path.exists():
        return None
    table = part.read(path)
    own = part.about(table).get("sae_sha256")
    if own != of.sae_sha256 and own not in of.same:
        raise InterpError(f"{path} is of other weights than {of.name}; {part.how}.")
    feature = table["feature"].to_numpy()
    if len(np.unique(feature)) != len(feature) or (len(feature) and feature.max() >= of.d_sae):
        raise InterpError(f"{path} has rows that are no features of {of.name}; {part.how}.")
    return table


def join(of: Of, made: Mapping[str, pa.Table], before: "EvidenceTable | None" = None) -> pa.Table:
    """The evidence: a row for every feature, of the parts that were made here and of those that `before` has besides."""
    columns: dict[str, pa.Array] = {"feature": pa.array(np.arange(of.d_sae), pa.uint32())}
    fields = [pa.field("feature", pa.uint32(), metadata={"about": "number of the feature", "part": ""})]
    abouts: dict[str, Mapping[str, Any]] = {}
    for part in PARTS:
        if part.name in made:
            table, abouts[part.name] = made[part.name], dict(part.about(made[part.name]))
            columns |= {own: _aligned(table, name, of.d_sae) for name, own in part.own.items()}
        elif before is not None and part.name in before.parts:
            abouts[part.name] = before.parts[part.name]
            columns |= {own: _taken(before.table, own, part.columns[name][0]) for name, own in part.own.items()}
        else:
            continue
        for name, own in part.own.items():
            kind, words = part.columns[name]
            fields.append(pa.field(own, kind, metadata={"about": words, "part": part.name}))
    if labels.RANDOM.name in abouts and labels.PART.name in abouts:
        known = {name: columns[f"label_{name}"].to_pylist() for name in _JUDGED}
        columns["label_verdict"] = pa.array(labels.judged_again(known), pa.string())
    about = {
        "format": FORMAT,
        "sae": of.name,
        "sae_sha256": of.sae_sha256,
        "model": of.model,
        "features": of.d_sae,
        "made_by": "interp evidence SAE",
        "parts": abouts,
    }
    schema = pa.schema(fields, metadata={META: json.dumps(about, ensure_ascii=False, sort_keys=True).encode()})
    return pa.table([columns[field.name] for field in fields], schema=schema)


_JUDGED = ("verdict", "f1_low", "null_random_model")


def _aligned(table: pa.Table, name: str, d_sae: int) -> pa.Array:
    """A part's column with a row for every feature, null where the part has none; reals cut to BITS."""
    place = np.full(d_sae, -1, dtype=np.int64)
    place[table["feature"].to_numpy()] = np.arange(len(table))
    column = table[name].combine_chunks().take(pa.array(np.where(place < 0, 0, place), mask=place < 0))
    if column.type == pa.float32():
        return _cut_array(column)
    if column.type == pa.list_(pa.float32()):
        return pa.ListArray.from_arrays(column.offsets, _cut_array(column.values), mask=column.is_null())
    return column


def _cut_array(real: pa.Array) -> pa.Array:
    return pa.array(_cut(real.to_numpy(zero_copy_only=False)), pa.float32(), from_pandas=True)


def _cut(real: np.ndarray) -> np.ndarray:
    """Reals rounded to BITS binary digits, whatever their size."""
    fraction, power = np.frexp(np.asarray(real, dtype=np.float64))
    return np.ldexp(np.round(np.ldexp(fraction, BITS)), power - BITS).astype(np.float32)


def _taken(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(len(table), kind)
    return table[name].combine_chunks()


def write_evidence(table: pa.Table, path: Path) -> None:
    """Write the joined evidence; the file appears whole or not at all."""
    lists = [f"{field.name}.list.element" for field in table.schema if field.type == pa.list_(pa.float32())]
    reals = [*(field.name for field in table.schema if field.type == pa.float32()), *lists]
    with places.whole_file(path) as partial, decoding(path):
        pq.write_table(
            table,
            partial,
            compression="zstd",
            compression_level=19,
            use_dictionary=[path for path in _leaves(table.schema) if path not in reals],
            column_encoding=dict.fromkeys(reals, "BYTE_STREAM_SPLIT"),
        )


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Columns as a Parquet file names them, those inside of lists and records too."""
    for field in schema:
        kind, path = field.type, field.name
        if pa.types.is_list(kind):
            kind, path = kind.value_type, f"{path}.list.element"
        inner = [kind.field(i).name for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        yield from ([f"{path}.{name}" for name in inner] or [path])


# ---- read ----


@dataclass(frozen=True, eq=False)
class EvidenceTable:
    """The evidence of all features; one of them by its number."""

    table: pa.Table
    about: Mapping[str, Any]
    """What it is of, and of what each part was made."""
    name: str = ""
    """Of the file, as it is told of."""

    @property
    def parts(self) -> Mapping[str, Mapping[str, Any]]:
        """Of what each part that is there was made, in the order of PARTS."""
        made = self.about["parts"]
        return {name: made[name] for name in [part.name for part in PARTS] if name in made}

    @property
    def missing(self) -> dict[str, str]:
        """What was not made, by its part: a sentence that names the command."""
        return {p.name: f"Not looked at: {p.question} ({p.how})." for p in PARTS if p.name not in self.parts}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, feature: int) -> "Evidence":
        """Of one feature; InterpError when there is none of that number."""
        number = check_feature(int(feature), len(self), str(self.about["sae"]))
        row = self.table.slice(number, 1).to_pylist()[0]
        records = {p.name: p.record(row) for p in PARTS if p.name in self.parts and p.record is not None}
        return Evidence(feature=number, records=records, missing=self.missing, row=row)

    def column(self, name: str) -> np.ndarray:
        """A column of evidence.parquet, by feature; nulls are nan, or None where the values are no numbers.

        Raises InterpError, with the command, when the part that it belongs to was not made.
        """
        if name not in self.table.column_names:
            part = next((part for part in PARTS if name in part.own.values()), None)
            if part is None:
                raise unknown("column of the evidence", name, self.table.column_names)
            older = " as this version makes it" if part.name in self.parts else ""
            raise InterpError(f"the evidence of {self.about['sae']} does not say {part.question}{older}: {part.how}.")
        if name not in self._columns:
            self._columns[name] = _values(self.table[name])
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """Those that were asked for; two threads may make one twice, which is the same."""
        return {}

    def sentences(self) -> list[str]:
        """What all of it comes to, part by part; what was not made first."""
        there = [part for part in PARTS if part.name in self.parts]
        told = [part.summary(self.table) for part in there if part.summary is not None]
        return [*self.missing.values(), *told]

    def sentence(self) -> str:
        """All of it in one paragraph."""
        return " ".join(self.sentences())

    def documented(self) -> list[tuple[str, str, str]]:
        """(column, part, unit and meaning) of every column."""
        told = [(field.name, field.metadata or {}) for field in self.table.schema]
        return [(name, meta.get(b"part", b"").decode(), meta.get(b"about", b"").decode()) for name, meta in told]

    def _repr_html_(self) -> str:
        title = title_html(f"evidence of {self.about['sae']}: {len(self):,} features")
        return title + table_html([""], [[text] for text in self.sentences()])


def _values(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_nested(column.type):
        return column.to_numpy()
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one feature and was tested; what could not be shown is said first."""

    feature: int
    records: Mapping[str, Record]
    """By part."""
    missing: Mapping[str, str]
    """Parts that were not made: a sentence each."""
    row: Row
    """Every column of evidence.parquet."""

    @property
    def label(self) -> labels.TestedLabel | None:
        """The label that was tried; None where that part was not made."""
        record = self.records.get(labels.PART.name)
        return record if isinstance(record, labels.TestedLabel) else None

    @property
    def effect(self) -> caused.Effect | None:
        """What the feature causes; None where that part was not made."""
        record = self.records.get(caused.PART.name)
        return record if isinstance(record, caused.Effect) else None

    @property
    def said(self) -> list[Said]:
        """Everything, what could not be shown first, then what nobody looked at."""
        told = [each for record in self.records.values() for each in record.said()]
        lacking = [Said(text, shown=False) for text in self.missing.values()]
        return [*(each for each in told if not each.shown), *lacking, *(each for each in told if each.shown)]

    def sentences(self) -> list[str]:
        """The same as plain text."""
        return [each.text for each in self.said]

    def sentence(self) -> str:
        """All of it in one paragraph."""
        return " ".join(self.sentences())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: sentences, then every column by name."""
        return {"feature": self.feature, "sentences": self.sentences(), "missing": dict(self.missing), **dict(self.row)}

    def _repr_html_(self) -> str:
        return title_html(f"evidence of feature {self.feature}") + said_html(self.said)


def said_html(said: Sequence[Said]) -> str:
    """Sentences as a table, with a word before each that says whether it is shown."""
    return table_html(["", ""], [["shown" if each.shown else "not shown", each.text] for each in said])


def read_evidence(path: Path, of: Of) -> EvidenceTable:
    """The evidence in a file.

    Raises InterpError when it is missing, cut short, another program's, of another format, or of other weights.
    """
    table = read_parquet(path, {"feature": "whole"}, others=True)
    try:
        about = json.loads((table.schema.metadata or {})[META])
        format_, own, parts = about["format"], about["sae_sha256"], dict(about["parts"])
    except (KeyError, ValueError, TypeError):
        raise InterpError(
            f"{path} does not say what it is of; it is no evidence of an SAE, and {COMMAND} anew."
        ) from None
    if format_ != FORMAT:
        raise InterpError(f"{path} has format {format_}, and this version reads {FORMAT}; {COMMAND} anew.")
    if own != of.sae_sha256:
        raise InterpError(
            f"{path} is evidence of other weights ({str(own)[:12]}…) than {of.name} ({of.sae_sha256[:12]}…); {COMMAND} anew."
        )
    if len(table) != of.d_sae or not np.array_equal(table["feature"].to_numpy(), np.arange(of.d_sae)):
        raise InterpError(f"{path} has no row for each of the {of.d_sae:,} features of {of.name}; {COMMAND} anew.")
    check_columns(table.schema, dict(_documented(parts)), path, lacking=True)
    return EvidenceTable(table, about, str(path))


def _documented(parts: Mapping[str, Any]) -> Iterator[tuple[str, tuple[pa.DataType, str]]]:
    for part in PARTS:
        columns: Columns = part.columns if part.name in parts else {}
        yield from ((part.own[name], kind) for name, kind in columns.items() if name != "feature")
