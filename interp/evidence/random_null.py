"""The null of a model of random weights: how labels do that the same method gives to features with nothing to find in them.

The SAE of a random-weight copy of the model is indexed over the same text, its features are named and tried as any, and what
its labels reach is kept beside the evidence as a small table of its own (FILE): density and F1 of each. From it follows the part
`labels.RANDOM`: for every feature with a tried label, the 95th percentile of the F1 of those whose features fire about as often.
Features of the random model for which no claim is found have no F1 and are in no null, which so is of labels, not of features.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interp.evidence import labels
from interp.evidence.part import COUNT, REAL, make_part, read_part
from interp.labels.testing import RandomNull

FORMAT = 1
FILE = "random-labels.parquet"
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "count: rank by density; which feature of the random model's SAE it is does not matter"),
    "density": (REAL, "share: of the testing positions, those at which it fires above its label's level"),
    "f1": (REAL, "share: F1 of its label there"),
}
read_table = partial(read_part, name="random-labels", format_=FORMAT, columns=COLUMNS)
"""The small table in a file; InterpError as `part.read_part`."""


def make_null_table(null: RandomNull, about: Mapping[str, Any]) -> pa.Table:
    """The small table; `about` says of which weights, and what they were tried on."""
    values = {"feature": np.arange(len(null.f1_N)), "density": null.density_N, "f1": null.f1_N}
    return make_part("random-labels", FORMAT, COLUMNS, values, about)


def read_null(path: Path) -> RandomNull:
    """The null that a file holds, for `labels.testing.try_labels`; InterpError as `part.read_part`."""
    table = read_table(path)
    return RandomNull(*(table[name].to_numpy().astype(np.float64) for name in ("density", "f1")))


def make_random(tried: pa.Table, null: RandomNull, positions: int, about: Mapping[str, Any]) -> pa.Table:
    """The part `labels.RANDOM` of a table of tried labels; `positions` is how many these were tried on."""
    has_label = [
        fires if claim else None
        for fires, claim in zip(*(tried[c].to_pylist() for c in ("fires", "claim")), strict=True)
    ]
    found = [None if fires is None else null.percentile(fires / positions) for fires in has_label]
    values = {"feature": tried["feature"].to_numpy(), "null_random_model": found}
    return make_part("random", labels.FORMAT, labels.RANDOM_COLUMNS, values, about)
