"""The README's table of what the embedded SAEs measure, made from the reports that ship with them.

    python recipes/readme_table.py           # writes it between the two marks in README.md
    python recipes/readme_table.py --check   # says whether it stands there as the reports have it

A figure in that table which no report holds is none that was measured: tests/test_readme_table.py compares.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from interp import places
from interp.checkpoint.files import below
from interp.evals.depths import depth
from interp.evals.figure import interval, number
from interp.evals.report import FILE, Report, read_report, verdict
from interp.evals.told import plain
from interp.render.terminal import say
from interp.types import InterpError

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- made by recipes/readme_table.py from the reports of the SAEs: do not edit -->"
END = "<!-- end of that table -->"


def shipped() -> list[Report]:
    """The reports beside the SAEs of the project, in the order of their folders."""
    return [read_report(folder / FILE) for folder in below(ROOT / "saes") if (folder / FILE).exists()]


def table(reports: Sequence[Report]) -> str:
    """A row for each figure of a headline, a column for each SAE: value, interval, z where it was held against nulls.

    A figure that does not separate from its nulls in one of the SAEs is left out there. Without reports it is empty.
    """
    if not reports:
        return ""
    known = [{(one.section, one.figure.name): one for one in report.known_by()} for report in reports]
    rows = []
    for key in dict.fromkeys(key for found in known for key in found):
        says = next(found[key].figure.says for found in known if key in found)
        cells = []
        for found in known:
            one = found.get(key)
            ends = interval(one.figure) if one else ""
            beside = ", ".join(filter(None, (ends, verdict(one)))) if one else ""
            cells.append(
                "" if one is None else number(one.figure.value, one.figure) + (f" ({beside})" if beside else "")
            )
        rows.append([says, *cells])
    heads = [f"block {depth(report)}" if depth(report) is not None else report.of.name for report in reports]
    lines = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in (["of the report", *heads], *rows)]
    return "\n".join([lines[0], f"|{'---|' * (1 + len(heads))}", *lines[1:]])


def region(readme: str) -> tuple[str, str, str]:
    """The README before the table, the table, and after it; InterpError when the marks are not there once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InterpError(
            f"README.md has not one line {BEGIN!r} and one {END!r} after it; put them where the table is to stand."
        )
    before, _, rest = readme.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside.strip(), after


def filled(readme: str, reports: Sequence[Report]) -> str:
    """The README with the table as the reports have it."""
    before, _, after = region(readme)
    made = table(reports)
    return f"{before}{BEGIN}\n{made}{chr(10) if made else ''}{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    now = path.read_text(encoding="utf-8")
    made = filled(now, shipped())
    if "--check" in sys.argv[1:]:
        if made != now:
            say("README.md does not say what the reports do; `python recipes/readme_table.py` writes the table anew.")
            raise SystemExit(1)
    elif made != now:
        with places.whole_file(path) as partial:
            partial.write_text(made, encoding="utf-8")
