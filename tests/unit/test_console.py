"""What a person reads: a line a step, a table of figures, and neither colour nor movement where nobody looks."""

from __future__ import annotations

import pytest

from forecastle.console import PLAIN_WIDTH, figure, make_console, print_outcome, print_scores, score_table
from forecastle.errors import SourceUnavailable

FIGURES = {"rmse": 1.9481, "mae": 1.4, "r2": 0.9, "skill": 0.2212, "coverage": 0.9034, "n": 42}
SCORES = {**FIGURES, "horizons": [{"horizon": 1, **FIGURES, "skill": None}, {"horizon": 2, **FIGURES}]}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (1.94812, "1.948"), (0.0, "0"), (-0.25, "-0.25"), (123456.0, "1.235e+05")]
)
def test_a_figure_has_four_significant_digits_and_what_is_not_known_is_a_dash(value, text) -> None:
    assert figure(value) == text


def test_a_step_that_succeeded_is_one_line_with_what_it_found(capsys) -> None:
    print_outcome("forecast", 0.0412, {"new": 18, "model_version": "1", "share": 0.12345, "reasons": ["a", "b"]}, None)
    said = capsys.readouterr().out
    assert said == "✓ forecast       new 18, model version 1, share 0.1235, reasons a; b (0.04 s)\n"


def test_sentences_are_said_one_after_the_other_and_notes_stand_below_the_line(capsys) -> None:
    print_outcome("promote", 1.0, {"reasons": ["It is better.", "It covers."], "notes": ["b [x] is withheld."]}, None)
    said = "✓ promote        reasons It is better. It covers. (1.00 s)\n                 b [x] is withheld.\n"
    assert capsys.readouterr().out == said


def test_a_step_that_failed_is_marked_and_an_empty_list_is_called_none(capsys) -> None:
    print_outcome("ingest", 1.0, {}, SourceUnavailable("an answer", "none", "Ask again."))
    print_outcome("watch", 1.0, {"opened": []}, None)
    assert capsys.readouterr().out == "✗ ingest         failed (1.00 s)\n✓ watch          opened none (1.00 s)\n"


def test_what_was_found_is_shown_as_it_is_even_where_it_looks_like_markup(capsys) -> None:
    print_outcome("ingest", 1.0, {"page": "/tmp/[bold]x[/bold]"}, None)
    assert "/tmp/[bold]x[/bold]" in capsys.readouterr().out


def test_scores_are_a_row_a_horizon_and_the_pooled_ones_with_the_unit_of_the_target(task) -> None:
    table = score_table(SCORES, task, "title")
    assert [column.header for column in table.columns][1] == "RMSE °C"
    assert [list(column.cells) for column in table.columns][0] == ["1", "2", "pooled"]
    assert [list(column.cells) for column in table.columns][4] == ["–", "0.2212", "0.2212"]


def test_a_printed_table_says_what_skill_is(task, capsys) -> None:
    print_scores(SCORES, task, "42 forecasts")
    said = capsys.readouterr().out
    assert "42 forecasts" in said and "Skill is 1 - RMSE / RMSE of persistence on the same rows." in said


def test_a_plain_console_has_no_colour_and_a_fixed_width() -> None:
    console = make_console(plain=True)
    assert console.no_color and console.width == PLAIN_WIDTH
