"""The pieces of pages: nothing that stands in a text is ever read as HTML, and what a picture shows is said in words too."""

import re

import pytest

from interp.render import Html
from interp.render.parts import (
    copies,
    fold,
    go,
    histogram,
    interval,
    pill,
    right_to_left,
    shade,
    stretch_row,
    tokens_row,
    worded,
)
from interp.render.tag import join, tag

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_every_string_is_escaped_wherever_it_stands():
    made = [
        tag("p", HOSTILE, title=HOSTILE, data_x=HOSTILE),
        pill(HOSTILE, "good", HOSTILE),
        copies(HOSTILE, HOSTILE, HOSTILE),
        go(HOSTILE, HOSTILE, HOSTILE),
        fold(HOSTILE, HOSTILE, side=HOSTILE, name=HOSTILE),
        worded(f"{HOSTILE} `{HOSTILE}`"),
        tokens_row([HOSTILE], [1.0], 1.0),
        histogram([1, 2], 0.0, 1.0, HOSTILE, marks={HOSTILE: 0.5}, name=HOSTILE),
        interval(0.5, 0.4, 0.6, alt=HOSTILE),
        stretch_row([HOSTILE], [1.0], 1.0, peak=0, lead=HOSTILE, place=HOSTILE, more=join(HOSTILE), unread=HOSTILE),
    ]
    for each in made:
        assert isinstance(each, Html)
        assert "<script" not in each
        assert "<img" not in each
        inside = re.findall(r'="([^"]*)"', each)
        assert not any("<" in value or ">" in value for value in inside)


def test_only_what_was_made_here_goes_in_as_it_is_and_no_attribute_runs_anything():
    assert tag("p", tag("b", "x"), ["<", None], 3) == "<p><b>x</b>&lt;3</p>"
    assert tag("b", hidden=True, title=None, open=False, class_="a") == '<b hidden class="a"></b>'
    for wrong in ({"onclick": "x"}, {"on_click": "x"}, {"a b": "x"}):
        with pytest.raises(AssertionError):
            tag("b", **wrong)
    with pytest.raises(AssertionError):
        tag("script src=x")


def test_weak_activations_stay_visible_and_stronger_ones_are_darker():
    assert shade(0.0, 10.0) == 0.0
    assert 0.1 < shade(0.01, 10.0) < shade(1.0, 10.0) < shade(10.0, 10.0) == 1.0
    assert shade(99.0, 10.0) == 1.0


def test_spaces_line_breaks_and_tabs_that_are_tokens_can_be_seen():
    row = tokens_row(["a", "\n", "  ", "\t"], [0.0, 2.0, 0.0, 0.0], 2.0, peak=1)
    assert "↵" in row
    assert "··" in row
    assert "⇥" in row
    assert '<i class="on peak blank" style="--a:1.00" data-v="2">' in row


def test_a_row_whose_letters_run_from_right_to_left_says_so():
    arabic = ["مرحبا", " بكم", " (", "ok"]
    assert right_to_left(arabic)
    assert not right_to_left(["你好", " 世界"])
    row = stretch_row(arabic, [0.0] * 4, 1.0, peak=1, lead="1", place="", more=join(), ids=[4, 5, 6, 7], first=9)
    assert 'dir="rtl"' in row
    assert 'data-ids="4,5,6,7"' in row
    assert 'data-first="9"' in row


def test_a_histogram_is_said_in_words_and_marks_lie_where_their_values_do():
    plot = histogram([0, 3, 0, 1], 0.0, 8.0, "four bins", clean=4.0, marks={"here": 6.0, "beyond": 99.0}, name="x")
    assert 'aria-label="four bins"' in plot
    assert plot.count("<b") == 4
    assert plot.count("pale") == 2
    assert "inset-inline-start:75.0%" in plot
    assert "inset-inline-start:100.0%" in plot
    assert '2 to 4: 3"' in plot


def test_an_interval_lies_between_its_ends():
    drawn = interval(0.5, 0.25, 0.75, null=0.1, alt="F1 0.5")
    assert "--v:50.0%;--l:25.0%;--h:75.0%" in drawn
    assert "inset-inline-start:10.0%" in drawn
    assert 'aria-label="F1 0.5"' in drawn
