"""The tables of families in README.md and docs/families.md are what the recipe finds, of every family that is tested."""

import importlib.util
import sys

import pytest
import torch

from interp import places
from tests.conftest import ROOT

torch.set_num_threads(1)
SOME = ["mamba2", "albert", "siglip_vision_model"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "recipes" / "families_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["families_table"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["families_table"]


@pytest.fixture
def rows(recipe):
    return places.read_json(recipe.RESULTS)


def test_every_family_has_a_row_and_all_real_weights_too(recipe, rows):
    known = [name for _, some in recipe.KINDS.values() for name in some]
    assert list(rows) == known + [name + recipe.MARK for name in recipe.REAL]
    assert all(list(row) == list(recipe.STEPS) for row in rows.values()), "no step was left untried"


@pytest.mark.parametrize(("file", "table"), [("README.md", "short_table"), ("docs/families.md", "whole_table")])
def test_the_tables_are_those_of_the_results(recipe, rows, file, table):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert recipe.placed(text, getattr(recipe, table)(rows)) == text


def test_rows_are_what_the_families_do_now(recipe, rows):
    assert recipe.made(SOME, ()) == {name: rows[name] for name in SOME}


def test_a_refusal_is_counted_and_said_once(recipe):
    row = dict.fromkeys(recipe.STEPS, "yes") | {"hook points": "7"}
    table = recipe.whole_table(
        {"a": row, "b": row, "c": row | {"steer": "no: the model stands"}, "d": row | {"edit": "no: the model stands"}}
    )
    assert "| a 7, b 7 | yes |" in table
    assert table.endswith("1. the model stands.")
    assert table.count("no (1)") == 2
    short = recipe.short_table({"llama": row, "gpt2": row | {"steer": "no: the model stands"}})
    assert "| decoder-only, experts, recurrent | 2 |  | all | all | all | all | all | all | 1 of 2 | all |" in short
