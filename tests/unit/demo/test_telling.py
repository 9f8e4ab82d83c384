"""How the demo speaks where nobody looks at a terminal: lines, without colour or movement."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

from rich.console import Console

from forecastle.demo.telling import Telling

FIGURES = {"rmse": 1.948, "mae": 1.4, "r2": 0.912, "skill": 0.221, "coverage": 0.903, "n": 1234}


def test_chapters_are_numbered_and_claims_say_whether_they_came_true(capsys) -> None:
    telling = Telling(plain=True)
    for name in ("collect", "learn"):
        with telling.chapter(name, "What it does.\nMore."):
            telling.claim("all is well", held=name == "collect")
    said = capsys.readouterr().out
    assert said == "\n1. collect  What it does.\n   ✓ all is well\n\n2. learn  What it does.\n   ✗ all is well\n"


def test_a_chapter_with_a_bar_of_its_own_gets_no_spinner_that_would_fight_with_it() -> None:
    telling = Telling(plain=False)
    with telling.chapter("serve", "Hour by hour.", own_bar=True):
        assert list(telling.track(range(2), "hours")) == [0, 1]


def test_a_claim_is_told_word_for_word_though_it_holds_brackets(capsys) -> None:
    Telling(plain=True).claim("write it as unit in [columns.y] of the task file", held=False)
    assert "in [columns.y] of the task" in capsys.readouterr().out


def test_a_long_loop_says_every_tenth_how_far_it_is(capsys) -> None:
    assert list(Telling(plain=True).track(range(40), "hours")) == list(range(40))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 10 and said[0] == "   4 of 40 hours" and said[-1] == "   40 of 40 hours"


def test_a_bar_at_a_terminal_gives_every_item_too(capsys) -> None:
    assert list(Telling(plain=False).track(range(3), "hours")) == [0, 1, 2]


def test_promise_and_delivery_stand_in_one_cell_and_what_was_not_delivered_is_a_dash(task, capsys) -> None:
    promise = {**FIGURES, "horizons": [{"horizon": 1, **FIGURES}, {"horizon": 2, **FIGURES}]}
    delivery = {**FIGURES, "rmse": 2.5, "horizons": [{"horizon": 1, **FIGURES, "rmse": 2.5}]}
    Telling(plain=True).promise_and_delivery(promise, delivery, task)
    said = capsys.readouterr().out
    assert "RMSE °C" in said and said.count("1.95 → 2.5") == 2 and "1.95 → –" in said
    assert "over 1,234 forecasts of the back-test and 1,234 live ones" in said


def test_the_end_says_whether_every_chapter_held_and_where_everything_lies(capsys) -> None:
    Telling(plain=True).end(True, 61.4, Path("demo"))
    Telling(plain=True).end(False, 61.4, Path("demo"))
    said = capsys.readouterr().out
    assert "Every chapter did what it says, in 61 s. Everything lies in demo/." in said
    assert "Not every chapter did what it says" in said


def test_facts_are_aligned(capsys) -> None:
    Telling(plain=True).facts({"a": "1", "longer": "[2]"})
    assert capsys.readouterr().out == "   a       1\n   longer  [2]\n"


def test_a_chapter_shows_what_training_is_at_and_then_listens_no_more(monkeypatch) -> None:
    shown: list[str] = []
    log = logging.getLogger("forecastle.training")
    telling = Telling(plain=False)
    telling.console = Console(file=StringIO(), force_terminal=True)
    monkeypatch.setattr("rich.status.Status.update", lambda self, status: shown.append(status))
    with telling.chapter("train", "Train."):
        log.info("fitting %s on %s origins", "boosted", "3,000")
    log.info("nobody hears this")
    assert shown == ["fitting boosted on 3,000 origins…"]
    assert log.handlers == [] and log.level == logging.NOTSET
