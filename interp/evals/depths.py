"""Several SAEs beside one another: every figure that two or more of them have, and how shares change with depth."""

import re
from collections.abc import Sequence

from interp.evals.figure import interval, number
from interp.evals.meaning import CLASSES
from interp.evals.report import Report
from interp.evals.told import short
from interp.render import Html, Point, curves_svg
from interp.render.sheet import element, join_html, rows_html, sheet_html

SHOWN = 30
"""Words of the table of words, in the order in which they were drawn."""
BLOCK = re.compile(r"\.(\d+)\.")


def names(reports: Sequence[Report]) -> list[str]:
    """What tells the SAEs apart: their hook points where these differ, else their own names."""
    hooks = [report.of.hook_name for report in reports]
    return hooks if len(set(hooks)) == len(hooks) else [report.of.name for report in reports]


def side_by_side(reports: Sequence[Report]) -> list[list[str]]:
    """A row for each figure: section, name, what it is, then `value (low to high)` of each report, empty where it has none."""
    found: dict[tuple[str, str], list[str]] = {}
    for place, report in enumerate(reports):
        for section in report.sections:
            for one in section.figures:
                key = section.name, one.name
                row = found.setdefault(key, [section.name, one.name, one.says, *[""] * len(reports)])
                ends = interval(one)
                row[3 + place] = number(one.value, one) + (f" ({ends})" if ends else "")
    return list(found.values())


def depth(report: Report) -> int | None:
    """The number of the block whose activations the SAE reads; None where the hook point has none."""
    found = BLOCK.search(report.of.hook_name)
    return int(found[1]) if found else None


def class_curves(reports: Sequence[Report]) -> dict[str, list[Point]]:
    """By class of meaning: its share of the features at each depth, with Wilson's interval."""
    curves: dict[str, list[Point]] = {}
    for report in sorted(reports, key=lambda report: depth(report) or 0):
        at = depth(report)
        if at is None or all(section.name != "meaning" for section in report.sections):
            continue
        for name in CLASSES:
            one = report["meaning"][name.replace("-", "_")]
            if one.value is not None:
                says = f"{name}, block {at}: {number(one.value, one)} ({interval(one)})"
                curves.setdefault(name, []).append(Point(float(at), 100 * one.value, _percent(one.interval), says))
    return curves


def _percent(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None else (100 * ends[0], 100 * ends[1])


def same_words(reports: Sequence[Report]) -> list[list[str]]:
    """A row for each word that all of them were asked for: the word, then each one's best feature for it and its F1."""
    found = [
        {row["word"]: row for section in report.sections if section.name == "words" for row in section.rows}
        for report in reports
    ]
    common = [word for word in found[0] if all(word in one for one in found)]
    return [[word, *(f"{one[word]['feature']} (F1 {one[word]['f1']:.2f})" for one in found)] for word in common]


def side_by_side_page(reports: Sequence[Report]) -> str:
    """One HTML page: the classes by depth where they were measured, and every figure."""
    title = "SAEs side by side"
    return sheet_html(title, join_html([element("h1", title), side_by_side_html(reports)]))


def side_by_side_html(reports: Sequence[Report]) -> Html:
    """What stands on that page."""
    who = names(reports)
    texts = {report.of.tokens_sha256 for report in reports}
    said = (
        f"Measured on the same {reports[0].of.positions:,} tokens of {short(str(reports[0].of.text.get('name')))}."
        if len(texts) == 1
        else "Not measured on the same tokens, so differences are of texts too."
    )
    curves = class_curves(reports)
    drawn = (
        curves_svg(curves, "What features mean, by depth", "block", "share of features, %")
        if any(len(curve) > 1 for curve in curves.values())
        else Html("")
    )
    words = same_words(reports)
    if words:
        head = element("h2", f"The same words: {len(words):,} drawn by a rule, the first {min(SHOWN, len(words))} here")
        drawn = join_html([drawn, head, rows_html(["word", *who], words[:SHOWN], ["says", *["num"] * len(reports)])])
    kinds = ["small", "says", *["num"] * len(reports)]
    rows = [[section, says, *values] for section, _, says, *values in side_by_side(reports)]
    return join_html(
        [
            element("p", f"{said} Intervals are 95 %.", kind="soft"),
            drawn,
            rows_html(["section", "", *who], rows, kinds),
        ]
    )
