"""Plots: what stands where, and that nothing in a name can act."""

import re
import xml.etree.ElementTree as ET

from interp.render import Point, curves_svg

CURVES = {"A": [Point(16, 0.5, (0.4, 0.6), "sixteen"), Point(64, 0.9)], "B": [Point(16, 0.7), Point(64, 0.7)]}


def svg(text: str) -> ET.Element:
    return ET.fromstring(re.search(r"<svg width.*?</svg>", text, re.DOTALL)[0])


def test_points_that_are_higher_and_further_right_are_drawn_so_and_the_logarithm_is_even():
    drawn = svg(curves_svg(CURVES | {"C": [Point(32, 0.8)]}, "t", "L0", "EV", log_x=True))
    lines = [[tuple(map(float, xy.split(","))) for xy in line.get("points").split()] for line in drawn.iter("polyline")]
    (left, low), (right, high) = lines[0]
    assert left < right
    assert low > high  # SVG counts from above
    assert lines[1][0][1] == lines[1][1][1]
    marks = [
        re.match(r"M([\d.]+) ([\d.]+)", path.get("d")) for path in drawn.iter("path") if path.get("fill") != "none"
    ]
    third = float(marks[4][1])  # the tip of a triangle
    assert abs(third - (left + right) / 2) < 0.2
    bars = [path.get("d") for path in drawn.iter("path") if path.get("d").count("h8M") or path.get("d").endswith("h8")]
    assert len([bar for bar in bars if "V" in bar]) == 1


def test_every_string_is_escaped_and_shown():
    bad = "<script>alert(1)</script>"
    text = curves_svg({bad: [Point(1, 1, None, bad)]}, bad, bad, bad)
    assert "<script" not in text
    drawn = svg(text)
    assert [title.text for title in drawn.iter("title")] == [bad]
    assert [t.text for t in drawn.iter("text")].count(bad) == 2


def test_one_point_none_and_equal_ones_can_be_drawn():
    assert "nothing to draw" in curves_svg({"A": []}, "t", "x", "y")
    for curve in ([Point(0, 0)], [Point(5, -3), Point(5, -3)]):
        ticks = [t.text for t in svg(curves_svg({"A": curve}, "t", "x", "y", log_x=True)).iter("text")]
        assert len(ticks) >= 4
