"""What a comparison of SAEs came to: a row for each SAE at each L0, a difference for each pair, and both as people read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from interp.evals.figure import Better, Figure

Q = 0.05
"""The largest q-value of a difference that is told apart, where more than two are compared."""
MEASURES: dict[str, tuple[str, Better]] = {
    "ev": ("explained variance", "higher"),
    "delta_ce": ("ΔCE", "lower"),
    "kl": ("KL", "lower"),
}
"""What is compared: its words, and which way is better."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One SAE that is compared."""

    letter: str
    """What tables call it."""
    given: str
    """As it was asked for."""
    name: str
    d_sae: int
    rule: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    """What its files do not say, and what was taken instead: a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one SAE comes to at one L0."""

    letter: str
    wanted: int | None
    """The L0 it was to be read at; None: as it is."""
    how: str
    """`as it is`, or how it was made sparser."""
    figures: tuple[Figure, ...]

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two SAEs differ in one measure at one L0."""

    a: str
    b: str
    measure: str
    wanted: int | None
    """The L0 of both; None: each at its own."""
    value: float
    """A's less B's."""
    interval: tuple[float, float]
    p: float
    q: float | None
    """Over all comparisons of the run; None where two SAEs are compared."""
    better: str
    """The letter of the better one; empty where they cannot be told apart."""
    says: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several SAEs on the same tokens."""

    saes: tuple[Compared, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    """What a reader must know before using the figures."""
    of: Mapping[str, Any] = field(default_factory=dict)
    """Text, hash of its tokens, documents, positions that count, model, and the untouched and ablated losses."""

    def at(self, letter: str, wanted: int | None = None) -> Row:
        """The row of one SAE at one L0; without one, as it is."""
        return next(row for row in self.rows if (row.letter, row.wanted) == (letter, wanted))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    # ---- as people read it ----

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(head, a line for each SAE at each L0), intervals in parentheses."""
        head = [
            "SAE",
            "read",
            "L0",
            "explained variance",
            "ΔCE (nats)",
            "KL (nats)",
            "CE recovered (zero)",
            "CE recovered (mean)",
        ]
        names = ("ev", "delta_ce", "kl", "recovered_zero", "recovered_mean")
        return head, [
            [row.letter, row.how, f"{row['l0'].value:.4g}", *(_shown(row[name]) for name in names)] for row in self.rows
        ]

    def verdicts(self) -> tuple[list[str], list[list[str]]]:
        """(head, a line for each comparison)."""
        head = [
            "at L0",
            "pair",
            "difference, first less second",
            "of which",
            "p",
            *(["q"] if self.corrected else []),
            "verdict",
        ]
        return head, [
            [
                "own" if one.wanted is None else str(one.wanted),
                f"{one.a}, {one.b}",
                f"{one.value:.4g} ({one.interval[0]:.4g} to {one.interval[1]:.4g})",
                MEASURES[one.measure][0],
                f"{one.p:.2g}",
                *([] if one.q is None else [f"{one.q:.2g}"]),
                f"{one.better} is better" if one.better else "cannot be told apart",
            ]
            for one in self.differences
        ]

    @property
    def corrected(self) -> bool:
        """Whether more than two are compared, so that a difference must hold by q, too."""
        return len(self.saes) > 2

    def counts(self) -> str:
        """How many comparisons were made, and by what rule, in a sentence."""
        rule = (
            f" and its q (Benjamini and Hochberg, over all {len(self.differences)}) is at most {Q:g}"
            if self.corrected
            else ""
        )
        return (
            f"{len(self.differences)} comparisons, paired over {self.of['documents']:,} documents; one is called better where the "
            f"95 % interval leaves out 0{rule}."
        )


def _shown(figure: Figure) -> str:
    """A figure with its interval."""
    if figure.value is None:
        return "cannot be told"
    if figure.interval is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} ({figure.interval[0]:.4g} to {figure.interval[1]:.4g})"
