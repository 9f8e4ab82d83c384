"""What is remembered of a file is what reading it gives, for as long as its bytes are the same."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forecastle.data import decoded


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "_TABLES", {})


def table(rows: int = 3, first: float = 0.0) -> pl.DataFrame:
    at = datetime(2013, 12, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "series_id": ["a"] * rows,
            "timestamp": pl.Series([at] * rows, dtype=pl.Datetime("us", "UTC")),
            "value": [first, None, float("nan"), -0.0][:rows] + [1.5] * max(0, rows - 4),
            "times": pl.Series([[at, None]] * rows, dtype=pl.List(pl.Datetime("us", "UTC"))),
        }
    )


def content(of: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    of.write_parquet(buffer)
    return buffer.getvalue()


def test_what_a_writer_kept_is_what_a_reader_reads() -> None:
    made = table()
    held = content(made)
    assert not decoded.is_kept(held)
    decoded.keep(held, made)
    assert decoded.is_kept(held)
    assert_frame_equal(decoded.decode(held), pl.read_parquet(held))
    assert decoded.decode(held).schema == pl.read_parquet(held).schema


def test_a_file_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held, read = content(table()), []
    really = pl.read_parquet
    monkeypatch.setattr(pl, "read_parquet", lambda *given: read.append(1) or really(*given))
    first, second = decoded.decode(held), decoded.decode(held)
    assert read == [1]
    assert_frame_equal(first, second)


def test_other_bytes_are_another_file_and_damage_is_found() -> None:
    held = content(table())
    decoded.decode(held)
    assert decoded.decode(content(table(first=7.0)))["value"][0] == 7.0
    with pytest.raises(pl.exceptions.PolarsError):
        decoded.decode(held[:-20])


def test_what_a_caller_does_to_its_table_no_other_sees() -> None:
    held = content(table())
    decoded.decode(held).drop_in_place("value")
    assert "value" in decoded.decode(held).columns


def test_tables_used_longest_ago_give_way_and_large_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    size = table(100).estimated_size()
    monkeypatch.setattr(decoded, "MOST", 3 * size)
    files = [content(table(100, float(number))) for number in range(4)]
    for one in files[:3]:
        decoded.decode(one)
    decoded.decode(files[0])
    decoded.decode(files[3])
    assert [decoded.is_kept(one) for one in files] == [True, False, True, True]
    monkeypatch.setattr(decoded, "MOST_OF_ONE", size - 1)
    fresh = content(table(100, 9.0))
    assert decoded.decode(fresh)["value"][0] == 9.0 and not decoded.is_kept(fresh)
    monkeypatch.setattr(decoded, "SMALL", 10)
    assert decoded.decode(files[0])["value"][0] == 0.0 and not decoded.is_kept(files[0])
