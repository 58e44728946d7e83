"""Where the circuit is known, attribution graphs show it, and graphs by dictionaries that know nothing do not."""

import json
import subprocess
import sys

import pytest

from interp.recipe.planted_models import CITIES, COUNTRIES, SYMBOLS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def share() -> dict[tuple[str, str, str], dict]:
    """Rows of the command by circuit, dictionary and measure; in a process of its own, for here every shape of every step is checked."""
    call = [sys.executable, "-m", "interp.cli", "selftest", "--circuits", "--json"]
    made = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)["circuits"]
    return {(row["circuit"], row["dictionary"], row["measure"]): row for row in made}


def test_the_planted_models_do_what_was_planted(share):
    assert share["two hops", "none", "the model answers"]["share"] == 1
    assert share["induction", "trained", "the model answers"]["share"] == 1
    without = share["induction", "trained, without previous-token head", "the model answers"]
    assert without["share"] < 0.3


@pytest.mark.parametrize("dictionary", ["planted", "trained"])
def test_both_hops_are_among_the_strongest_edges(share, dictionary):
    """Of seed 0 it was 41 and 40 of 48; docs/circuits_agreement.md has the figures."""
    row = share["two hops", dictionary, "both hops found"]
    assert row["of"] == COUNTRIES * CITIES
    assert row["share"] >= 0.75
    assert row["low"] < row["share"] <= row["high"]


def test_what_writes_into_several_layers_may_draw_two_hops_as_one(share):
    """Of seed 0 in 6 of 48 graphs at one place, and in none by a transcoder a layer, or where attention lies between the hops."""
    measure = "the country speaks for the answer past its capital"
    assert share["two hops at one place", "cross-layer", measure]["hits"] >= 2
    assert share["two hops at one place", "trained", measure]["hits"] <= 1
    assert share["two hops", "cross-layer", measure]["hits"] <= 1
    assert share["two hops at one place", "planted", "both hops found"]["share"] == 1
    assert share["two hops", "cross-layer", "both hops found"]["share"] >= 0.6


@pytest.mark.parametrize("dictionary", ["shuffled", "random"])
def test_dictionaries_that_know_nothing_show_no_path(share, dictionary):
    assert share["two hops", dictionary, "both hops found"]["share"] <= 0.1


def test_attention_alone_carries_induction_and_the_graph_says_so(share):
    row = share["induction", "trained", "half of the answer's logit is the earlier token's"]
    assert row["of"] == SYMBOLS
    assert row["share"] >= 0.9
    assert share["induction", "trained", "of these true in the model"]["share"] >= 0.9
