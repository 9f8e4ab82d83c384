"""The picture of one series: its axes, its lines, its gaps, and what it tells those who do not see it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

from forecastle.serving.chart import Drawing, draw, runs, tick_texts, time_ticks, value_ticks

HOUR = timedelta(hours=1)
START = datetime(2013, 12, 14, 19, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
SVG = "{http://www.w3.org/2000/svg}"


def drawing(**changes: object) -> Drawing:
    now = START + 48 * HOUR
    observed = [(START + step * HOUR, 5.0 + step % 7) for step in range(49)]
    ahead = [(now + step * HOUR, 6.0 + step) for step in range(4)]
    fields: dict[str, object] = {
        "title": "EWR",
        "description": "Measured.",
        "zone": NEW_YORK,
        "unit": "°C",
        "step": HOUR,
        "now": now,
        "start": START,
        "end": now + 3 * HOUR,
        "observed": observed,
        "forecast": ahead,
        "band": [(moment, value - 1, value + 1) for moment, value in ahead],
    }
    return Drawing(**{**fields, **changes})  # type: ignore[arg-type]


def parse(picture: Drawing) -> ElementTree.Element:
    svg = str(draw(picture, "c1")).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(svg)


def of_class(root: ElementTree.Element, tag: str, name: str) -> list[ElementTree.Element]:
    return [one for one in root.iter(f"{SVG}{tag}") if one.get("class") == name]


@pytest.mark.parametrize(("low", "high"), [(-7.3, 12.1), (0.0012, 0.0019), (1.08, 1.09), (980, 1040), (-5e6, 9e6)])
def test_value_ticks_are_round_few_and_enclose_the_values(low: float, high: float) -> None:
    ticks = value_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low and ticks[-1] >= high
    assert 3 <= len(ticks) <= 8
    assert re.fullmatch(r"(1|2|2\.5|5)e[+-]\d+", f"{step:.6e}".replace(".000000e", "e").replace("2.500000e", "2.5e"))


def test_a_flat_line_still_gets_an_axis() -> None:
    assert len(value_ticks(3.0, 3.0)) >= 3
    assert len(value_ticks(0.0, 0.0)) >= 3


def test_tick_texts_share_just_enough_decimals_and_a_real_minus() -> None:
    assert tick_texts([-5.0, 0.0, 5.0]) == ["−5", "0", "5"]
    assert tick_texts([0.0, 2.5, 5.0]) == ["0.0", "2.5", "5.0"]
    assert tick_texts([1.0825, 1.085]) == ["1.0825", "1.0850"]


def test_time_ticks_stand_at_round_local_hours_and_midnights_are_days() -> None:
    ticks = time_ticks(START, START + 54 * HOUR, NEW_YORK)
    assert [tick.text for tick in ticks[:4]] == ["18:00", "00:00", "06:00", "12:00"]
    assert [tick.day for tick in ticks[:4]] == [False, True, False, False]
    assert ticks[1].at == datetime(2013, 12, 15, 5, tzinfo=UTC)


def test_across_a_change_of_daylight_saving_ticks_keep_the_local_clock() -> None:
    start = datetime(2013, 3, 9, 17, tzinfo=UTC)  # clocks go forward at 07:00 UTC on 10 March
    ticks = time_ticks(start, start + 48 * HOUR, NEW_YORK)
    assert {tick.text for tick in ticks} == {"00:00", "06:00", "12:00", "18:00"}
    assert {after.at - before.at for before, after in zip(ticks, ticks[1:], strict=False)} == {5 * HOUR, 6 * HOUR}


@pytest.mark.parametrize("span", [timedelta(minutes=20), 6 * HOUR, 54 * HOUR, timedelta(days=30), timedelta(days=900)])
def test_there_are_never_too_many_time_ticks(span: timedelta) -> None:
    assert 2 <= len(time_ticks(START, START + span, NEW_YORK)) <= 10


def test_a_missing_value_and_a_step_left_out_both_split_a_line() -> None:
    points = [(START + step * HOUR, value) for step, value in [(0, 1.0), (1, None), (2, 3.0), (3, 4.0), (6, 5.0)]]
    assert [[value for _, value in piece] for piece in runs(points, HOUR)] == [[1.0], [3.0, 4.0], [5.0]]


def test_a_gap_is_drawn_as_a_gap() -> None:
    whole = parse(drawing())
    holed = drawing().observed[:20] + drawing().observed[25:]  # type: ignore[operator]
    assert len(of_class(whole, "path", "line observed")) == 1
    assert len(of_class(parse(drawing(observed=holed)), "path", "line observed")) == 2


def test_a_value_between_two_gaps_is_drawn_as_a_dot() -> None:
    (path,) = of_class(parse(drawing(observed=[(START, 1.0), (START + HOUR, None)])), "path", "line observed")
    start, end = (path.get("d") or "").removeprefix("M").split("L")
    assert start == end


def test_every_point_of_a_forecast_and_its_interval_lies_inside_the_plot() -> None:
    root = parse(drawing())
    drawn = of_class(root, "path", "line forecast") + of_class(root, "path", "band")
    numbers = [
        list(map(float, pair.split(","))) for one in drawn for pair in re.findall(r"[\d.]+,[\d.]+", one.get("d") or "")
    ]
    assert len(numbers) == 4 + 8
    assert all(0 <= x <= 1000 and 22 <= y <= 206 for x, y in numbers)


def test_the_picture_has_a_title_and_a_description_for_those_who_do_not_see_it() -> None:
    root = parse(drawing(title="<EWR> & co"))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "c1-title c1-desc"
    assert [one.text for one in root.findall(f"{SVG}title")] == ["<EWR> & co"]
    assert [one.get("id") for one in root.findall(f"{SVG}desc")] == ["c1-desc"]


def test_the_picture_needs_no_inline_style_and_no_script() -> None:
    svg = str(draw(drawing(), "c1"))
    assert "style=" not in svg and "<script" not in svg and " on" not in svg


def test_a_series_without_any_value_is_an_empty_chart() -> None:
    root = parse(drawing(observed=[], forecast=[], band=[]))
    assert not of_class(root, "path", "line observed")
    assert of_class(root, "text", "value")


def test_truths_outside_their_interval_are_marked() -> None:
    root = parse(drawing(missed=[(START + HOUR, 7.0)]))
    assert len(of_class(root, "circle", "missed")) == 1
