"""Charts are SVG made of facts: every value inside the axis, a gap where nothing is known, text that stays text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from forecastle.reporting import charts

FINITE = st.floats(-1e6, 1e6)
SPACE = "{http://www.w3.org/2000/svg}"


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_every_point_of_a_line_lies_inside_the_picture(values: list[float]) -> None:
    drawn = charts.lines([str(number) for number in range(len(values))], [charts.Line("y", values)], "°C")
    path = next(one for one in ElementTree.fromstring(drawn).iter(f"{SPACE}path"))
    points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attrib["d"])
    assert len(points) == len(values)
    assert all(0 <= float(x) <= charts.WIDTH and 0 <= float(y) <= charts.HEIGHT for x, y in points)


def test_a_missing_value_breaks_the_line() -> None:
    drawn = charts.lines(["a", "b", "c", "d"], [charts.Line("y", [1.0, 2.0, None, 3.0])], "")
    path = next(one for one in ElementTree.fromstring(drawn).iter(f"{SPACE}path"))
    assert path.attrib["d"].count("M") == 2 and path.attrib["d"].count("L") == 1


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=8))
def test_bars_are_as_high_as_their_values(values: list[float]) -> None:
    drawn = charts.bars([str(number) for number in range(len(values))], [charts.Line("y", values)], "")
    heights = [float(one.attrib["height"]) for one in ElementTree.fromstring(drawn).iter(f"{SPACE}rect")]
    most = max(values)
    for value, height in zip(values, heights, strict=True):
        assert abs(height / max(heights) - value / most) < 0.02


def test_names_cannot_become_markup() -> None:
    drawn = charts.lines(["<b>", "&"], [charts.Line("y", [1.0, 2.0])], "<script>")
    assert "<script>" not in drawn and "<b>" not in drawn and ElementTree.fromstring(drawn) is not None
