"""Reports that are there already, as pages show them; `interp.commands.evaluating.evaluate` makes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from interp.commands.finding import find_folder
from interp.commands.opening import open_sae
from interp.commands.options import Sae
from interp.render import Html
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.evals.report import Report


@dataclass(frozen=True)
class ShownReport:
    """A report of one SAE."""

    name: str
    sae: str
    """Its folder."""
    where: Path
    """The folder of report.json, report.md and report.html."""
    made: datetime | None
    """None of one that came with the SAE."""
    sections: tuple[str, ...]
    body: Html
    """What is missing, the headline, every section, how it was made."""

    def file(self, name: str) -> bytes:
        """report.json, report.md or report.html. Raises InterpError when it is gone."""
        try:
            return (self.where / name).read_bytes()
        except OSError as error:
            raise InterpError(f"{self.where / name} cannot be read: {error.strerror or error}.") from None


def shown_report(sae: Sae) -> ShownReport | None:
    """The report of an SAE that was made on this machine, else the one that came with it; None without.

    Raises InterpError when it is damaged, or of other weights.
    """
    from interp.evals.page import body_html

    found = _find(sae)
    if found is None:
        return None
    report, where = found
    own = where.resolve() == Path(find_folder(sae))  # there a file's time is that of a download or a clone
    made = None if own else datetime.fromtimestamp((where / "report.json").stat().st_mtime, UTC)
    names = tuple(section.name for section in report.sections)
    return ShownReport(report.of.name, sae, where, made, names, body_html(report))


def has_report(sae: Sae) -> bool:
    """Whether there is a report of the SAE, as its card and the folders tell: neither its weights nor the report are read."""
    try:
        return _where(sae)[0] is not None
    except InterpError:
        return False


def reports_beside(saes: Sequence[str]) -> Html:
    """The figures of several SAEs side by side, and where they read at several depths, how meanings change with it.

    Raises InterpError when one of them has no report.
    """
    from interp.evals.depths import side_by_side_html

    reports = []
    for sae in saes:
        found = _find(sae)
        if found is None:
            raise InterpError(f"{Path(sae).name} has no report yet; `interp evaluate {sae}` makes it.")
        reports.append(found[0])
    if len(reports) < 2:
        raise InterpError("one SAE has nothing to stand beside; choose two or more.")
    return side_by_side_html(reports)


def section_names(sae: Sae) -> dict[str, str]:
    """What `evaluate` can be asked for of an SAE: the sections' names, and what each is about."""
    from interp.evals.measures import MEASURES
    from interp.workbench.known_shares import own_measures

    return {measure.name: measure.title for measure in (*MEASURES, *own_measures(open_sae(sae)))}


def _where(sae: Sae) -> tuple[Path | None, str]:
    """(the folder of the report that holds, the SHA-256 of the weights); of the folders, the one made on this machine comes first.

    Raises InterpError when there is no such checkpoint, or it has no card.
    """
    from interp.checkpoint import Card
    from interp.checkpoint.files import REPORT, resolve
    from interp.workbench.reporting import report_folder

    folder = resolve(sae)
    own = Card.read(folder).sae_sha256
    return next((each for each in (report_folder(own), folder) if (each / REPORT[0]).exists()), None), own


def _find(sae: Sae) -> "tuple[Report, Path] | None":
    from interp.evals.report import FILE, read_report

    where, own = _where(sae)
    return None if where is None else (read_report(where / FILE, own), where)


def comparison_file(name: str) -> Path:
    """Where the page of a comparison that a page began is kept; `name` is its key, in hexadecimal digits.

    Raises InterpError for another name.
    """
    from interp import places

    if not name or not set(name) <= set("0123456789abcdef"):
        raise InterpError(f"{name[:60]!r} is no comparison that was begun here.")
    return places.cache() / "comparisons" / f"{name}.html"
