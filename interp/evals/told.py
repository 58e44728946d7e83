"""A report in words: Markdown, and the lines that a terminal shows. What could not be measured comes first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from interp.evals.figure import interval, number
from interp.evals.nulls import SEPARATES
from interp.evals.report import DISCRIMINATION, Report, Standing, verdict
from interp.render.words import duration

ROWS = 40
"""Of a section's table, in Markdown; report.json has them all."""


def null_words(standing: Standing) -> list[str]:
    """For each null, what the figure comes to there: `frozen decoder 0.41 ± 0.01`; how many seeds stands in the rows."""
    said = []
    for row in standing.nulls:
        if row.get("null_mean") is None:
            said.append(f"{row['null']}: {row.get('note') or 'cannot be said'}")
            continue
        spread = f" ± {row['null_sd']:.1g}" if row.get("null_sd") is not None else ""
        said.append(f"{row['null']} {row['null_mean']:.3g}{spread}")
    return said


def notes(report: Report) -> list[str]:
    """What a reader has to know before any figure: what is missing, what could not be said, what does not separate."""
    said = [f"{name}: {why}" for name, why in report.missing.items()]
    for section in report.sections:
        said += [f"{section.name}.{one.name}: {one.note}" for one in section.figures if one.value is None and one.note]
    if all(section.name != DISCRIMINATION for section in report.sections):
        said.append("No figure was held against SAEs that found nothing, so none is known to tell this one from them.")
    gone = [f"{one.section}.{one.figure.name}" for one in report.unseparated()]
    if gone:
        said.append(
            f"Does not separate from every null (z below {SEPARATES:g}), and so proves nothing: {', '.join(gone)}."
        )
    return said


def measured_on(report: Report) -> str:
    """One sentence: of what, on what text, with which seed."""
    of = report.of
    split = f", {of.text['split']} documents" if of.text.get("split") else ""
    return (
        f"{of.d_sae:,} features of {of.hook_name} in {of.model}, measured on {of.positions:,} tokens of "
        f"{of.documents:,} documents of {short(str(of.text.get('name', 'a text')))}{split}; seed {of.seed}. Intervals are 95 %."
    )


def short(text: str, most: int = 90) -> str:
    """The text, its end left out where it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def lines(report: Report) -> Iterator[list[str]]:
    """A row for each figure: section, figure, value, interval, n and unit, what z says."""
    for section in report.sections:
        for one in report.standings(section):
            figure = one.figure
            yield [
                section.name, figure.name, number(figure.value, figure), interval(figure),
                f"{figure.n:,} {figure.unit}", verdict(one),
            ]  # fmt: skip


HEAD = ["section", "figure", "value", "95 %", "over", "against nulls"]
"""Of `lines`."""


def markdown(report: Report) -> str:
    """The whole report as Markdown: what is missing, the headline, then each section."""
    made = [f"# {plain(report.of.name)}", "", plain(measured_on(report)), ""]
    first = notes(report)
    if first:
        made += ["## Not shown, and why", "", *(f"- {plain(text)}" for text in first), ""]
    known = [
        [one.figure.says, number(one.figure.value, one.figure), interval(one.figure), verdict(one)]
        for one in report.known_by()
    ]
    if known:
        made += ["## In short", "", *_table(["", "value", "95 %", "against nulls"], known), ""]
    for section in report.sections:
        made += [f"## {plain(section.title)}", ""]
        rows = []
        for one in report.standings(section):
            figure = one.figure
            says = f"{figure.says} ({figure.note})" if figure.note else figure.says
            over, beside = f"{figure.n:,} {figure.unit}", "; ".join(null_words(one))
            rows.append([says, number(figure.value, figure), interval(figure), over, beside, verdict(one)])
        made += [*_table(["", "value", "95 %", "over", "nulls", ""], rows), ""]
        if section.rows and section.name != DISCRIMINATION:
            made += [*_table(*cells(section.rows[:ROWS])), ""]
            if len(section.rows) > ROWS:
                made += [f"The first {ROWS} of {len(section.rows):,} rows; report.json has them all.", ""]
    took = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.seconds.items())
    software = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    made += ["## How it was made", "", f"- {plain(f'weights {report.of.sae_sha256}')}"]
    made += [f"- {plain(f'tokens {report.of.tokens_sha256}')}", f"- took: {plain(took)}", f"- {plain(software)}"]
    return "\n".join(made) + "\n"


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a section's table, as text."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    return head, [[_cell(row.get(key)) for key in head] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return " to ".join(map(_cell, value)) if isinstance(value, list | tuple) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in (head, *rows)]
    return [body[0], f"|{'---|' * len(head)}", *body[1:]]


def plain(text: str) -> str:
    """One line in which Markdown finds no table, link or element."""
    made = " ".join(str(text).split())
    for mark in "\\`*_<>[]|#":
        made = made.replace(mark, f"\\{mark}")
    return made
