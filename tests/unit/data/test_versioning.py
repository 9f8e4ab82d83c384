"""Versions of the training table: the digest, the commit and the remote agree, whatever happens in between."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dulwich import porcelain

from forecastle import __version__
from forecastle.data import remotes, workspace
from forecastle.data.versioning import record, records, version_table
from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.frame import write_table
from forecastle.settings import Settings

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.parquet", pl.DataFrame({"x": [1.0, 2.0]}))


def log(settings: Settings) -> list[str]:
    """Author and subject of every commit of the workspace, the newest first, as git itself tells them."""
    command = ["git", "-C", str(settings.versions), "log", "--format=%an <%ae> %s"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def status(settings: Settings) -> str:
    command = ["git", "-C", str(settings.versions), "status", "--porcelain", "-uall"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_plain_dvc_pull_in_a_fresh_clone_gives_the_same_bytes(settings, task, table, tmp_path):
    snapshot = version_table(settings, task, table, "run-1")
    subprocess.run(["git", "clone", "-q", str(settings.versions), str(tmp_path / "clone")], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=tmp_path / "clone", check=True)
    assert (tmp_path / "clone" / task.name / "training.parquet").read_bytes() == table.read_bytes()
    assert snapshot.rows == 2


def test_the_pointer_is_committed_with_the_run_s_name_and_the_given_identity(settings, task, table, capfd):
    snapshot = version_table(settings, task, table, "run-1")
    assert log(settings)[0] == (
        f"forecastle <forecastle@localhost> Version nyc-temperature {snapshot.version[:8]}: 2 rows of run run-1"
    )
    assert snapshot.version in snapshot.path.with_suffix(".parquet.dvc").read_text()
    assert status(settings) == ""
    assert capfd.readouterr() == ("", "")


def test_unchanged_data_gives_the_same_snapshot_and_no_new_commit(settings, task, table):
    first = version_table(settings, task, table, "run-1")
    commits = log(settings)
    assert version_table(settings, task, table, "run-2") == first
    assert log(settings) == commits


def test_changed_data_gives_a_new_version_and_the_old_one_stays_in_the_remote(settings, task, table):
    first = version_table(settings, task, table, "run-1")
    write_table(table, pl.DataFrame({"x": [1.0, 3.0, 4.0]}))
    second = version_table(settings, task, table, "run-2")
    assert (second.version != first.version, second.commit != first.commit, second.rows) == (True, True, 3)
    for version in (first.version, second.version):
        assert (Path(settings.remote) / "files" / "md5" / version[:2] / version[2:]).is_file()


def test_two_tasks_share_the_workspace_without_moving_each_other_s_commit(settings, task, table):
    first = version_table(settings, task, table, "run-1")
    other = task.model_copy(update={"name": "other"})
    assert version_table(settings, other, table, "run-2").commit != first.commit
    assert version_table(settings, task, table, "run-3") == first


def test_no_home_folder_and_no_git_identity_are_needed(settings, task, table, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert len(version_table(settings, task, table, "run-1").commit) == 40


def test_a_push_that_fails_is_said_and_nothing_is_committed(settings, task, table, tmp_path):
    (tmp_path / "a-file").write_text("no folder")
    broken = Settings(home=settings.home, dvc_remote=str(tmp_path / "a-file"))
    with pytest.raises(StorageUnavailable, match="training table to be pushed"):
        version_table(broken, task, table, "run-1")
    assert not any("Version" in line for line in log(settings))
    assert version_table(settings, task, table, "run-2").rows == 2


def test_a_crash_after_the_push_is_healed_by_the_next_call(settings, task, table, monkeypatch):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "last_commit", crash)
        with pytest.raises(KeyboardInterrupt):
            version_table(settings, task, table, "run-1")
    with monkeypatch.context() as patch:
        write_table(table, pl.DataFrame({"x": [9.0]}))
        patch.setattr(workspace, "commit_version", crash)
        with pytest.raises(KeyboardInterrupt):
            version_table(settings, task, table, "run-2")
    healed = version_table(settings, task, table, "run-2")
    assert "1 rows of run run-2" in log(settings)[0]
    assert (healed.rows, status(settings)) == (1, "")


def test_a_half_made_workspace_is_made_anew(settings, task, table):
    (settings.home / ".versions.part" / ".git").mkdir(parents=True)
    assert version_table(settings, task, table, "run-1").rows == 2


def test_locks_and_torn_pointers_of_a_killed_process_are_cleared(settings, task, table):
    first = version_table(settings, task, table, "run-1")
    (settings.versions / ".git" / "index.lock").touch()
    (settings.versions / ".dvc" / "tmp" / "rwlock").write_text("{")
    first.path.with_suffix(".parquet.dvc").write_text("outs:\n- md5: torn")
    (settings.versions / "other").mkdir()
    (settings.versions / "other" / "training.parquet.dvc").write_text("ou")
    (settings.versions / ".dvc" / ".config.cut-off.part").write_bytes(b"[co")
    assert version_table(settings, task, table, "run-2") == first
    assert not list(settings.versions.rglob("*.part")) and "part" not in status(settings)


def test_a_process_killed_at_random_moments_is_healed_by_a_rerun(settings, task, table, root):
    program = (
        "import sys; from pathlib import Path\n"
        "import dvc.repo, dulwich.porcelain\n"
        "from forecastle.data.versioning import version_table\n"
        "from forecastle.settings import Settings\n"
        "from forecastle.task import load_task\n"
        "home, task, table = sys.argv[1:]\n"
        "print('ready', flush=True)\n"
        "version_table(Settings(home=Path(home)), load_task(task), Path(table), 'run-1')\n"
    )
    moments = random.Random(3)
    arguments = [str(settings.home), str(root / "tasks" / "nyc-temperature.toml"), str(table)]
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(timeout=moments.uniform(0.05, 0.8))
            except subprocess.TimeoutExpired:
                process.kill()
    snapshot = version_table(settings, task, table, "run-1")
    version = snapshot.version
    assert sum("Version" in line for line in log(settings)) == 1
    assert (Path(settings.remote) / "files" / "md5" / version[:2] / version[2:]).read_bytes() == table.read_bytes()
    assert status(settings) == ""


def test_a_process_killed_between_staging_and_its_commit_leaves_the_commit_its_own_words(
    settings, task, table, monkeypatch
):
    def killed(git, message, **options):
        if message.startswith(b"Version"):
            raise KeyboardInterrupt
        return really(git, message, **options)

    really = porcelain.commit
    monkeypatch.setattr(porcelain, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        version_table(settings, task, table, "run-1")
    assert status(settings) != "" and not any("Version" in line for line in log(settings))
    monkeypatch.setattr(porcelain, "commit", really)
    snapshot = version_table(settings, task, table, "run-1")
    told = log(settings)
    assert sum("Version" in line and "run-1" in line for line in told) == 1 and len(told) == 2
    show = ["git", "-C", str(settings.versions), "show", "--name-only", "--format=%s", snapshot.commit]
    subject, _, *files = subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines()
    assert subject.startswith("Version") and any(snapshot.version in name for name in files)
    assert status(settings) == ""


@pytest.mark.parametrize(
    "remote",
    [
        "https://user:hunter2@example.org/store",
        "https://hunter2@example.org/store",
        "https://:hunter2@example.org/store",
        "webdavs://hunter2@example.org/store",
        "WebDAV://example.org/store?token=hunter2",
        "http://example.org/store?hunter2",
        "ssh://user:hunter2@example.org/store",
        "https://hunter2@[::1/store",
    ],
)
def test_a_remote_with_a_secret_is_refused_before_it_is_committed(settings, task, table, remote):
    secret = Settings(home=settings.home, dvc_remote=remote)
    with pytest.raises(SettingsError) as refused:
        version_table(secret, task, table, "run-1")
    assert "hunter2" not in str(refused.value)
    assert "://" in refused.value.found
    assert not settings.versions.exists()


def test_what_is_no_secret_in_a_remote_is_left_as_it_is(tmp_path):
    for remote in ("s3://bucket/store", "ssh://user@example.org/store", "https://example.org:8443/a@b"):
        assert remotes.remote(Settings(dvc_remote=remote)).public["url"] == remote
    assert remotes.redacted("https://user:pass@example.org:8443/a@b?key#part") == "https://example.org:8443/a@b"
    assert remotes.redacted(str(tmp_path)) == str(tmp_path)


def test_a_table_that_is_not_there_is_said(settings, task, tmp_path):
    with pytest.raises(StorageUnavailable):
        version_table(settings, task, tmp_path / "missing.parquet", "run-1")


def test_the_record_says_what_a_version_was_made_of_and_its_commit_holds_it(settings, task, table):
    made = version_table(settings, task, table, "run-1", NOON, 7)
    found = record(settings, task, made.version)
    assert (found.run, found.as_of, found.answers, found.rows, found.code) == ("run-1", NOON, 7, 2, __version__)
    assert (found.commit, found.remote) == (made.commit, settings.remote)
    shown = ["git", "-C", str(settings.versions), "show", "--stat", "--format=", made.commit]
    files = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert f"versions/{made.version}.json" in files and "training.parquet.dvc" in files
    assert record(settings, task, "unknown") is None


def test_a_table_that_comes_back_keeps_its_first_record(settings, task, table, tmp_path):
    first = version_table(settings, task, table, "run-1", NOON, 7)
    other = write_table(tmp_path / "other.parquet", pl.DataFrame({"x": [5.0]}))
    version_table(settings, task, other, "run-2", NOON + timedelta(days=1), 8)
    again = version_table(settings, task, table, "run-3", NOON + timedelta(days=2), 9)
    assert again == first and record(settings, task, first.version).run == "run-1"
    assert [one.run for one in records(settings, task)] == ["run-2", "run-1"]
    assert first.version in first.path.with_suffix(".parquet.dvc").read_text()
    assert status(settings) == ""


def test_a_record_of_a_newer_format_is_refused(settings, task, table):
    made = version_table(settings, task, table, "run-1")
    path = settings.versions / task.name / "versions" / f"{made.version}.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StorageUnavailable, match="format 2"):
        record(settings, task, made.version)


def test_without_git_the_version_is_recorded_and_no_git_is_there(task, table, tmp_path):
    settings = Settings(home=tmp_path / "home", git=False)
    made = version_table(settings, task, table, "run-1", NOON, 7)
    assert (made.commit, record(settings, task, made.version).run) == ("", "run-1")
    assert not (settings.versions / ".git").exists()
    assert "no_scm = True" in (settings.versions / ".dvc" / "config").read_text()
    made.path.unlink()
    shutil.rmtree(settings.versions / ".dvc" / "cache")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=settings.versions, check=True)
    assert made.path.read_bytes() == table.read_bytes()


def test_without_git_a_pointer_that_a_crash_left_gives_way_to_the_last_that_was_pushed(task, table, tmp_path):
    settings = Settings(home=tmp_path / "home", git=False)
    first = version_table(settings, task, table, "run-1")
    pointer = first.path.with_suffix(".parquet.dvc")
    text = pointer.read_text()
    pointer.write_text(text[:20])
    other = task.model_copy(update={"name": "other"})
    version_table(settings, other, table, "run-2")
    assert pointer.read_text() == text


def test_git_that_is_wanted_later_gets_a_commit_for_every_version_so_far(task, table, tmp_path):
    without = Settings(home=tmp_path / "home", git=False)
    first = version_table(without, task, table, "run-1", NOON, 7)
    write_table(table, pl.DataFrame({"x": [9.0]}))
    second = version_table(without, task, table, "run-2", NOON + timedelta(days=1), 8)
    settings = Settings(home=tmp_path / "home")
    assert version_table(settings, task, table, "run-3").version == second.version
    assert [line.rpartition(" ")[2] for line in log(settings) if "Version" in line] == ["run-2", "run-1"]
    commit = record(settings, task, first.version).commit
    shown = ["git", "-C", str(settings.versions), "show", f"{commit}:{task.name}/training.parquet.dvc"]
    assert first.version in subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert version_table(without, task, table, "run-4").version == second.version


def test_a_crash_between_record_and_commit_is_healed_in_the_name_of_the_run_that_pushed(
    settings, task, table, monkeypatch
):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "commit_version", crash)
        with pytest.raises(KeyboardInterrupt):
            version_table(settings, task, table, "run-1")
    write_table(table, pl.DataFrame({"x": [9.0]}))
    version_table(settings, task, table, "run-2")
    assert [line.rpartition(" ")[2] for line in log(settings) if "Version" in line] == ["run-2", "run-1"]
    assert status(settings) == ""


def test_a_full_disk_fails_the_step_and_says_so_and_nothing_is_recorded(settings, task, root, tmp_path):
    table = write_table(tmp_path / "large.parquet", pl.DataFrame({"x": np.random.default_rng(0).random(100_000)}))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from forecastle.data.versioning import version_table\n"
        "from forecastle.errors import StorageUnavailable\n"
        "from forecastle.settings import Settings\n"
        "from forecastle.task import load_task\n"
        "home, task, table = sys.argv[1:]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try: version_table(Settings(home=Path(home)), load_task(task), Path(table), 'run-1')\n"
        "except StorageUnavailable as error: print(error); sys.exit(error.exit_code)\n"
    )
    arguments = [str(settings.home), str(root / "tasks" / "nyc-temperature.toml"), str(table)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 4 and ("File too large" in done.stdout or "disk" in done.stdout), done.stderr
    assert list(settings.versions.glob("*/versions/*")) == []
    assert version_table(settings, task, table, "run-2").rows == 100_000


@pytest.mark.parametrize(("user", "secret"), [("alice", ""), ("", "hunter2")])
def test_half_a_login_is_refused(task, table, tmp_path, user, secret):
    half = Settings(home=tmp_path / "h", dvc_remote="https://example.org/x", dvc_user=user, dvc_secret=secret)
    with pytest.raises(SettingsError, match="together") as refused:
        version_table(half, task, table, "run-1")
    assert "hunter2" not in str(refused.value)


def test_an_endpoint_with_a_secret_is_refused(task, table, tmp_path):
    settings = Settings(home=tmp_path / "h", dvc_remote="s3://b/x", dvc_endpoint="https://a:hunter2@example.org")
    with pytest.raises(SettingsError, match="FORECASTLE_DVC_ENDPOINT") as refused:
        version_table(settings, task, table, "run-1")
    assert "hunter2" not in str(refused.value)


def test_no_secret_of_a_remote_is_left_in_a_text():
    azure = remotes.remote(Settings(dvc_remote="az://c/x", dvc_secret="AccountName=a;AccountKey=hunter2==;X=y"))
    assert azure.redact("key hunter2== was refused") == "key … was refused"
    assert azure.public == {"url": "azure://c/x"}
    web = remotes.remote(Settings(dagshub="a/b", dagshub_token="hunter2"))
    assert web.redact("at https://a:hunter2@dagshub.com/x with hunter2") == "at https://dagshub.com/x with …"
    assert web.public == {"url": "https://dagshub.com/a/b.dvc", "auth": "basic"}
    assert web.private == {"user": "a", "password": "hunter2"}
