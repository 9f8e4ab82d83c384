"""The demo's claims rest on what lies in the stores: whoever changes a byte there makes a claim fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.quality_check import judge, save_report
from forecastle.data.versioning import version_table
from forecastle.demo import evidence
from forecastle.http import Answer
from forecastle.settings import Settings

NOW = datetime(2024, 2, 1, tzinfo=UTC)
AT = datetime(2024, 1, 3, 5, tzinfo=UTC)


def test_an_archived_answer_counts_only_as_received_and_with_its_time(tmp_path: Path) -> None:
    name = Archive(tmp_path).save(Answer("http://source", 200, {}, b"[1, 2]"), NOW)
    assert evidence.archived_whole(tmp_path, [name], NOW) == 1
    assert evidence.archived_whole(tmp_path, [name], NOW + timedelta(seconds=1)) == 0
    (body,) = (path for path in (tmp_path / "bodies").rglob("*") if path.is_file())
    body.write_bytes(b"[1, 3]")
    assert evidence.archived_whole(tmp_path, [name], NOW) == 0


def test_a_masked_value_is_in_the_report_and_null_in_the_history(tmp_path: Path, small_task, observations) -> None:
    task = small_task(columns={"y": {"maximum": 100}, "x": {}})
    here = (pl.col("series_id") == "a") & (pl.col("timestamp") == AT)
    rows = observations().with_columns(y=pl.when(here).then(999.0).otherwise("y"))
    first, last = rows["timestamp"].min(), rows["timestamp"].max()
    report, passed = judge(task, rows, first, last, NOW)
    saved = save_report(tmp_path, report)
    assert saved.parent == tmp_path
    history, unmasked = History(tmp_path / "masked", ("y", "x")), History(tmp_path / "unmasked", ("y", "x"))
    history.append(passed)
    unmasked.append(rows)
    quality = tmp_path / "quality.json"
    assert evidence.masked_value(quality, history, "a", "y", AT) == evidence.Masked(999.0, True)
    assert evidence.masked_value(quality, unmasked, "a", "y", AT) == evidence.Masked(999.0, False)
    assert evidence.masked_value(quality, history, "b", "y", AT) is None
    assert evidence.grid_rows(history) == rows.height


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


def test_a_version_is_one_whose_bytes_are_in_the_remote_and_whose_pointer_is_committed(
    tmp_path: Path, settings: Settings, task
) -> None:
    table, pointer = tmp_path / "training.parquet", f"{task.name}/training.parquet.dvc"
    pl.DataFrame({"y": [1.0, 2.0]}).write_parquet(table)
    snapshot = version_table(settings, task, table, "train-1")
    found = {"version": snapshot.version, "commit": snapshot.commit}
    assert evidence.is_versioned(settings, table, pointer, found)
    assert not evidence.is_versioned(settings, table, pointer, found | {"commit": "0" * 40})
    (stored,) = (path for path in (Path(settings.remote) / "files").rglob("*") if path.is_file())
    stored.unlink()
    assert not evidence.is_versioned(settings, table, pointer, found)
