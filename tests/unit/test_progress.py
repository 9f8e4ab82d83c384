"""Long work says how far it is and how much is left, at a terminal; elsewhere nothing moves."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from forecastle.backtesting import backtest_task
from forecastle.console.progress import measured
from forecastle.operations.backup import back_up
from forecastle.operations.restoring import restore
from forecastle.settings import Settings

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def test_a_terminal_shows_what_is_at_work_how_much_is_done_and_what_is_left() -> None:
    said = io.StringIO()
    with measured("Looking…", Console(file=said, force_terminal=True, width=100)) as tell:
        tell("Copying…", 25, 100)
        tell("Copying…", 50, 100)
    assert "Copying…" in said.getvalue() and "50%" in said.getvalue() and "left:" in said.getvalue()


def test_elsewhere_nothing_is_shown() -> None:
    said = io.StringIO()
    with measured("Looking…", Console(file=said, force_terminal=False)) as tell:
        tell("Copying…", 50, 100)
    assert said.getvalue() == ""


def test_a_back_test_tells_of_every_fit_how_many_are_done_of_how_many(small_task, observations, tmp_path: Path) -> None:
    observations(hours=200).select("series_id", "timestamp", "y", "x").write_parquet(tmp_path / "t.parquet")
    task = small_task(source={"provider": "file", "path": str(tmp_path / "t.parquet")})
    told: list[tuple[str, int, int]] = []
    settings = Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]
    backtest_task(task, settings, NOW, tell=lambda *now: told.append(now))
    assert [done for _, done, _ in told] == list(range(18)) and {of for *_, of in told} == {18}
    assert any(re.fullmatch(r"Back-testing: fitting ridge on \d+ origins…", what) for what, *_ in told)


def test_a_backup_and_its_restore_tell_of_all_their_bytes(tmp_path: Path) -> None:
    home = tmp_path / "home" / "small" / "archive"
    home.mkdir(parents=True)
    for number in range(3):
        (home / f"{number}.json").write_bytes(b"x" * 1000)
    settings = Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]
    told: list[tuple[str, int, int]] = []
    made = back_up(settings, tmp_path / "copy.tar.gz", NOW, progress=lambda *now: told.append(now))
    ended = {what: (done, of) for what, done, of in told}
    assert ended["Copying the stores…"] == (made.bytes, made.bytes)
    assert ended["Packing…"][0] >= made.bytes
    told.clear()
    other = Settings(home=tmp_path / "other", _env_file=None)  # type: ignore[call-arg]
    restore(other, made.path, NOW, progress=lambda *now: told.append(now))
    ended = {what: (done, of) for what, done, of in told}
    assert ended["Verifying and copying…"] == (made.bytes, made.bytes)
    assert 0 < ended["Unpacking…"][0] <= ended["Unpacking…"][1] == made.path.stat().st_size
