"""Figures over the documents of a text: a ratio of two sums, with the interval that drawing documents gives.

Positions of one document are alike, so that tokens drawn one by one would make every interval too narrow: the unit that
is drawn is the document. All figures of one text are drawn alike (`statistics`, seed 0), and so are several SAEs' on it.

Axes    P counted position, D document.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from interp.evals.figure import Better, Figure
from interp.statistics import bootstrap_median, bootstrap_ratio

LEAST_DOCUMENTS = 10
"""Fewer give no interval: a percentile bootstrap of a handful of units is far too narrow."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Which document each counted position is part of."""

    of_P: Int[np.ndarray, " P"]
    """Numbered from 0, those without a counted position left out."""
    count: int

    @classmethod
    def number(cls, document_P: Int[np.ndarray, " P"]) -> "Documents":
        """Of the rows of a documents table that positions belong to."""
        found, of_P = np.unique(document_P, return_inverse=True)
        return cls(of_P.reshape(-1).astype(np.int64), len(found))

    @property
    def too_few(self) -> str:
        """Why figures have no interval; empty where they have one."""
        if self.count >= LEAST_DOCUMENTS:
            return ""
        said = "1 document is" if self.count == 1 else f"{self.count} documents are"
        return f"{said} too few for an interval, which needs {LEAST_DOCUMENTS}: give more text"

    def sums(self, value_P: Shaped[np.ndarray, " P"]) -> Shaped[np.ndarray, " D"]:
        """The sum over each document's positions, in float64."""
        return np.bincount(self.of_P, weights=value_P.astype(np.float64), minlength=self.count)

    def ratio(
        self,
        name: str,
        says: str,
        top_P: Shaped[np.ndarray, " P"],
        bottom_P: Shaped[np.ndarray, " P"],
        *,
        better: Better = "",
        less_from_one: bool = False,
        certain: str = "",
        note: str = "",
    ) -> Figure:
        """Σ top / Σ bottom (with `less_from_one`, 1 less that).

        With `certain`, a bottom that documents do not surely show to be above 0 gives no figure, and `certain` says why.
        """
        top_D, bottom_D = self.sums(top_P), self.sums(bottom_P)
        total = float(bottom_D.sum())
        known = total > 0
        if certain and known:
            above = bootstrap_ratio(bottom_D, np.ones(self.count))
            known = above is not None and above[0] > 0
        if not known:
            why = certain or "there is nothing to divide by"
            return Figure(name=name, says=says, value=None, n=self.count, unit="documents", better=better, note=why)
        value = float(top_D.sum()) / total
        ends = None if self.too_few else bootstrap_ratio(top_D, bottom_D)
        if less_from_one:
            value, ends = 1 - value, None if ends is None else (1 - ends[1], 1 - ends[0])
        return self.figure(name, says, value, ends, better=better, note=note)

    def mean(self, name: str, says: str, value_P: np.ndarray, *, better: Better = "", note: str = "") -> Figure:
        """The mean over positions."""
        return self.ratio(name, says, value_P, np.ones(len(value_P)), better=better, note=note)

    def median(self, name: str, says: str, value_P: np.ndarray, *, better: Better = "", note: str = "") -> Figure:
        """The median over positions."""
        ends = None if self.too_few else bootstrap_median(value_P, self.of_P)
        return self.figure(name, says, float(np.median(value_P)), ends, better=better, note=note)

    def figure(
        self,
        name: str,
        says: str,
        value: float | None,
        interval: tuple[float, float] | None,
        *,
        better: Better = "",
        note: str = "",
    ) -> Figure:
        """A figure over the documents, which says so where they are too few for its interval."""
        notes = [note, "" if interval is not None else self.too_few]
        return Figure(
            name=name, says=says, value=value, interval=interval, n=self.count, unit="documents", better=better,
            note="; ".join(part for part in notes if part),
        )  # fmt: skip
