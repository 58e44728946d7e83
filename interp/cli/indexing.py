"""Indexes and evaluations on the command line."""

from typing import TYPE_CHECKING, Any

from interp.cli.app import Asked, register
from interp.commands.indexing import Indexed
from interp.render.terminal import table, tell

if TYPE_CHECKING:
    from interp.commands.indexing import Report


def _indexed(index: Indexed, _: Asked) -> None:
    tell(f"index in {index.where}")


def _evaluated(report: "Report", _: Asked) -> None:
    measures = report.to_dict()
    table(["measure", "value"], [[key, _measure(value)] for key, value in measures.items()])
    if None in (measures["recovered_zero"], measures["recovered_mean"]):
        tell(
            "Where ablation adds nothing to the loss beyond chance (its interval reaches 0), no share of it is recovered."
        )


def _measure(value: Any) -> Any:
    """A measure as a person reads it: an interval as its ends, a count with its thousands."""
    if value is None:
        return "cannot be told"
    if isinstance(value, tuple):
        return " to ".join(f"{end:.4g}" for end in value)
    return f"{value:,}" if isinstance(value, int) else value


register("index", _indexed, "interp index saes/mine --corpus wiki-en --tokens 200000", face=("background",))
register(
    "evaluate", _evaluated, "interp evaluate saes/mine --corpus wiki-en --tokens 50000", face=("as_json", "background")
)
