"""A report as one HTML page that needs nothing else: no script, no other file, light or dark as the reader's system is."""

from interp.evals.figure import Section, interval, is_share, number
from interp.evals.report import Report, Standing, verdict
from interp.evals.told import cells, measured_on, notes, null_words, short
from interp.render import Html
from interp.render.parts import worded
from interp.render.sheet import element, folded_html, join_html, links_html, rows_html, sheet_html, strip_svg
from interp.render.words import counted, duration

FOLDED = 12
"""Rows from which a section's table is shown on a click."""


def page(report: Report) -> str:
    """The whole document."""
    return sheet_html(f"Report of {report.of.name}", body_html(report))


def body_html(report: Report) -> Html:
    """What is missing, the headline, every section, and how it was made."""
    sections = [(section.name, section.title) for section in report.sections]
    return join_html(
        [
            element("h1", report.of.name),
            element("p", measured_on(report), kind="soft"),
            links_html(sections),
            _first(report),
            _headline(report),
            element(
                "p",
                element("span", kind="mark"),
                "this SAE with its 95 % interval  ",
                element("span", kind="mark null"),
                "SAEs that found nothing, mean ± sd over seeds. Each line has a scale of its own; of shares it is 0 to 100 %.",
                kind="soft small",
            ),
            *(_section(report, section) for section in report.sections),
            _made(report),
        ]
    )


def _first(report: Report) -> Html:
    said = notes(report)
    if not said:
        return Html("")
    items = join_html(element("li", worded(text)) for text in said)
    return element("div", element("strong", "Not shown, and why"), element("ul", items, kind="small"), kind="first")


def _headline(report: Report) -> Html:
    known = report.known_by()
    cards = [
        element(
            "div",
            element("span", short(one.figure.says, 200), kind="soft small"),
            element("b", number(one.figure.value, one.figure)),
            element("span", " · ".join(filter(None, (interval(one.figure), verdict(one)))), kind="small"),
            element("div", short(one.figure.note, 60), kind="soft small"),  # of dead features: in how many tokens
            kind="card",
        )
        for one in known
    ]
    return element("div", *cards, kind="cards") if cards else Html("")


def _section(report: Report, section: Section) -> Html:
    rows = [_row(one) for one in report.standings(section)]
    parts = [
        element("h2", section.title, id_=section.name),
        rows_html(
            ["", "value", "", "95 %", "over", "against nulls"], rows, ["says", "num", "plot", "num", "num", "num"]
        ),
    ]
    if section.rows:
        table = rows_html(*cells(section.rows))
        words = counted(len(section.rows), "row")
        parts.append(folded_html(f"table: {words}", table) if len(section.rows) > FOLDED else table)
    return join_html(parts)


def _row(one: Standing) -> list[object]:
    figure = one.figure
    nulls = [(row["null"], row["null_mean"], row["null_sd"]) for row in one.nulls if row.get("null_mean") is not None]
    said = [element("div", figure.says)]
    if figure.note:
        said.append(element("div", figure.note, kind="soft small"))
    ends = (0.0, 1.0) if is_share(figure) else None
    drawn = figure.interval is not None or nulls or ends
    plot = strip_svg(figure.value, figure.interval, nulls, says=figure.says, ends=ends) if drawn else Html("")
    beside = [element("div", words, kind="small soft") for words in null_words(one)]
    if verdict(one):
        beside.insert(0, element("div", verdict(one), kind="no" if one.separates is False else ""))
    return [
        join_html(said), number(figure.value, figure), plot, interval(figure), f"{figure.n:,} {figure.unit}",
        join_html(beside),
    ]  # fmt: skip


def _made(report: Report) -> Html:
    of = report.of
    rows = [
        ["weights of the SAE", element("code", of.sae_sha256)],
        ["weights of the model", element("code", of.model_sha256)],
        ["tokens", element("code", of.tokens_sha256)],
        ["text", str(of.text.get("name", ""))],
        ["took", ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.seconds.items())],
        ["software", ", ".join(f"{name} {version}" for name, version in report.versions.items())],
    ]
    return join_html([element("h2", "How it was made", id_="made"), rows_html(["", ""], rows)])
