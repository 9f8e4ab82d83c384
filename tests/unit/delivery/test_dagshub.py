"""What connecting with DagsHub writes, and how it says what came of each try. Real servers are in tests/e2e."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forecastle.data.versioning import connect as connect_workspace
from forecastle.delivery.dagshub import Finding, connect, write_env
from forecastle.errors import OutsideError, SettingsError
from forecastle.http import Client, asgi_transport
from forecastle.settings import Settings

TOKEN = "hunter2hunter2"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
RUN = {"run": {"info": {"run_id": "r", "artifact_uri": "mlflow-artifacts:/0/r/artifacts"}}}
NOTHING = JSONResponse({"error_code": "RESOURCE_DOES_NOT_EXIST"}, 404)

# what a good repository answers, by the end of the path
GOOD: dict[str, Callable[[Request], Response]] = {
    "weather.git/info/refs": lambda asked: Response("refs"),
    "experiments/search": lambda asked: JSONResponse({"experiments": [{"experiment_id": "0"}]}),
    "runs/create": lambda asked: JSONResponse(RUN),
    "runs/delete": lambda asked: JSONResponse({}),
    "forecastle-connects.json": lambda asked: JSONResponse({"written_by": "forecastle"}),
    "registered-models/search": lambda asked: JSONResponse({}),
    "logged-models/m-0": lambda asked: NOTHING,
    ".mlflow/version": lambda asked: Response("3.17.2"),
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tried(changes: dict[str, Callable[[Request], Response]] | None = None, **given: object) -> dict[str, Finding]:
    """Connect with a repository that answers well, but for the changes; tables lie in a folder."""
    answers = GOOD | (changes or {})

    async def answer(asked: Request) -> Response:
        for end, made in answers.items():
            if asked.url.path.endswith(end):
                return made(asked)
        return Response("404 page not found", 404)

    methods = ["GET", "POST", "PUT", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    found: dict[str, object] = {"dagshub": "alice/weather", "dagshub_token": TOKEN, "dvc_remote": "remote"}
    settings = Settings(**(found | given))
    with Client(settings, asgi_transport(app), lambda seconds: None) as client:
        return {one.what: one for one in connect(settings, client, NOON)}


def test_what_works_is_said_of_each() -> None:
    found = tried()
    assert list(found) == ["git", "dvc", "mlflow", "files", "registry", "logged models"]
    assert all(one.works and not one.lacks and one.error is None for one in found.values())
    assert found["mlflow"].said == "takes runs (version 3.17.2)"


def test_addresses_are_written_beside_what_the_file_says_already_and_the_token_is_not() -> None:
    env = Path(".env")
    env.write_text("# mine\nFORECASTLE_PORT=9000\nFORECASTLE_DAGSHUB=old/one\n")
    tried()
    tried()
    lines = env.read_text().splitlines()
    assert lines[:2] == ["# mine", "FORECASTLE_PORT=9000"] and len(lines) == 3
    assert Settings().dagshub == "alice/weather" and TOKEN not in env.read_text()


def test_the_workspace_has_the_git_remote_and_a_login_that_git_ignores() -> None:
    settings = Settings(dagshub="alice/weather", dagshub_token=TOKEN)
    remote = ("dagshub", settings.at_dagshub("git"))
    root = connect_workspace(settings, remote, local_login=True)
    assert connect_workspace(settings, remote, local_login=True) == root
    named = subprocess.run(["git", "-C", str(root), "remote", "-v"], capture_output=True, text=True).stdout
    assert named.splitlines()[0] == "dagshub\thttps://dagshub.com/alice/weather.git (fetch)"
    local = root / ".dvc" / "config.local"
    assert TOKEN in local.read_text() and local.stat().st_mode & 0o777 == 0o600
    listed = subprocess.run(["git", "-C", str(root), "status", "--short"], capture_output=True, text=True).stdout
    assert listed == "", "nothing is left to commit, the login least of all"


def test_a_remote_that_moves_elsewhere_takes_no_login_of_the_old_one_along() -> None:
    root = connect_workspace(Settings(dagshub="alice/weather", dagshub_token=TOKEN), local_login=True)
    local = root / ".dvc" / "config.local"
    local.write_text(f"[cache]\n    dir = /elsewhere\n{local.read_text()}")
    connect_workspace(Settings(dvc_remote="s3://bucket/tables"))
    assert TOKEN not in local.read_text() and "/elsewhere" in local.read_text()


def test_a_missing_registry_is_kept_here_and_written_down() -> None:
    absent = {"registered-models/search": lambda asked: Response("<html>", 404)}
    found = tried(absent | {"logged-models/m-0": lambda asked: Response("<html>", 404)})
    assert found["registry"].lacks and found["registry"].works and "NO MODEL REGISTRY" in found["registry"].said
    assert found["logged models"].lacks
    settings = Settings()
    assert settings.registry_uri == settings.own_registry != settings.tracking_uri


def test_a_registry_named_elsewhere_stays_and_its_password_is_not_shown() -> None:
    elsewhere = "postgresql://me:pass1@db/models"
    found = tried(mlflow_registry=elsewhere)
    assert found["registry"].lacks and "db/models" in found["registry"].said and "pass1" not in found["registry"].said
    assert "MLFLOW_REGISTRY" not in Path(".env").read_text()


@pytest.mark.parametrize(("status", "kind"), [(403, SettingsError), (500, OutsideError)])
def test_what_fails_is_said_with_its_error_and_the_rest_is_still_tried(status: int, kind: type[Exception]) -> None:
    found = tried({"experiments/search": lambda asked: Response(f"no {TOKEN}", status)})
    assert found["git"].works and found["dvc"].works and not found["mlflow"].works
    assert isinstance(found["mlflow"].error, kind)
    assert str(status) in found["mlflow"].said and TOKEN not in found["mlflow"].said


def test_a_token_that_may_not_push_is_told_so() -> None:
    def refs(asked: Request) -> Response:
        return Response("refs", 403 if asked.query_params["service"] == "git-receive-pack" else 200)

    found = tried({"weather.git/info/refs": refs})
    assert not found["git"].works and isinstance(found["git"].error, SettingsError)


def test_files_that_do_not_come_back_are_no_success() -> None:
    found = tried({"forecastle-connects.json": lambda asked: JSONResponse({"other": 1})})
    assert found["mlflow"].works and not found["files"].works


def test_files_that_lie_in_a_bucket_are_not_tried() -> None:
    info = {"run_id": "r", "artifact_uri": "s3://bucket/0/r/artifacts"}
    found = tried({"runs/create": lambda asked: JSONResponse({"run": {"info": info}})})
    assert found["files"].works and "not tried" in found["files"].said


def test_another_tracking_server_in_the_settings_is_left_alone_loudly() -> None:
    found = tried(mlflow_uri="http://127.0.0.1:1")
    assert list(found) == ["git", "dvc", "mlflow"]
    assert found["mlflow"].lacks and "NOT USED" in found["mlflow"].said


def test_an_environment_that_names_another_repository_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECASTLE_DAGSHUB", "bob/other")
    found = tried()
    assert not found["settings"].works and "bob/other" in found["settings"].said


@pytest.mark.parametrize(("status", "said"), [(401, "a token in"), (404, "a repository at"), (302, "to answer")])
def test_nothing_is_written_where_the_repository_does_not_open(tmp_path: Path, status: int, said: str) -> None:
    with pytest.raises((SettingsError, OutsideError), match=said):
        tried({"weather.git/info/refs": lambda asked: Response("no", status)})
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_the_address_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FORECASTLE_DAGSHUB_URL") as refused:
        tried(dagshub_url="https://alice:pass1@dagshub.com")
    assert "pass1" not in str(refused.value) and list(tmp_path.iterdir()) == []


def test_a_secret_in_the_address_of_the_tables_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FORECASTLE_DVC_REMOTE"):
        tried(dvc_remote="https://me:pass1@example.org/x")
    assert list(tmp_path.iterdir()) == []


def test_without_git_no_remote_is_named() -> None:
    found = tried(git=False)
    assert found["git"].works and "FORECASTLE_GIT is false" in found["git"].said
    assert not (Settings().versions / ".git").exists()


def test_a_setting_that_holds_a_space_or_a_mark_is_read_back_as_it_was() -> None:
    write_env({"mlflow_registry": "sqlite:////a folder/#1/mlflow.db"})
    assert Settings().mlflow_registry == "sqlite:////a folder/#1/mlflow.db"
