"""What commands give back, as JSON has it: what could not be measured, or is not finite, is null."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from interp.commands.options import Json


def as_json(record: object) -> Json:
    """The record with plain values in it: dataclasses as objects (or as their `to_dict` says), paths as text."""
    if type(record) is float:  # most of a record is plain numbers, which the longer way below gives the same form
        return record if math.isfinite(record) else None
    if record is None or type(record) is int or isinstance(record, bool | str):
        return record
    if hasattr(record, "item") and getattr(record, "ndim", 0) == 0:  # a number of NumPy's or PyTorch's
        record = record.item()
    if isinstance(record, int | float):
        return record if math.isfinite(record) else None
    if isinstance(record, Path):
        return str(record)
    if isinstance(record, Mapping):
        return {str(key): as_json(value) for key, value in record.items()}
    if hasattr(record, "to_dict"):
        return as_json(record.to_dict())
    if isinstance(record, Sequence):
        return [as_json(value) for value in record]
    if is_dataclass(record):
        return {f.name: as_json(getattr(record, f.name)) for f in fields(record) if not f.name.startswith("_")}
    if hasattr(record, "tolist"):
        return as_json(record.tolist())
    raise TypeError(f"{type(record).__name__} has no form in JSON")
