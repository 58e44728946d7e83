"""What a feature does to the text when it is held: the part `steering`, verdicts of a study of features that were drawn by a rule.

The verdict and its controls are those of `steering/verdict.py`; a verdict takes ten seconds a feature, so a study judges some, and
the table has a row for each of them. Columns of the others are null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from interp.evidence.part import COUNT, REAL, Part, Row, Said, about_part, check_columns, make_part, read_part
from interp.render import visible
from interp.statistics import wilson

FORMAT = 1
FILE = "steering.parquet"
CONTROLS = ("controller", "both")
"""Verdicts on a feature that moves the output and leaves it text."""
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "number of the feature"),
    "verdict": (pa.string(), "controller, detector, both or neither (docs/steering.md); null where it was not drawn"),
    "moves": (
        pa.bool_(),
        "whether it makes its tokens likelier than every control does, by twice at least, and than noise does tokens of its own",
    ),
    "stays_text": (pa.bool_(), "whether what the model writes meanwhile is still text"),
    "fires": (pa.bool_(), "whether it fires on tokens one can name, over its whole range"),
    "strength": (REAL, "activation at which it was held: its largest in the index"),
    "shift": (REAL, "nats: how much likelier its tokens (measured on other prompts) become, mean over prompts"),
    "shift_low": (REAL, "lower end of its 95 % interval over prompts"),
    "shift_high": (REAL, "upper end of it"),
    "shift_control": (
        REAL,
        "nats: the largest shift of these tokens by a control, of features of like density and noise",
    ),
    "shift_noise": (REAL, "nats: the largest shift by a noise of tokens of its own, measured by the same rule"),
    "targets": (pa.list_(pa.string()), "the first of its tokens, that which rises most before the others"),
}
"""By name: type, and unit and meaning."""
LATER = ("shift_noise", "targets")
"""Columns that tables by the logit lens' tokens do not have."""
SHOWN = 6
"""Tokens of each feature that are kept."""


@dataclass(frozen=True, kw_only=True)
class Steered:
    """The verdict on one feature; `verdict` is None where it was not drawn."""

    verdict: str | None
    moves: bool | None
    stays_text: bool | None
    strength: float | None
    shift: float | None
    shift_control: float | None
    shift_noise: float | None
    targets: Sequence[str] | None

    def said(self) -> list[Said]:
        """Whether it moves the output, beside its controls."""
        if self.verdict is None or self.shift is None or self.shift_control is None:
            return []
        noise = "" if self.shift_noise is None else f", noise with tokens of its own {math.exp(self.shift_noise):.2g}"
        tokens = (
            "its tokens"
            if not self.targets
            else " ".join(f"‘{visible(text)}’" for text in self.targets) + " and the like"
        )
        figures = (
            f"held at {self.strength:.3g} it makes {tokens} {math.exp(self.shift):.2g} times as likely (controls at most "
            f"{math.exp(self.shift_control):.2g} times{noise})"
        )
        if not self.moves:
            beyond = self.shift > max(self.shift_control, self.shift_noise or 0.0)
            also = (
                " Its output score, or the lower end of that figure, does not exceed what is asked." if beyond else ""
            )
            return [Said(f"It is not shown to steer the model: {figures}.{also}", shown=False)]
        if not self.stays_text:
            return [Said(f"It moves the output, which is then no longer text: {figures}.", shown=False)]
        return [Said(f"It steers the model ({self.verdict}): {figures}, and what is written stays text.")]


def make_steering(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> pa.Table:
    """The part, of verdicts as `steering.Verdict` has them, each with its `feature`; `about` says of what it was made, and how drawn."""
    values = {name: [row[name] for row in rows] for name in ("feature", "verdict", "moves", "fires", "strength")}
    values["stays_text"] = [row["fluent"] for row in rows]
    for name, at in (("shift", 0), ("shift_low", 1), ("shift_high", 2)):
        values[name] = [row["shift"][at] for row in rows]
    values["shift_control"] = [max(row["shift_controls"]) for row in rows]
    values["shift_noise"] = [max(row["shift_noises"]) for row in rows]
    values["targets"] = [row["targets"][:SHOWN] for row in rows]
    return make_part("steering", FORMAT, COLUMNS, values, about)


def read_steering(path: Path) -> pa.Table:
    """The part's table; InterpError as `read_part`."""
    table = read_part(path, "steering", FORMAT, {name: kind for name, kind in COLUMNS.items() if name not in LATER})
    lacking = {name: COLUMNS[name] for name in LATER if name not in table.column_names}
    for name, (kind, words) in lacking.items():
        table = table.append_column(pa.field(name, kind, metadata={"about": words}), pa.nulls(len(table), kind))
    check_columns(table.schema, COLUMNS, path)
    return table


def _record(row: Row) -> Steered:
    return Steered(**{name: row.get(f"steer_{name}") for name in Steered.__dataclass_fields__})


def _summary(table: pa.Table) -> str:
    verdicts = [value for value in table["steer_verdict"].to_pylist() if value is not None]
    share, low, high = wilson(sum(value in CONTROLS for value in verdicts), len(verdicts))
    return (
        f"Of {len(verdicts):,} features that were drawn and steered {share:.1%} ({low:.1%} to {high:.1%}) move the output beyond "
        "their controls and leave it text."
    )


PART = Part(
    name="steering",
    prefix="steer",
    file=FILE,
    columns=COLUMNS,
    question="which features steer the model beyond their controls",
    how="a study such as recipes/steering_study.py judges some, `interp steer SAE --sweep FEATURE` one",
    read=read_steering,
    about=lambda table: about_part(table),
    record=_record,
    summary=_summary,
)
