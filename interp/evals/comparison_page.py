"""A comparison as one page that needs nothing else: plots, figures, differences, and what was assumed."""

from collections.abc import Sequence

from interp.evals.comparison import Comparison, Row
from interp.render import Html, Point, curves_svg, page_html, table_html, text_html, title_html

PLOTTED = {"ev": "explained variance", "delta_ce": "ΔCE (nats a token)"}


def comparison_html(found: Comparison) -> str:
    """The page; it fetches and runs nothing."""
    title = "SAEs compared: " + ", ".join(f"{one.letter} {one.name}" for one in found.saes)
    of = found.of
    about = (
        f"{of['counted']:,} positions of {of['documents']:,} documents of {of.get('text', 'a text')} ({of['tokens']:,} tokens, "
        f"SHA-256 {of['tokens_sha256'][:12]}…) count for all of them. The loss of {of['model']} ({of['dtype']}) on them is "
        f"{of['ce']:.4g} nats a token."
    )
    saes = [[s.letter, s.given, s.d_sae, s.rule, ", ".join(s.reads), ", ".join(s.writes)] for s in found.saes]
    parts = [
        title_html(title),
        text_html(about),
        table_html(["", "SAE", "features", "rule", "reads", "writes"], saes),
        *(text_html(f"{one.letter}: {sentence}.") for one in found.saes for sentence in one.assumed),
        *(text_html(note) for note in found.notes),
        *(_plot(found, measure, words) for measure, words in PLOTTED.items()),
        text_html(
            "Bars are 95 % intervals over documents. The point furthest right of each curve is the SAE as it is."
        ),
        table_html(*found.table()),
        table_html(*found.verdicts()),
        text_html(found.counts()),
    ]
    return page_html(title, Html("".join(parts)))


def _plot(found: Comparison, measure: str, words: str) -> Html:
    curves = {f"{one.letter} {one.given}": _points(found, one.letter, measure) for one in found.saes}
    return curves_svg(curves, f"L0 against {words}", "L0, active features a token", words, log_x=True)


def _points(found: Comparison, letter: str, measure: str) -> Sequence[Point]:
    rows = sorted((row for row in found.rows if row.letter == letter), key=_l0)
    return [
        Point(
            _l0(row), row[measure].value or 0.0, row[measure].interval, f"{letter}, {row.how}: {row[measure].value:.4g}"
        )
        for row in rows
    ]


def _l0(row: Row) -> float:
    return row["l0"].value or 0.0
