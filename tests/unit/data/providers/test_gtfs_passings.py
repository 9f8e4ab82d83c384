"""When a prediction becomes an observation, one rule at a time; the laws over many days are in tests/laws."""

from __future__ import annotations

import pytest

from forecastle.data.providers.gtfs_passings import Passing, Poll, Stop, passings

TRIP = ("trip 1",)
A, B, C = "a", "b", "c"


def poll(at: float, *stops: tuple[str, float | None, float | None], trip: tuple[str, ...] = TRIP) -> Poll:
    """Return a poll of one trip: stop, time, delay."""
    return Poll(at, {trip: tuple(Stop((name, 0), name, when, late) for name, when, late in stops)})


def found(*polls: Poll) -> list[tuple[str, float, float]]:
    return [(one.series, one.at, one.delay) for one in passings(polls)]


def test_an_update_for_a_stop_that_lies_ahead_is_no_observation():
    assert found(poll(0, (A, 100, 5)), poll(60, (A, 110, 15))) == []


def test_a_stop_listed_with_a_time_that_is_not_after_the_feeds_is_passed_as_that_update_says():
    assert found(poll(0, (A, 100, 5)), poll(110, (A, 108, 13))) == [(A, 108, 13)]
    assert found(poll(100, (A, 100, 5))) == [(A, 100, 5)]


def test_what_the_feed_says_of_a_passed_stop_later_changes_nothing():
    assert found(poll(110, (A, 108, 13)), poll(120, (A, 90, -5))) == [(A, 108, 13)]


def test_a_stop_that_vanishes_from_a_trip_that_goes_on_is_passed_as_the_last_update_said():
    assert found(poll(0, (A, 100, 5), (B, 400, 9)), poll(120, (B, 410, 19))) == [(A, 100, 5)]


def test_a_vehicle_ahead_of_its_prediction_passed_before_the_feed_knew():
    assert found(poll(0, (A, 100, 5), (B, 400, 9)), poll(60, (B, 350, 1))) == [(A, 60, 5)]


def test_a_trip_that_loses_all_its_stops_has_not_passed_them_until_their_time_comes():
    gone = Poll(60, {TRIP: ()})
    assert found(poll(0, (A, 100, 5), (B, 400, 9)), gone) == []
    assert found(poll(0, (A, 100, 5), (B, 400, 9)), gone, Poll(120, {})) == [(A, 100, 5)]
    last = poll(60, (A, 100, 5))
    assert found(poll(0, (A, 100, 5), (B, 400, 9)), last) == []  # what is behind it went, it did not pass


def test_the_last_stop_is_passed_when_its_time_comes_and_its_trip_is_gone():
    assert found(poll(0, (C, 100, 5)), Poll(60, {}), Poll(120, {})) == [(C, 100, 5)]


def test_a_trip_that_comes_back_is_judged_by_what_it_says_then():
    assert found(poll(0, (A, 100, 5)), Poll(60, {}), poll(90, (A, 160, 65)), poll(170, (A, 165, 70))) == [(A, 165, 70)]


def test_an_update_seen_long_before_the_passing_is_a_forecast():
    assert found(poll(0, (A, 601, 5)), Poll(700, {})) == []
    assert found(poll(0, (A, 600, 5)), Poll(700, {})) == [(A, 600, 5)]
    assert found(poll(0, (A, 900, 5), (B, 1900, 5)), poll(1500, (B, 1900, 5))) == []


@pytest.mark.parametrize("void", [poll(50, (A, None, None), (B, 400, 9)), Poll(50, {TRIP: None})])
def test_a_stop_that_is_skipped_and_a_trip_that_is_cancelled_are_not_passed(void):
    assert found(poll(0, (A, 100, 5), (B, 140, 9)), void, Poll(120, {})) == []


def test_a_cancelled_trip_takes_what_it_had_lost_before_with_it():
    assert found(poll(0, (C, 100, 5)), Poll(60, {TRIP: ()}), Poll(80, {TRIP: None}), Poll(120, {})) == []


def test_a_stop_taken_out_of_a_trip_that_has_not_got_there_is_not_passed():
    polls = poll(0, (A, 100, 5), (B, 140, 9), (C, 200, 9)), poll(60, (A, 110, 5), (C, 200, 9)), Poll(150, {})
    assert found(*polls) == [(A, 110, 5)]


def test_a_stop_that_is_ahead_again_is_passed_again():
    assert found(poll(100, (A, 90, 5)), poll(160, (A, 200, 115)), poll(240, (A, 205, 120))) == [
        (A, 90, 5),
        (A, 205, 120),
    ]


def test_a_passing_without_a_delay_is_left_out_and_so_is_a_stop_that_is_not_the_tasks():
    assert found(poll(110, (A, 108, None))) == []
    assert passings([Poll(110, {TRIP: (Stop((A, 0), None, 108, 13),)})]) == []


def test_two_trips_at_one_stop_are_two_passings_and_each_says_which_poll_showed_it():
    other = ("trip 2",)
    assert passings([poll(110, (A, 108, 13)), poll(200, (A, 190, 3), trip=other)]) == [
        Passing(A, 108, TRIP, (A, 0), 13, 110),
        Passing(A, 190, other, (A, 0), 3, 200),
    ]


def test_a_poll_as_old_as_another_adds_nothing():
    assert found(poll(110, (A, 108, 13)), poll(110, (B, 108, 13))) == [(A, 108, 13)]
