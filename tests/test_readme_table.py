"""The README's table of measured figures is what the shipped reports hold, and nothing else."""

import sys
from dataclasses import replace

import pytest

from interp.evals.figure import Figure, Section
from interp.evals.report import Of, Report
from interp.types import InterpError
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
