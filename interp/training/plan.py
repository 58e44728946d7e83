"""How many rows a run trains on, and how many of the last it keeps back; reckoned here and nowhere else."""

from dataclasses import dataclass
from typing import Any

from interp.training.batch import total_rows
from interp.training.config import TrainConfig
from interp.types import InterpError

HELD_BACK = 65_536
INIT_ROWS = 16_384
"""Rows from which the first parameters are made."""


@dataclass(frozen=True)
class Plan:
    """The length of a run."""

    tokens: int
    """Rows to train on, in whole batches where the batches say how many rows they hold."""
    back: int
    """Rows after them that are kept for the threshold; 0 where held-out rows are given."""
    asked: int
    """Rows asked for, or else held by the batches."""

    @staticmethod
    def of(batches: Any, config: TrainConfig, *, held_out: bool, column: int | None = None) -> "Plan":
        """Raises InterpError when neither the batches nor the config say how long the run is, and when nothing would be
        left to train on."""
        rows = total_rows(batches, column)
        asked = config.tokens or rows
        if asked is None:
            raise InterpError("TrainConfig(tokens=…) is needed: these batches do not say how many rows they hold.")
        back = 0 if held_out else max(min(HELD_BACK, asked // 10, (rows or asked) // 10), 1)
        if rows is None:
            return Plan(asked, back, asked)
        most = (rows - back) // batches.batch_size * batches.batch_size
        if most <= 0:
            raise nothing_left(rows, back)
        return Plan(min(asked, most), back, asked)


def nothing_left(rows: int, back: int) -> InterpError:
    """The error that nothing is left to train on, for want of rows or because some are kept back."""
    if not rows:
        return InterpError(
            "there are too few rows for a single batch; give a smaller batch (--batch) or more text (--tokens)."
        )
    return InterpError(
        f"the batches hold {rows:,} rows, and {back:,} are kept back for the threshold: no whole batch is left to train "
        "on; give held_out rows, smaller batches or more rows."
    )
