"""The profile for people: our own page always, a page a series by fg-data-profiling where that can be made."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.data import full_profile
from forecastle.data.profile_page import save_profile
from forecastle.data.profiling import Reference, reference

NOTHING = reference([], np.empty((1, 0)))


@pytest.fixture
def broken_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a library of fg-data-profiling's name before it, that does what it is told."""

    def put(code: str) -> None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "data_profiling.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "lib"), os.environ.get("PYTHONPATH", "")]))

    return put


def facts(page: Path) -> str:
    """The tables of a page."""
    return "".join(re.findall("<table>.*?</table>", page.read_text(), re.DOTALL))


def test_every_series_has_a_full_page_that_the_index_leads_to(tmp_path, small_task, observations, monkeypatch):
    monkeypatch.setattr(full_profile, "ENOUGH_SECONDS", 1000.0)
    page = save_profile(tmp_path / "profile.html", small_task(), observations(hours=200), NOTHING, full=True)
    assert re.findall('<a href="(.*?)">(.*?)</a>', page.read_text()) == [
        ("profile/0.html", "a"),
        ("profile/1.html", "b"),
    ]
    for number in range(2):
        text = (tmp_path / "profile" / f"{number}.html").read_text()
        assert "Time Series" in text or "timeseries" in text.lower()
        assert "augmented" in text.lower() or "stationar" in text.lower()
        assert 'src="http' not in text


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ModuleNotFoundError(\"No module named 'data_profiling'\")", "extra `profile` is not installed"),
        ("def ProfileReport(*_, **__): raise KeyError('a <b> bug')", "KeyError: &#39;a &lt;b&gt; bug&#39;"),
        ("import os; os._exit(9)", "exit code 9"),
    ],
)
def test_where_the_library_is_missing_or_fails_our_own_page_holds_the_facts_and_says_why(
    tmp_path, small_task, observations, broken_library, code, why, caplog
):
    table = observations(hours=200)
    whole = save_profile(tmp_path / "whole.html", small_task(), table, NOTHING)
    broken_library(code)
    page = save_profile(tmp_path / "profile.html", small_task(), table, NOTHING, full=True)
    assert why in page.read_text() and "only this one with the same facts" in page.read_text()
    assert facts(page) == facts(whole)
    assert "No full profile of task small" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_pages_of_a_former_run_do_not_outlive_it(tmp_path, small_task, observations, broken_library):
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "0.html").write_text("of last week")
    broken_library("raise RuntimeError('no')")
    save_profile(tmp_path / "profile.html", small_task(), observations(hours=50), NOTHING, full=True)
    assert not (tmp_path / "profile").exists()


def test_a_library_that_takes_too_long_is_stopped_and_what_it_has_made_stays(
    tmp_path, small_task, observations, broken_library, monkeypatch
):
    broken_library(
        "import time\n"
        "class ProfileReport:\n"
        "    def __init__(self, table, title, **_): self.title = title\n"
        "    def to_html(self):\n"
        "        if self.title.endswith('b'): time.sleep(600)\n"
        "        return 'made'\n"
    )
    monkeypatch.setattr(full_profile, "MOST_SECONDS", 8.0)
    page = save_profile(tmp_path / "profile.html", small_task(), observations(hours=50), NOTHING, full=True)
    assert "took more than 8 s and was stopped" in page.read_text()
    assert [path.read_text() for path in (tmp_path / "profile").iterdir()] == ["made"]


def test_many_series_cost_no_more_than_some(tmp_path, small_task, observations, broken_library):
    broken_library("class ProfileReport:\n  def __init__(*_, **__): ...\n  def to_html(self): return 'made'\n")
    table = observations(hours=30, series=tuple(f"s{number:02}" for number in range(20)))
    page = save_profile(tmp_path / "profile.html", small_task(), table, NOTHING, full=True)
    assert len(list((tmp_path / "profile").iterdir())) == full_profile.MOST_SERIES
    assert "The first 12 of 20 series are shown in full." in page.read_text()


def test_when_enough_time_has_passed_no_further_series_is_begun(
    tmp_path, small_task, observations, broken_library, monkeypatch
):
    broken_library("class ProfileReport:\n  def __init__(*_, **__): ...\n  def to_html(self): return 'made'\n")
    monkeypatch.setattr(full_profile, "ENOUGH_SECONDS", 0.0)
    page = save_profile(tmp_path / "profile.html", small_task(), observations(hours=50), NOTHING, full=True)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["0.html"]
    assert "The first 1 of 2 series are shown in full." in page.read_text()


def test_the_library_s_process_ends_with_the_one_that_started_it(tmp_path, root):
    hanging = tmp_path / "lib"
    hanging.mkdir()
    (hanging / "data_profiling.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    (tmp_path / "titles.json").write_text("[]")
    program = f"from forecastle.data.full_profile import _run; _run({str(tmp_path)!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(hanging), str(root / "src")])}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    child = int((tmp_path / "pid").read_text())
    try:
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        return
    os.kill(child, signal.SIGKILL)
    pytest.fail("it went on alone")


def test_a_series_id_never_becomes_markup_in_a_full_page(tmp_path, small_task, observations):
    table = observations(hours=60, series=("<script>alert(1)</script>",))
    save_profile(tmp_path / "profile.html", small_task(), table, NOTHING, full=True)
    assert "alert(1)</script>" not in (tmp_path / "profile" / "0.html").read_text()


def test_the_facts_of_a_column_are_those_of_its_numbers(tmp_path, small_task, observations):
    table = observations(hours=48, series=("a",)).with_columns(
        y=pl.Series([0.0, -1.0, None, 4.0] * 12), x=pl.Series([0.0, -2.0, None, 8.0] * 12)
    )
    row = facts(save_profile(tmp_path / "profile.html", small_task(), table, NOTHING)).split("<td>a</td><td>y</td>")[1]
    cells = re.findall(r'<td class="number">\s*(.*?)</td>', row.split("</tr>")[0])
    spread = ["-1", "-1", "-1", "0", "4", "4", "4"]
    assert cells[:8] == ["25.00 %", *spread]
    assert cells[8] == "1" and cells[12:15] == ["3", "12", "12"]
    other = facts(tmp_path / "profile.html").split("<td>a</td><td>x</td>")[1].split("</tr>")[0]
    assert re.findall(r'<td class="number">\s*(.*?)</td>', other)[-1] == "1"


def test_gaps_are_counted_in_steps(tmp_path, small_task, observations):
    table = observations(hours=100, series=("a",)).filter(~pl.col("timestamp").dt.hour().is_in([3, 4, 9]))
    first = facts(save_profile(tmp_path / "profile.html", small_task(), table, NOTHING)).split("</tr>")[1]
    assert re.findall(r'<td class="number">(.*?)</td>', first)[1:] == ["12", "2"]


def test_each_feature_names_the_one_it_is_correlated_with_most(tmp_path, small_task, observations):
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    known: Reference = reference(["x", "minus", "still"], np.stack([x, -2 * x, np.ones_like(x)], axis=1))
    text = facts(save_profile(tmp_path / "p.html", small_task(), observations(hours=5), known))
    assert "<td>minus (-1.00)</td>" in text and "<td>x (-1.00)</td>" in text and "<td>–</td>" in text
