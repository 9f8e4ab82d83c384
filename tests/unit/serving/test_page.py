"""The page as HTML: the numbers it shows, in the task's own time zone, and what it says where there are none."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from forecastle.monitoring.journal import OUTCOME, Incident, identified
from forecastle.serving import page
from forecastle.serving.board import Board
from forecastle.serving.schemas import Scores
from forecastle.serving.snapshot import Details, build

NAME = "nyc-temperature"


@pytest.fixture
def state(filled, task, clock):
    board = Board(filled, [task])
    board.refresh(NAME, clock())
    yield board.snapshot(NAME), board.details(NAME, clock())
    board.close()


@pytest.fixture
def nothing(task, made_up):
    """What is known of a task for which nothing was collected, forecast or promoted yet."""
    observed = made_up.observations(task, made_up.NOW, made_up.NOW).clear()
    empty = build(task, None, None, None, observed, made_up.forecasts(task, made_up.NOW, made_up.NOW).clear())
    return empty, Details(made_up.NOW, pl.DataFrame(schema=OUTCOME), None, ())


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_every_series_has_a_chart_with_its_lines_and_bands(state, clock) -> None:
    html = page.board([state], clock()).partition('<div class="lower">')[0]
    assert html.count('<svg class="chart"') == 3
    assert html.count('class="line forecast" d="M') == 3 + 1  # and one in the legend
    assert html.count('<path class="band" d="M') == 3
    assert html.count('<path class="band past" d="M') == 3
    assert html.count('class="line observed" d="M') == 4 + 1  # one series has a gap


def test_the_tiles_show_skill_coverage_age_model_and_data_version(state, clock, made_up) -> None:
    snapshot, details = state
    text = text_of(page.board([state], clock()))
    assert f"+{100 * details.live.skill:.1f} % promised +22.0 %" in text
    assert "Data age 10 min newest value Mon 16 Dec, 14:00" in text
    assert "Model v3 blend" in text
    assert f"Data version {made_up.DATA_VERSION[:8]}" in text


def off_by(details: Details, times: float, promise: Scores, version: str = "3") -> Details:
    """Return details whose outcomes are off by so many times what was promised of their horizon."""
    promised = {one.horizon: one.rmse for one in promise.horizons}
    error = times * pl.col("horizon").replace_strict(promised, return_dtype=pl.Float64)
    rows = details.outcomes.with_columns(value=pl.col("actual") + error, model_version=pl.lit(version))
    return replace(details, outcomes=rows, incidents=())


@pytest.mark.parametrize(
    ("times", "unsolved", "state_of"),
    [
        (1.4, 0, "Up to date · "),
        (3.7, 0, "Up to date, but worse than promised · "),
        (1.4, 1, "Up to date, but 1 incident open · "),
        (3.7, 2, "Up to date, but worse than promised and 2 incidents open · "),
    ],
)
def test_no_light_is_green_while_the_error_is_far_above_its_promise_or_an_incident_open(
    state, clock, times, unsolved, state_of
) -> None:
    snapshot, details = state
    one = replace(details.incidents[0], closed_at=None)
    html = page.board(
        [(snapshot, replace(off_by(details, times, snapshot.promise), incidents=(one,) * unsolved))], clock()
    )
    assert state_of in text_of(html)
    assert ("promised 1.95 · this model&#39;s 3.7 times its promise" in text_of(html)) == (times > 2)
    assert ('<p class="status warn">' in html) == (times > 2 or unsolved > 0)


def test_a_promise_is_held_against_the_model_that_gave_it_and_once_a_day_has_come_true(state, clock) -> None:
    snapshot, details = state
    others, own = off_by(details, 9.0, snapshot.promise, "2"), off_by(details, 9.0, snapshot.promise)
    early = own.outcomes.filter(pl.col("timestamp") < own.outcomes["timestamp"].min() + timedelta(hours=24))
    assert early.height > 50
    for one in (others, replace(own, outcomes=early), replace(own, outcomes=own.outcomes.clear())):
        assert "Up to date · " in text_of(page.board([(snapshot, one)], clock()))
    nothing = [one.model_copy(update={"rmse": 0.0}) for one in snapshot.promise.horizons]
    exact = replace(snapshot, promise=snapshot.promise.model_copy(update={"horizons": tuple(nothing)}))
    assert "this model&#39;s far above its promise" in text_of(page.board([(exact, own)], clock()))
    assert "Up to date · " in text_of(page.board([(exact, off_by(details, 0.0, snapshot.promise))], clock()))


def test_past_forecasts_stand_beside_what_came_true(state, clock, made_up) -> None:
    html = page.board([state], clock())
    measured = made_up.truth("EWR", made_up.NOW.replace(minute=0))
    row = re.search(r"Came true, forecast 6 hours before.*?<tr><th scope=\"row\">(.*?)</tr>", html, re.DOTALL)
    assert row is not None and "Mon 16 Dec, 14:00" in row[1]
    assert f">{page.number(measured, 1)}</td>" in row[1]


def test_every_forecast_that_is_shown_has_the_id_that_lineage_asks_for(state, clock) -> None:
    snapshot, details = state
    html = page.board([state], clock())
    shown = re.findall(r'<code title="([0-9a-f]{32})">([0-9a-f]{8})</code>', html)
    assert all(whole.startswith(short) for whole, short in shown)
    ahead = {one.forecast_id for answer in snapshot.answers.values() for one in answer.forecasts}
    past = set(details.outcomes["forecast_id"])
    assert ahead and {whole for whole, _ in shown} >= ahead and {whole for whole, _ in shown} - ahead <= past
    assert {whole for whole, _ in shown} & past


def test_promise_stands_beside_delivery_for_every_horizon(state, clock) -> None:
    html = page.board([state], clock())
    table = html[html.index('class="scores"') :]
    ahead = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert ahead == ["1 hour", "2 hours", "3 hours", "4 hours", "5 hours", "6 hours", "all"]


def test_stale_data_is_said_in_words_at_the_top(state, clock) -> None:
    clock.advance(hours=4)
    text = text_of(page.board([state], clock()))
    assert "Degraded. The newest value is 4 h 10 min old, and 3 h is the task&#39;s limit." in text


def test_of_a_recording_that_ended_years_ago_the_year_is_said_and_no_empty_chart_is_drawn(state, clock) -> None:
    clock.advance(hours=24 * 900)
    html = page.board([state], clock()).partition('<div class="lower">')[0]
    assert '<svg class="chart"' not in html
    said = text_of(html)
    assert said.count("Nothing was measured, forecast or came true in the 2 days that are drawn here.") == 3
    assert "measured Mon 16 Dec 2013, 14:00" in said and "newest value Mon 16 Dec 2013, 14:00" in said


def test_forecasts_of_a_series_whose_data_is_too_old_for_any_are_not_drawn(state, clock) -> None:
    snapshot, details = state
    silent = replace(snapshot, newest={name: at for name, at in snapshot.newest.items() if name != "LGA"})
    html = page.board([(silent, details)], clock()).partition('<div class="lower">')[0]
    assert html.count('class="line forecast" d="M') == 2 + 1
    assert "No value has been collected lately." in text_of(html) and "no forecast ahead" in text_of(html)


def test_a_forecast_whose_time_has_passed_is_not_called_expected(state, clock) -> None:
    clock.advance(hours=7)
    text = text_of(page.board([state], clock()))
    assert "no forecast ahead" in text and " expected Mon" not in text


def test_incidents_are_shown_open_or_closed(state, clock) -> None:
    snapshot, details = state
    gate = Incident(1, NAME, "data-stale", "No <data> came.", clock(), None, "")
    html = page.board([(snapshot, Details(details.since, details.outcomes, details.live, (gate,)))], clock())
    assert '<li class="open">' in html and "data stale" in html
    assert "No &lt;data&gt; came." in html


def test_a_task_without_anything_says_so_everywhere(nothing, clock) -> None:
    text = text_of(page.board([nothing], clock()))
    assert "Degraded. No model has been promoted yet; no value has been collected lately" in text
    for words in ("none promoted yet", "nothing collected lately", "No forecast yet.", "Nothing came true in the "):
        assert words in text
    assert "None so far." in text


def test_several_tasks_stand_below_each_other_with_links_to_each(state, nothing, clock) -> None:
    html = page.board([state, nothing], clock())
    assert html.count('<section class="task"') == 2
    assert '<a href="#t0">' in html and '<a href="#t1">' in html
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_more_series_than_a_page_can_show_are_counted_and_linked(state, task, clock, made_up) -> None:
    many = tuple(task.series[0].model_copy(update={"id": f"S{number:03}"}) for number in range(page.MOST_SERIES + 5))
    crowd = task.model_copy(update={"series": many})
    at = made_up.NOW.replace(minute=0)
    snapshot = build(
        crowd, None, None, None, made_up.observations(crowd, at, at), identified(made_up.forecasts(crowd, at, at))
    )
    html = page.board([(snapshot, state[1])], clock()).partition('<div class="lower">')[0]
    assert html.count('<svg class="chart"') == page.MOST_SERIES
    assert f'5 more series: <a href="/v1/tasks/{NAME}/forecasts">' in html


def test_nothing_is_inline_so_that_the_strict_policy_holds(state, clock) -> None:
    html = page.page(page.board([state], clock()))
    assert "style=" not in html and "<style" not in html
    assert re.findall(r"<script(.*?)>(.*?)</script>", html) == [(' src="/static/page.js" defer', "")]
    assert not re.search(r"\son\w+=", html)
    assert "http://" not in html and "https://" not in html


def test_the_page_names_the_board_it_shows(state, clock) -> None:
    board = page.board([state], clock())
    assert f'data-etag="{page.etag(board)}"' in page.page(board)
    assert page.etag(board) != page.etag(page.board([state], clock() + timedelta(minutes=1)))


@pytest.mark.parametrize(("rmse", "places"), [(1.95, 1), (0.0021, 4), (35.0, 0), (0.5, 2)])
def test_values_are_shown_with_two_digits_of_the_forecasts_error(rmse: float, places: int) -> None:
    assert page.decimals([Scores(rmse=rmse)], pl.Series([1.0, 2.0])) == places


def test_before_any_score_the_spread_of_the_values_says_how_many_decimals() -> None:
    assert page.decimals([None], pl.Series([1.0810, 1.0830, 1.0850])) == 4
    assert page.decimals([None], pl.Series([], dtype=pl.Float64)) == 1


def test_a_note_heads_the_page_of_every_task_and_is_text_never_markup(state, clock) -> None:
    html = page.board([state], clock(), "The clock is simulated <b>")
    assert '<p class="note" role="note">The clock is simulated &lt;b&gt;</p>' in html
    assert html.index("simulated") < html.index('<section class="task"')
    assert 'role="note"' not in page.board([state], clock())
