"""The shared table contract, and files that are written whole or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from forecastle.errors import StorageUnavailable
from forecastle.frame import conform, empty_observations, iso, observation_schema, to_json
from forecastle.frame import write_bytes, write_json, write_table

AT = datetime(2024, 1, 1, tzinfo=UTC)


def rows(*series: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "series_id": series,
            "timestamp": AT,
            "available_at": AT,
            "collected_at": AT,
            "y": [float("nan")] * len(series),
        }
    )


def test_conform_gives_the_contract_whatever_came_in():
    table = conform(rows("b", "a"), ["y", "x"])
    assert table.schema == observation_schema(["y", "x"])
    assert table["series_id"].to_list() == ["a", "b"]
    assert table["y"].null_count() == table["x"].null_count() == 2
    assert empty_observations(["y", "x"]).schema == table.schema


def test_a_file_is_replaced_whole_and_leaves_no_neighbour(tmp_path):
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_disk_that_refuses_is_a_storage_error_and_leaves_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageUnavailable, match="to write"):
        write_bytes(blocked / "below", b"x")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(StorageUnavailable):
        write_bytes(target, b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_equal_tables_give_equal_bytes(tmp_path):
    one = write_table(tmp_path / "a.parquet", conform(rows("a", "b"), ["y"]))
    two = write_table(tmp_path / "b.parquet", conform(rows("b", "a"), ["y"]))
    assert one.read_bytes() == two.read_bytes()


def test_json_is_strict_and_times_are_utc(tmp_path):
    east = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    value = {"at": east, "none": float("nan"), "far": float("inf"), "list": (1, 2.5), "path": tmp_path}
    found = json.loads(write_json(tmp_path / "x.json", value).read_text())
    assert found == {"at": "2024-01-01T00:00:00Z", "none": None, "far": None, "list": [1, 2.5], "path": str(tmp_path)}
    assert to_json({"a": float("nan")}) == '{"a": null}'
    assert iso(datetime(2024, 1, 1, 0, 0, 0, 5, tzinfo=UTC)) == "2024-01-01T00:00:00.000005Z"
