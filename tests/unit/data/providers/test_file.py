"""A user's own table: CSV or Parquet, read exactly or refused with the place of the mistake."""

from __future__ import annotations

from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecastle.data.providers import file
from forecastle.data.providers.file import parse, read, requests
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, make_task

HERE = Request("file:///home/me/table.csv")
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def make(**changes: Any) -> Task:
    data: dict[str, Any] = {
        "name": "mine",
        "domain": "financial",
        "frequency": "1h",
        "horizon": "6h",
        "target": "close",
        "source": {"provider": "file", "path": "/home/me/table.csv"},
        "columns": {"close": {}, "volume": {}},
    }
    return make_task(data | changes)


TASK = make()


def csv(*lines: str) -> bytes:
    return "\n".join(("series_id,timestamp,close,volume", *lines)).encode()


def parquet(**columns: Any) -> bytes:
    buffer = BytesIO()
    whole = {"series_id": ["BTC"], "timestamp": [NOON], "close": [1.5], "volume": [2.0]} | columns
    pl.DataFrame(whole).write_parquet(buffer)
    return buffer.getvalue()


def test_a_csv_and_a_parquet_of_the_same_rows_read_the_same():
    from_csv = parse(TASK, HERE, csv("BTC,2024-05-01T12:00:00Z,1.5,2"))
    assert from_csv.equals(parse(TASK, HERE, parquet()))
    assert from_csv.rows() == [("BTC", NOON, 1.5, 2.0)]
    assert from_csv.schema == {
        "series_id": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        "close": pl.Float64,
        "volume": pl.Float64,
    }


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:00:00Z",
        "2024-05-01 12:00",
        "2024-05-01T12:00:00.000",
        "2024-05-01T14:00:00+02:00",
        " 2024-05-01T12 ",
    ],
)
def test_text_times_are_iso_8601_and_without_a_zone_they_are_utc(text):
    assert parse(TASK, HERE, csv(f"BTC,{text},1,2"))["timestamp"].to_list() == [NOON]


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([datetime(2024, 5, 1, 12)], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2024, 5, 1, 12)], dtype=pl.Datetime("ms")),
        pl.Series([NOON]).dt.convert_time_zone("Asia/Tokyo"),
        pl.Series(["2024-05-01T12:00:00Z"]),
    ],
)
def test_parquet_times_of_any_precision_and_zone_become_utc(times):
    assert parse(TASK, HERE, parquet(timestamp=times))["timestamp"].to_list() == [NOON]


def test_a_date_is_its_midnight_in_utc():
    table = parse(TASK, HERE, parquet(timestamp=[date(2024, 5, 1)]))
    assert table["timestamp"].to_list() == [datetime(2024, 5, 1, tzinfo=UTC)]


@pytest.mark.parametrize("missing", ["", "NA", "NaN", "nan", "null", "None", " n/a "])
def test_missing_values_of_a_csv_become_null(missing):
    assert parse(TASK, HERE, csv(f"BTC,2024-05-01,{missing},2"))["close"].to_list() == [None]


def test_missing_values_of_a_parquet_become_null_and_never_nan():
    table = parse(TASK, HERE, parquet(close=[float("nan")], volume=pl.Series([None])))
    assert table.select("close", "volume").rows() == [(None, None)]


def test_numbers_of_any_type_are_read_as_floats():
    table = parse(TASK, HERE, parquet(close=pl.Series([3], dtype=pl.UInt8), volume=[True]))
    assert table.select("close", "volume").rows() == [(3.0, 1.0)]


def test_times_off_the_grid_and_repeated_rows_are_kept_as_they_are():
    rows = ("BTC,2024-05-01T12:07:31Z,1,2",) * 2
    assert parse(TASK, HERE, csv(*rows)).rows() == [("BTC", datetime(2024, 5, 1, 12, 7, 31, tzinfo=UTC), 1.0, 2.0)] * 2


def test_a_row_without_any_value_stays_a_row():
    assert parse(TASK, HERE, csv("BTC,2024-05-01,,")).height == 1


def test_columns_the_task_does_not_name_are_ignored():
    assert parse(TASK, HERE, parquet(note=["hello"])).columns == ["series_id", "timestamp", "close", "volume"]


def test_whole_numbers_can_be_series_ids_and_na_is_a_name_like_any_other():
    assert parse(TASK, HERE, parquet(series_id=[42]))["series_id"].to_list() == ["42"]
    assert parse(TASK, HERE, csv("NA,2024-05-01,1,2"))["series_id"].to_list() == ["NA"]


def test_a_task_without_series_takes_every_series_of_the_file():
    table = parse(TASK, HERE, csv("BTC,2024-05-01,1,2", "ETH,2024-05-01,1,2"))
    assert table["series_id"].to_list() == ["BTC", "ETH"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            csv("BTC,2024-05-01,1,2", "BTC,2024-05-02,about 3,2"),
            ["close", "'about 3' in row 2, series BTC at 2024-05-02T00:00:00Z"],
        ),
        (csv("BTC,2024-05-01,1,2", f"BTC,2024-05-02,{'X' * 500},2"), ["numbers in close", "500 characters in row 2"]),
        (csv("BTC,2024-05-01,1,2", "BTC,yesterday,1,2"), ["ISO 8601", "'yesterday' in row 2, series BTC"]),
        (csv("BTC,,1,2"), ["ISO 8601", "row 1, series BTC"]),
        (csv("BTC,2024-05-01,1,2", ",2024-05-01,1,2"), ["series_id", "none in row 2"]),
        (csv("BTC,2024-05-01,1,2", "B\0C,2024-05-01,1,2"), ["control characters", r"'B\x00C' in row 2"]),
        (b"series_id,time,close,volume\nBTC,2024-05-01,1,2\n", ["'timestamp'", "did you mean 'time'?"]),
        (b"series_id,timestamp,clse,volume\nBTC,2024-05-01,1,2\n", ["'close'", "did you mean 'clse'?"]),
        (b"series_id;timestamp;close;volume\nBTC;2024-05-01;1;2\n", ["'series_id'", "series_id;timestamp"]),
        (csv("BTC,2024-05-01,1,2,3,4"), ["CSV, Parquet or JSON", "begins with: series_id,timestamp"]),
        (b"PAR1 and nothing else", ["CSV, Parquet or JSON", "begins with: PAR1"]),
        (parquet(timestamp=[1714564800]), ["timestamp", "Int64"]),
        (parquet(series_id=[1.5]), ["series_id", "Float64"]),
        (parquet(close=[[1.0]]), ["numbers in close", "List"]),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(bad, words):
    with pytest.raises(AnswerChanged) as refused:
        parse(TASK, HERE, bad)
    for word in ("/home/me/table.csv", *words):
        assert word in str(refused.value)


PUSHED = Request("push://mine")


def repeated(rows: int, text: str | None = None) -> bytes:
    """Return a Parquet table of one row over and over, which takes next to no room before it is unpacked."""
    one = pl.DataFrame({"series_id": text or "BTC", "timestamp": NOON, "close": 1.5, "volume": 2.0})
    packed = BytesIO()
    one.select(pl.all().repeat_by(rows).explode()).write_parquet(packed, compression="zstd", compression_level=9)
    return packed.getvalue()


def test_a_table_of_others_that_says_it_unpacks_to_much_is_refused_before_it_is(monkeypatch):
    monkeypatch.setattr(file, "MOST_VALUES", 4000)
    monkeypatch.setattr(pl, "read_parquet", lambda _: pytest.fail("it was unpacked"))
    assert len(repeated(100_000)) < 20_000
    with pytest.raises(AnswerChanged, match="at most 4000 values .* found 400000 of"):
        parse(TASK, PUSHED, repeated(100_000))


def test_a_table_of_others_whose_text_unpacks_to_much_is_refused(monkeypatch):
    monkeypatch.setattr(file, "MOST_BYTES", 50_000)
    packed = parquet(series_id=["B" * 100_000])
    assert len(packed) < 10_000
    with pytest.raises(AnswerChanged, match="at most .* of 50000 bytes"):
        parse(TASK, PUSHED, packed)


def test_lists_in_a_table_of_others_count_with_all_they_hold(monkeypatch):
    monkeypatch.setattr(file, "MOST_VALUES", 4000)
    with pytest.raises(AnswerChanged, match="at most 4000 values"):
        parse(TASK, PUSHED, parquet(note=[[0] * 5000]))


@pytest.mark.parametrize(
    "wide",
    [
        b"[" + b",".join(b'{"k%d":1}' % number for number in range(100)) + b"]",
        b",".join(b"k%d" % number for number in range(100)) + b"\n" * 100,
    ],
    ids=["JSON", "CSV"],
)
def test_a_table_of_others_with_a_column_for_each_row_is_refused_before_it_is_laid_out(monkeypatch, wide):
    monkeypatch.setattr(file, "MOST_VALUES", 4000)
    with pytest.raises(AnswerChanged, match="at most 4000 values"):
        parse(TASK, PUSHED, wide)


def test_up_to_the_bound_a_table_of_others_is_read_and_a_file_of_ones_own_is_as_large_as_it_is(monkeypatch):
    monkeypatch.setattr(file, "MOST_VALUES", 4000)
    assert parse(TASK, PUSHED, repeated(1000)).height == 1000
    assert parse(TASK, HERE, repeated(1001)).height == 1001
    rows = b'[{"series_id": "BTC", "timestamp": "2024-05-01", "close": 1, "volume": 2}]'
    assert parse(TASK, PUSHED, rows).height == 1


def test_a_series_the_task_does_not_have_is_named_with_the_nearest():
    task = make(series=[{"id": "BTC"}, {"id": "ETH"}])
    with pytest.raises(AnswerChanged, match=r"'BTCX' in row 2; did you mean 'BTC'\?"):
        parse(task, HERE, csv("BTC,2024-05-01,1,2", "BTCX,2024-05-01,1,2"))


@pytest.mark.parametrize("nothing", [b"", b"\n", csv()])
def test_a_table_without_rows_means_the_source_is_unavailable(nothing):
    with pytest.raises(SourceUnavailable, match="table.csv"):
        parse(TASK, HERE, nothing)


def test_the_file_of_the_task_is_read_byte_for_byte(tmp_path: Path):
    path = tmp_path / "my table, 100 %.csv"
    path.write_bytes(b"\xef\xbb\xbfany\r\nbytes\x00")
    task = make(source={"provider": "file", "path": str(path)})
    (request,) = requests(task, Settings(), NOON, NOON, NOON)
    assert read(request).body == path.read_bytes()
    assert request.source == str(path)


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path: Path):
    (tmp_path / "prices.csv").touch()
    with pytest.raises(SourceUnavailable, match=r"no such file; did you mean '.*/prices.csv'\?"):
        read(Request((tmp_path / "price.csv").as_uri()))


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(SourceUnavailable, match="directory"):
        read(Request(tmp_path.as_uri()))


def test_a_byte_order_mark_is_not_part_of_the_first_column():
    assert parse(TASK, HERE, b"\xef\xbb\xbf" + csv("BTC,2024-05-01,1,2")).height == 1


def test_a_table_of_forecasts_says_when_each_was_issued():
    task = make(
        source={"provider": "file", "path": "/home/me/table.csv", "issued": "/home/me/issued.csv"},
        columns={"close": {}, "volume": {"ahead": True}},
    )
    asked = requests(task, Settings(), NOON, NOON, NOON)
    assert [call.url for call in asked] == ["file:///home/me/table.csv", "file:///home/me/issued.csv"]
    body = b"series_id,issued_at,timestamp,volume\na,2024-05-01T12:00+02:00,2024-05-01T14:00,7"
    assert parse(task, asked[1], body).rows() == [("a", NOON.replace(hour=14), NOON.replace(hour=10), 7.0)]
    with pytest.raises(AnswerChanged, match="a column 'issued_at' in"):
        parse(task, asked[1], b"series_id,timestamp,volume\na,2024-05-01T14:00,7")
    with pytest.raises(AnswerChanged, match="'soon' in row 1"):
        parse(task, asked[1], body.replace(b"2024-05-01T12:00+02:00", b"soon"))
