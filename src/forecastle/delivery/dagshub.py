"""DagsHub: git, DVC and MLflow of one repository, connected by address and tried one by one.

Its tracking server may be older than the MLflow of this installation. What it lacks is found out by asking, said, and
done elsewhere: the model registry is then kept in the home folder. See docs/dagshub.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from forecastle.data import remotes, versioning
from forecastle.errors import ForecastleError, OutsideError, RegistryUnavailable, SettingsError, StorageUnavailable
from forecastle.http import Answer, Client, Request, excerpt, without_password
from forecastle.settings import PREFIX, Settings, load_settings

GIT_REMOTE = "dagshub"
REGISTRY = "registry"
REFUSED, ABSENT = (401, 403), (404, 405)
ARTIFACTS = "mlflow-artifacts:/"
MARK = "forecastle-connects"


@dataclass(frozen=True)
class Finding:
    """What came of trying one thing: whether it works, where it is, what it can do or why it cannot.

    ``lacks`` marks something the server does not have and that is done elsewhere: no failure, and to be said loudly.
    """

    what: str
    works: bool
    address: str
    said: str
    lacks: bool = False
    error: ForecastleError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: getattr(self, name) for name in ("what", "works", "address", "said", "lacks")}


@dataclass(frozen=True)
class Hub:
    """A repository at DagsHub as somebody who has a token sees it."""

    settings: Settings
    client: Client
    now: datetime

    def ask(self, path: str, method: str = "GET", body: Mapping[str, Any] | None = None, **params: str) -> Answer:
        """Return the answer to a path that begins with ``.git`` or ``.mlflow``; the token is in no part of it."""
        user, token = self.settings.dagshub_login
        login = base64.b64encode(f"{user}:{token}".encode()).decode()
        first, _, rest = path.lstrip(".").partition("/")
        return self.client.send(
            Request(
                f"{self.settings.at_dagshub(first)}/{rest}",
                params,
                headers={"authorization": f"Basic {login}"},
                method=method,
                body=body,
                hidden=(token, login),
            )
        )

    def mlflow(self, path: str, method: str = "GET", body: Mapping[str, Any] | None = None, **params: str) -> Answer:
        """Return the answer of MLflow's REST API."""
        return self.ask(f".mlflow/api/2.0/{path}", method, body, **params)


def connect(settings: Settings, client: Client, now: datetime) -> Iterator[Finding]:
    """Write down where DagsHub is, and try everything; yields what came of each as it is known.

    Written are ``.env`` in the working folder (addresses, no secret), the git and DVC remotes of the workspace of
    versioned tables, and, into a file that git ignores, the login for plain DVC. Nothing is written where the
    repository is not there or the token does not let us in: SettingsError. Doing it again does no harm.
    """
    hub = Hub(settings, client, now)
    _enter(hub)
    remotes.remote(settings)  # raises where an address holds a secret, which would be committed
    write_env(_addresses(settings))
    yield from _settings(settings)
    workspace = versioning.connect(settings, (GIT_REMOTE, settings.at_dagshub("git")), local_login=True)
    for what, tried in (("git", _git(hub, workspace)), ("dvc", _dvc(settings)), ("mlflow", _tracking(hub))):
        try:
            for finding in tried:
                if finding.what == REGISTRY and finding.lacks and not settings.mlflow_registry:
                    write_env({"mlflow_registry": settings.own_registry})
                yield finding
        except OutsideError as error:
            yield Finding(what, False, settings.at_dagshub(what), error.found, error=error)


def write_env(values: Mapping[str, str], path: Path = Path(".env")) -> Path:
    """Write settings into a ``.env`` file, each in the place of one of its name; the rest stays as it is."""
    from dotenv import set_key

    for name, value in values.items():
        set_key(path, f"{PREFIX}{name.upper()}", value, quote_mode="auto")
    return path


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the settings that say where DagsHub is: those a default does not say already."""
    given = {name: getattr(settings, name) for name in ("dagshub", "dagshub_url", "dagshub_user")}
    return {name: value for name, value in given.items() if value != Settings.model_fields[name].default}


def _enter(hub: Hub) -> None:
    """Raise SettingsError where the repository is not there or the token does not open it."""
    address, base = hub.settings.at_dagshub("git"), hub.settings.dagshub_url
    if without_password(base) != base:
        raise SettingsError(
            f"{PREFIX}DAGSHUB_URL without a name or password, since it is written into files",
            without_password(base),
            f"Put the token into {PREFIX}DAGSHUB_TOKEN.",
        )
    answer = hub.ask(".git/info/refs", service="git-upload-pack")
    if answer.status in REFUSED:
        raise SettingsError(
            f"a token in {PREFIX}DAGSHUB_TOKEN that opens {address}",
            f"HTTP {answer.status} for user {hub.settings.dagshub_login[0]!r}",
            f"Make a new token at {hub.settings.dagshub_url}/user/settings/tokens, or set {PREFIX}DAGSHUB_USER.",
        )
    if answer.status in ABSENT:
        raise SettingsError(
            f"a repository at {address}", "none that this token may see", "Create it, or mend OWNER/REPO."
        )
    if answer.status != 200:
        raise StorageUnavailable(f"git at {address} to answer", _said(answer), "Try again later.")


def _settings(settings: Settings) -> Iterator[Finding]:
    """Say where the environment names another place than what has been written, since it wins."""
    seen, wanted = load_settings().at_dagshub("git"), settings.at_dagshub("git")
    if seen != wanted:
        said = f"the environment says {seen}, and wins over .env"
        yield Finding(
            "settings", False, wanted, said, error=SettingsError(wanted, said, f"Unset {PREFIX}DAGSHUB and _URL there.")
        )


def _git(hub: Hub, workspace: Path) -> Iterator[Finding]:
    address = hub.settings.at_dagshub("git")
    if not hub.settings.git:
        yield Finding("git", True, address, f"can be read; no remote was named, since {PREFIX}GIT is false")
        return
    pushed = hub.ask(".git/info/refs", service="git-receive-pack")
    if pushed.status == 200:
        push = f"git -C {workspace} push {GIT_REMOTE} main"
        yield Finding("git", True, address, f"can be read and takes pushes: {push}")
    else:
        yield _failed("git", address, pushed, f"a push to {address} to be allowed")


def _dvc(settings: Settings) -> Iterator[Finding]:
    address = versioning.try_remote(settings)
    yield Finding("dvc", True, address, "took a few bytes and gave them back")


def _tracking(hub: Hub) -> Iterator[Finding]:
    """Yield what MLflow at DagsHub takes: runs, their files, models, and what came with MLflow 3."""
    address = hub.settings.at_dagshub("mlflow")
    if hub.settings.tracking_uri != address:
        yield Finding("mlflow", True, address, f"NOT USED: {PREFIX}MLFLOW_URI names another server", lacks=True)
        return
    place = _runs(hub, address)
    if isinstance(place, Finding):
        yield place
        return
    version = _version(hub)
    yield Finding("mlflow", True, address, f"takes runs (version {version})" if version else "takes runs")
    yield _files(hub, address, place)
    yield _models(hub, address)
    answer = hub.mlflow("mlflow/logged-models/m-0")
    if answer.status == 200 or _json(answer).get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        yield Finding("logged models", True, address, "has the logged models that MLflow 3 brought")
    else:
        said = "NO LOGGED MODELS: this server is older than MLflow 3; a model is a folder among the files of its run"
        yield Finding("logged models", True, address, said, lacks=True)


def _models(hub: Hub, address: str) -> Finding:
    settings = hub.settings
    kept = f"versions and aliases are kept in {without_password(settings.mlflow_registry or settings.own_registry)}"
    answer = hub.mlflow("mlflow/registered-models/search", max_results="1")
    if answer.status == 200:
        elsewhere = f", but {kept}, as {PREFIX}MLFLOW_REGISTRY says" if settings.mlflow_registry else ""
        return Finding(REGISTRY, True, address, f"has a model registry{elsewhere}", lacks=bool(elsewhere))
    if answer.status in ABSENT:
        return Finding(REGISTRY, True, address, f"NO MODEL REGISTRY on this old server: {kept}", lacks=True)
    return _failed(REGISTRY, address, answer)


def _runs(hub: Hub, address: str) -> str | Finding:
    """Make a run and remove it again; return where its files would lie, or what went wrong."""
    answer = hub.mlflow("mlflow/experiments/search", max_results="1")
    if answer.status != 200:
        return _failed("mlflow", address, answer, f"MLflow at {address} to take runs")
    found = _json(answer).get("experiments", [])
    if found:
        experiment = found[0]["experiment_id"]
    else:
        experiment = _json(hub.mlflow("mlflow/experiments/create", "POST", {"name": MARK})).get("experiment_id", "0")
    started = {"experiment_id": experiment, "run_name": MARK, "start_time": int(hub.now.timestamp() * 1000)}
    answer = hub.mlflow("mlflow/runs/create", "POST", started)
    if answer.status != 200:
        return _failed("mlflow", address, answer, f"MLflow at {address} to take runs")
    run = _json(answer)["run"]["info"]
    hub.mlflow("mlflow/runs/delete", "POST", {"run_id": run["run_id"]})
    return str(run["artifact_uri"])


def _files(hub: Hub, address: str, place: str) -> Finding:
    """Leave a file where a run's files lie, and remove it again."""
    if not place.startswith(ARTIFACTS):
        return Finding(
            "files", True, place.partition("?")[0], "not tried: this machine writes there with a login of its own"
        )
    path = f"mlflow-artifacts/artifacts/{place.removeprefix(ARTIFACTS).lstrip('/')}/{MARK}.json"
    written = hub.mlflow(path, "PUT", {"written_by": "forecastle"})
    if written.status != 200:
        return _failed("files", address, written)
    read = hub.mlflow(path)
    hub.mlflow(path, "DELETE")
    if read.status != 200 or _json(read) != {"written_by": "forecastle"}:
        return _failed("files", address, read)
    return Finding("files", True, address, "takes the files of runs and gives them back")


def _version(hub: Hub) -> str:
    """Return MLflow's version as the server tells it; empty where it does not."""
    answer = hub.ask(".mlflow/version")
    text = answer.body.decode("ascii", errors="replace").strip()
    return text if answer.status == 200 and text[:1].isdigit() and len(text) < 20 else ""


def _failed(what: str, address: str, answer: Answer, expected: str = "") -> Finding:
    said, expected = _said(answer), expected or f"MLflow at {address} to take {what}"
    if answer.status in REFUSED:
        error: ForecastleError = SettingsError(expected, said, "Give the token the right to write, or ask the owner.")
    else:
        error = RegistryUnavailable(expected, said, "Try again later.")
    return Finding(what, False, address, said, error=error)


def _said(answer: Answer) -> str:
    return f"HTTP {answer.status}: {excerpt(answer.body, 120)}"


def _json(answer: Answer) -> dict[str, Any]:
    """Return a body that is a JSON object; of anything else an empty one."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
