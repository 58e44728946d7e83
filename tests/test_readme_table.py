"""The README's table of measured figures is what the shipped reports hold, and nothing else."""

import sys
from collections import Counter
from dataclasses import replace

import pytest

from interp.evals.figure import Figure, Section
from interp.evals.report import Of, Report
from interp.evidence.card import FILE, read_evidence
from interp.evidence.card import Of as Weights
from interp.evidence.labels import TOLD
from interp.types import InterpError
from interp.workbench import EMBEDDED, Workbench
from interp.workbench.known_shares import shares
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "recipes"))
import readme_table

FVU = Figure(name="fvu", says="FVU", value=0.1334, interval=(0.13, 0.14), n=9, unit="documents", better="lower")
LABELS = Figure(name="confirmed", says="share confirmed | said", value=0.73, n=100, unit="features", better="higher")


def report(block: int, *sections: Section) -> Report:
    of = Of(
        name="sae", model="tiny", model_sha256="m", sae_sha256="a", hook_name=f"blocks.{block}.hook_resid_post", d_sae=9,
        text={}, tokens_sha256="t", positions=512, documents=7, seed=0,
    )  # fmt: skip
    return Report(of=of, sections=sections, headline=("fidelity.fvu", "evidence.confirmed"))


BOTH = [
    report(5, Section(name="fidelity", title="", figures=(FVU,))),
    report(
        15,
        Section(name="fidelity", title="", figures=(replace(FVU, value=0.2, interval=None),)),
        Section(name="evidence", title="", figures=(LABELS,)),
    ),
]


def test_the_readmes_table_is_that_of_the_shipped_reports():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_table.region(readme)[1] == readme_table.table(readme_table.shipped())


def test_a_column_for_each_sae_and_nothing_where_it_was_not_measured():
    assert readme_table.table(BOTH).splitlines() == [
        "| of the report | block 5 | block 15 |",
        "|---|---|---|",
        "| FVU | 0.1334 (0.13 to 0.14) | 0.2 |",
        r"| share confirmed \| said |  | 73.0% |",
    ]
    assert readme_table.table([]) == ""


def test_the_table_stands_between_its_marks_and_a_figure_put_there_by_hand_is_noticed():
    empty = f"before\n{readme_table.BEGIN}\n{readme_table.END}\nafter\n"
    made = readme_table.filled(empty, BOTH)
    assert readme_table.filled(made, BOTH) == made
    assert (made.startswith("before\n"), made.endswith("after\n")) == (True, True)
    edited = made.replace("0.1334", "0.1234")
    assert readme_table.region(edited)[1] != readme_table.table(BOTH)
    assert readme_table.filled(edited, BOTH) == made
    assert readme_table.filled(made, []) == empty
    with pytest.raises(InterpError, match="has not one line"):
        readme_table.filled("no marks", BOTH)


def test_the_readmes_figures_of_features_are_those_of_the_shipped_evidence():
    wb = Workbench.open(ROOT / EMBEDDED, labels="sqlite://")
    path = wb.folder / FILE  # the shipped one, even where a newer was joined on this machine
    known = read_evidence(path, Weights(name="", model="", sae_sha256=wb.card.sae_sha256, d_sae=wb.sae.d_sae))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    verdicts = Counter(known.column("label_verdict").tolist())
    told = verdicts["confirmed"] + verdicts[TOLD]
    assert f"{told:,} ({told / wb.sae.d_sae:.1%})".replace("%", " %") in readme
    assert f"better than labels of a random-weight model, too: {verdicts['confirmed']}" in readme
    figures = {figure.name: figure for figure in shares(known)}
    for name, words in (("told_final", "{:.1%} of {:,}"), ("effect_exceeds", "{0:.1%}"), ("replicated", "{0:.1%}")):
        figure = figures[name]
        assert words.format(figure.value, figure.n).replace("%", " %") in readme, name
    moves = sum(bool(value) for value in known.column("steer_moves") if value is not None)
    assert f"{moves} move the output beyond their controls" in readme
