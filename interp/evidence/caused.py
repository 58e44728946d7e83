"""What a feature causes, as its evidence tells it: the part `effects`, whose table `table.py` makes."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from interp.evidence.part import Part, Row, Said
from interp.evidence.table import COLUMNS, Q, about_effects, read_effects, summarise
from interp.render.words import counted

FILE = "effects.parquet"
ONLY = "This is the next token only, not what attention carries on"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What ablating one feature does to the next token where it fires, beside the same amount along other features' rows.

    Nats; None where the feature fires nowhere that it could be tried.
    """

    positions: int
    documents: int
    kl: float | None
    kl_low: float | None
    kl_high: float | None
    control_kl: float | None
    loss: float | None
    """Above 0 the feature had made likelier what really follows."""
    loss_low: float | None
    loss_high: float | None
    above_kl: float | None
    """Above the feature's clean level."""
    below_kl: float | None
    q: float | None
    exceeds: bool
    """Whether it causes more than its controls, at q at most `table.Q`."""

    def said(self) -> list[Said]:
        """Whether it is told from its controls, and by how much."""
        if not self.positions or self.kl is None:
            return [Said("What it causes could not be measured: it fires nowhere that it could be tried.", shown=False)]
        figures = (
            f"ablated at {counted(self.positions, 'position')} in {counted(self.documents, 'document')} it changes the next "
            f"token by KL {self.kl:.2g} nats ({_ends(self.kl_low, self.kl_high)}), the same amount along other features by "
            f"{_number(self.control_kl)} (q {_number(self.q)})"
        )
        if not self.exceeds:
            return [Said(f"It is not shown to cause more than its controls: {figures}. {ONLY}.", shown=False)]
        said = [Said(f"It causes more than its controls: {figures}. {ONLY}.")]
        if self.above_kl is not None and self.below_kl is not None:
            said.append(
                Said(f"Above its clean level the KL is {self.above_kl:.2g} nats, below it {self.below_kl:.2g}.")
            )
        return said


def _ends(low: float | None, high: float | None) -> str:
    return f"{_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2g}"


def _record(row: Row) -> Effect:
    own = {name: row[f"effect_{name}"] for name in Effect.__dataclass_fields__}
    return Effect(
        **(
            own
            | {"positions": own["positions"] or 0, "documents": own["documents"] or 0, "exceeds": bool(own["exceeds"])}
        )
    )


def _summary(table: pa.Table) -> str:
    measured = table.filter(pc.is_valid(table["effect_exceeds"]))
    columns = [measured["feature"] if name == "feature" else measured[f"effect_{name}"] for name in COLUMNS]
    return summarise(pa.table(columns, names=list(COLUMNS))).sentence()


PART = Part(
    name="effects",
    prefix="effect",
    file=FILE,
    columns=COLUMNS,
    question="what features cause beyond their controls",
    how="`interp evidence SAE --parts effects` measures it",
    read=read_effects,
    about=about_effects,
    record=_record,
    summary=_summary,
)
__all__ = ["FILE", "PART", "Effect", "Q"]
