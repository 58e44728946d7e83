"""The report of an SAE, and of several beside one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp import places
from interp.commands.opening import open_sae
from interp.commands.options import Device, Option, Sae
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.evals.report import Report


@dataclass(frozen=True)
class Evaluated:
    """What was measured of an SAE, and of those that were named beside it."""

    report: "Report"
    against: "Sequence[Report]"
    figures: Mapping[str, Any]
    """Of the section `fidelity`, by name; empty where that was not measured."""
    where: str
    """The folder of report.json, report.md and report.html."""

    def not_shown(self) -> list[str]:
        """What a reader is told before any figure, a sentence each."""
        from interp.evals.told import notes

        return notes(self.report)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows: the figures of the SAE, or of all side by side."""
        from interp.evals.depths import names, side_by_side
        from interp.evals.told import HEAD, lines

        if not self.against:
            return HEAD, list(lines(self.report))
        reports = [self.report, *self.against]
        rows = [[section, name, *values] for section, name, _, *values in side_by_side(reports)]
        return ["section", "figure", *names(reports)], rows

    def to_dict(self) -> dict[str, Any]:
        """The figures of fidelity by name, as before there was a report, then the reports."""
        others = {"against": [each.to_dict() for each in self.against]} if self.against else {}
        return {**self.figures, "where": self.where, "report": self.report.to_dict(), **others}


def evaluate(
    sae: Sae,
    *,
    corpus: Annotated[str, Option("Text to measure on, of which the held-out split is read.")] = "wiki-en",
    tokens: Annotated[int, Option("How many tokens to measure on.", low=256)] = 50_000,
    only: Annotated[
        Sequence[str],
        Option("A section to make, such as fidelity; repeatable. Without: all that can be made here within minutes."),
    ] = (),
    everything: Annotated[bool, Option("Make every section, those that take many minutes (meaning) too.")] = False,
    nulls: Annotated[
        str,
        Option(
            "Folder of SAEs that found nothing, beside trained ones of the same recipe (trained/, frozen/, random/, a folder for "
            "each seed), which every figure is held against; seeds/ and sibling/ there are other seeds and a fine-tuned model."
        ),
    ] = "",
    seed: Annotated[int, Option("Number from which all that is drawn begins.", low=0)] = 0,
    against: Annotated[
        Sequence[str],
        Option(
            "Another SAE that is measured in the same way and set beside this one, such as another depth; repeatable."
        ),
    ] = (),
    into: Annotated[
        str, Option("Write the page of the SAE, or of all that are set beside one another, to this .html file.")
    ] = "",
    beside: Annotated[
        bool, Option("Write report.json, report.md and report.html into the SAE's folder, to be shared with it.")
    ] = False,
    device: Device = "auto",
) -> Evaluated:
    """Measure an SAE on held-out text, and write its report: each figure with its interval, and what could not be shown first.

    Sections are kept under INTERP_HOME as they are made: stopped and called again, it goes on where it was, and a section of
    the same weights, tokens and seed is not made again. The report is written there as JSON, Markdown and one HTML page.

    Raises InterpError when a named section cannot be made, the text is too short for an interval, or the SAE does not fit.
    """
    if into and not into.endswith(".html"):
        raise InterpError(f"--into {into} is no name of a page; give one that ends in .html.")
    from interp.recipe.worlds import PLANTED
    from interp.workbench.reporting import flat, report_folder

    asked: dict[str, Any] = {"only": tuple(only), "everything": everything, "seed": seed, "beside": beside}
    asked |= {"nulls": nulls, "extra": (PLANTED,)}
    bench = open_sae(sae, device)
    report = bench.report(corpus, tokens, **asked)
    others = [open_sae(other, device).report(corpus, tokens, **asked | {"nulls": ""}) for other in against]
    figures = flat(report) if any(section.name == "fidelity" for section in report.sections) else {}
    if into:
        _write_page([report, *others], Path(into))
    return Evaluated(report, others, figures, str(bench.folder if beside else report_folder(report.of.sae_sha256)))


def _write_page(reports: "Sequence[Report]", into: Path) -> None:
    """The page of a report, or of several side by side."""
    from interp.evals.depths import side_by_side_page
    from interp.evals.page import page

    with places.whole_file(into) as partial:
        partial.write_text(side_by_side_page(reports) if len(reports) > 1 else page(reports[0]), encoding="utf-8")
