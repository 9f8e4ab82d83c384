"""What the training data looks like: the numbers drift relies on, and the page."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from forecastle.data import profiling
from forecastle.data.profile_page import save_profile
from forecastle.data.profiling import LEVELS, Reference, reference
from forecastle.frame import to_json

NAN = float("nan")


def test_each_feature_has_its_range_its_null_share_and_its_quantiles():
    column = np.arange(101, dtype=np.float32)
    known = reference(["x", "half"], np.stack([column, np.where(column % 2 == 0, column, NAN)], axis=1))
    assert (known.names, known.rows) == (("x", "half"), 101)
    assert known.minimum.tolist() == [0, 0] and known.maximum.tolist() == [100, 100]
    assert known.null_share.tolist() == pytest.approx([0, 50 / 101])
    assert known.quantiles[LEVELS.index(0.25)].tolist() == [25, 25]


def test_a_feature_that_was_never_seen_has_no_numbers():
    known = reference(["x"], np.full((3, 1), NAN, dtype=np.float32))
    assert known.null_share.tolist() == [1.0]
    assert np.isnan([known.minimum[0], known.maximum[0], *known.quantiles[:, 0]]).all()


@pytest.mark.parametrize("shape", [(20, 3), (0, 3), (5, 0)])
def test_json_gives_the_same_reference_back_bit_for_bit(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if matrix.size:
        matrix[:, 1] = NAN
    known = reference([f"x{number}" for number in range(shape[1])], matrix)
    again = Reference.from_dict(json.loads(to_json(known.to_dict())))
    assert (again.names, again.rows) == (known.names, known.rows)
    for name in ("null_share", "minimum", "maximum", "quantiles", "correlations"):
        one, other = getattr(known, name), getattr(again, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_correlations_are_those_of_the_rows_that_have_both(monkeypatch):
    monkeypatch.setattr(profiling, "CHUNK", 64)
    values = np.random.default_rng(1).normal(size=(500, 4)) @ np.random.default_rng(2).normal(size=(4, 4)) + 1e4
    values[np.random.default_rng(3).random((500, 4)) < 0.2] = NAN
    found = reference(["a", "b", "c", "d"], values.astype(np.float32)).correlations
    kept = values.astype(np.float32).astype(float)
    for one in range(4):
        for other in range(4):
            both = ~np.isnan(kept[:, one]) & ~np.isnan(kept[:, other])
            expected = np.corrcoef(kept[both, one], kept[both, other])[0, 1]
            assert found[one, other] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(found, found.T)


def test_what_does_not_vary_is_correlated_with_nothing():
    values = np.stack([np.full(9, 0.1), np.arange(9.0), np.full(9, NAN)], axis=1).astype(np.float32)
    found = reference(["still", "x", "unseen"], values).correlations
    assert np.isnan(np.delete(found.ravel(), 4)).all() and found[1, 1] == 1


def test_a_reference_from_before_there_were_correlations_still_loads():
    known = reference(["a", "b"], np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32))
    old = {name: value for name, value in known.to_dict().items() if name != "correlations"}
    again = Reference.from_dict(old)
    assert np.isnan(again.correlations).all() and again.correlations.shape == (2, 2)
    assert np.array_equal(again.maximum, known.maximum)


def test_a_matrix_that_does_not_fit_its_names_is_refused():
    with pytest.raises(ValueError, match="2 features"):
        reference(["a", "b"], np.zeros((4, 3), dtype=np.float32))


def test_the_page_shows_every_series_column_and_feature(tmp_path, small_task, observations):
    table = observations(hours=300).filter(pl.col("timestamp").dt.hour() != 3)
    page = save_profile(
        tmp_path / "profile.html", small_task(), table, reference(["lag_1"], np.ones((2, 1), np.float32))
    )
    text = page.read_text()
    assert all(f"<td>{word}</td>" in text for word in ("a", "b", "y", "x", "lag_1"))
    assert '<td class="number">287</td>' in text and '<td class="number">13</td>' in text
    assert text.count('<path d="M') == 2


def test_the_line_is_broken_where_there_is_no_value(tmp_path, small_task, observations):
    table = observations(hours=100, series=("a",))
    hole = pl.col("timestamp").dt.day() == 3
    table = table.with_columns(pl.when(~hole).then("y").alias("y"))
    text = save_profile(tmp_path / "p.html", small_task(), table, reference([], np.empty((1, 0)))).read_text()
    assert text.split('<path d="')[1].split('"')[0].count("M") == 2


def test_a_series_without_any_value_is_shown_without_a_line(tmp_path, small_task, observations):
    table = observations(hours=5, series=("a",)).with_columns(y=pl.lit(None, dtype=pl.Float64))
    text = save_profile(tmp_path / "p.html", small_task(), table, reference([], np.empty((1, 0)))).read_text()
    assert '<path d=""/>' in text and "100.00 %" in text


def test_names_from_a_source_never_become_markup_and_the_page_allows_no_script(tmp_path, small_task, observations):
    table = observations(hours=5, series=("<script>alert(1)</script>",))
    text = save_profile(tmp_path / "p.html", small_task(), table, reference([], np.empty((1, 0)))).read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
