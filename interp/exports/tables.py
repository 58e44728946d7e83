"""Features, examples and labels as tables: CSV (whose cells no spreadsheet runs) and Parquet, and the labels alone as JSON
lines."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from interp import places
from interp.exports.contents import Contents
from interp.labels import Label
from interp.labels.transfer import write_jsonl
from interp.render import csv_cell

PLAIN = ("density", "fires", "mean", "max", "documents", "token_entropy")


def features_table(contents: Contents, features: list[int]) -> pd.DataFrame:
    """A row a feature: its name, statistics, and what it fires on, promotes and resembles; lists are JSON."""
    rows = []
    for feature in features:
        row, (name, automatic) = contents.index.row(feature), contents.name(feature)
        label = contents.labels.get(feature)
        rows.append(
            {
                "feature": feature,
                "label": name,
                "automatic": automatic,
                "author": label.author if label else "",
                "status": label.status if label else "",
                "note": label.note if label else "",
                **{column: row[column].item() for column in PLAIN if column in row},
                "top_tokens": _json(contents.index.text(row["top_tokens"])),
                "promoted": _json([token for token, _ in contents.effects(row, "promoted")]),
                "suppressed": _json([token for token, _ in contents.effects(row, "suppressed")]),
                "nearest": _json([int(other) for other in row["nearest"]]),
            }
        )
    return pd.DataFrame(rows)


def examples_table(contents: Contents, features: list[int]) -> pd.DataFrame:
    """A row an example: its text, where it is from, and the activation at each token (lists are JSON)."""
    rows = []
    for feature in features:
        for example in contents.index.examples(feature):
            told = asdict(example)
            lists = {name: _json(told.pop(name)) for name in ("tokens", "values")}
            rows.append({"feature": feature, **told, "text": "".join(example.tokens), **lists})
    return pd.DataFrame(rows)


def labels_table(contents: Contents, features: list[int]) -> pd.DataFrame:
    """A row a label, with the fields of `Label`; tags stand side by side."""
    names = [field.name for field in fields(Label)]
    labels = [contents.labels[f] for f in features if f in contents.labels]
    return pd.DataFrame([asdict(label) | {"tags": " ".join(label.tags)} for label in labels], columns=names)


def write_csv(contents: Contents, features: list[int], folder: Path) -> list[str]:
    """features.csv, examples.csv and labels.csv; what they do not hold comes back."""
    for name, table in _tables(contents, features).items():
        _write(table, folder / f"{name}.csv")
    return ["histograms, and activations outside the examples"]


def _write(table: pd.DataFrame, path: Path) -> None:
    table.map(csv_cell).to_csv(path, index=False)


def write_parquet(contents: Contents, features: list[int], folder: Path) -> list[str]:
    """features.parquet, examples.parquet and labels.parquet; what they do not hold comes back."""
    for name, table in _tables(contents, features).items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    return ["histograms, and activations outside the examples"]


def write_labels(contents: Contents, features: list[int], folder: Path) -> list[str]:
    """labels.jsonl, which this project reads back, and the same as labels.csv."""
    write_jsonl([contents.labels[f] for f in features if f in contents.labels], folder / "labels.jsonl")
    _write(labels_table(contents, features), folder / "labels.csv")
    return ["automatic descriptions, and the history of each label"]


def _tables(contents: Contents, features: list[int]) -> dict[str, pd.DataFrame]:
    return {
        "features": features_table(contents, features),
        "examples": examples_table(contents, features),
        "labels": labels_table(contents, features),
    }


def _json(value: Any) -> str:
    return places.strict_json(value)
