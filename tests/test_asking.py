"""A search taken apart into conditions and put together again means the same."""

import pytest

from interp.commands.asking import conditions, facets, narrowed, rows
from interp.commands.starting import meant
from interp.search import parse
from interp.types import InterpError


@pytest.mark.parametrize(
    "query",
    [
        "token:/a b/ density:1e-5..1e-2 sort:density",
        "medicine and disease",
        "neuron:15.3 or like:17",
        "not topic:x map:1,2;3,4;5,6 (like:1 or like:2)",
        'at:(token:/x/ not is:digit) text:"two words"',
    ],
)
def test_the_conditions_written_side_by_side_are_the_search(query):
    again = " ".join(each.text for each in conditions(query))
    assert parse(again) == parse(query)


def test_a_condition_is_taken_away_and_one_of_the_same_key_is_replaced():
    first, second = conditions("confirmed:yes density:1e-5..1e-3")
    assert (first.without, second.without) == ("density:1e-5..1e-3", "confirmed:yes")
    assert conditions("") == []
    assert narrowed("confirmed:yes map:1,1;2,1;2,2", "map:5,5;6,5;6,6") == "confirmed:yes map:5,5;6,5;6,6"
    assert narrowed("neuron:15.3 or like:17", "dead:no") == "(neuron:15.3 or like:17) dead:no"
    with pytest.raises(InterpError, match="did you mean"):
        narrowed("dead:no", "confirmd:yes")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Paris", False),
        ("medicine and disease", False),
        ("token:/a b c d e/ f", False),
        ("not confirmed:yes and more words than four", False),
        ("The Eiffel Tower is in Paris.", True),
        ("She said: I like tea and cake", True),
        ("Wait!", True),
    ],
)
def test_a_line_is_a_search_or_a_text(line, text):
    found = meant(line)
    assert bool(found.text) == text
    assert bool(found.query) != text


def test_a_table_and_its_facets_count_what_the_index_has(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    from interp.workbench import Workbench

    index = Workbench.open(checkpoint).index
    shown = rows(str(checkpoint), [3, 5])
    assert [len(row.histogram) for row in shown] == [20, 20]
    assert shown[0].effect is None
    fires = index.features["density"].to_numpy()
    counts = {facet.condition: facet.count for facet in facets(str(checkpoint), "dead:no")}
    assert set(counts) <= {
        "density:0.01..1",
        "density:0.001..0.01",
        "density:0.0001..0.001",
        "density:1e-05..0.0001",
        "density:0..1e-05",
    }
    assert counts["density:0.01..1"] == ((fires >= 0.01) & (fires > 0)).sum()
