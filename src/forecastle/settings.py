"""Where things lie and what is secret: every environment variable, once. The only reader of ``os.environ``.

A value that changes a forecast belongs in the task file, never here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from forecastle.declaration import Budget
from forecastle.errors import SettingsError
from forecastle.task import Provider, nearest

PREFIX = "FORECASTLE_"

SECRETS = Path("/run/secrets")
"""Where containers find secrets: a file named as the setting in lower case (forecastle_journal) holds its value."""

LIBRARY_DEFAULTS = {  # what libraries read from the environment when they are imported, where the user does not say
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where --json speaks
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "YDATA_PROFILING_NO_ANALYTICS": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning take a busy machine from those they wait for
}


def _read_budgets(given: object) -> object:
    """Read FORECASTLE_BUDGETS; pydantic checks each budget."""
    try:
        read = json.loads(given or "{}") if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"expected JSON, found {given!r} ({error})") from None
    providers = get_args(Provider)
    for name in read if isinstance(read, dict) else ():
        if name not in providers:
            raise ValueError(f"there is no provider {name!r}{nearest(str(name), providers)}")
    return read


class Settings(BaseSettings):
    """The settings of one installation, read from ``FORECASTLE_*`` variables and a ``.env`` file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", frozen=True, extra="ignore")

    home: Path = Field(default=Path("data"), description="Folder that holds the stores of every task.")
    stores: str = Field(
        default="",
        description="Where archive and history lie: a folder, `s3://bucket/prefix` or `az://container/prefix`; "
        "empty: the home folder.",
    )
    stores_endpoint: str = Field(
        default="", description="Address of the S3 or Azure Blob server; empty: the provider's."
    )
    stores_region: str = Field(default="", description="Region of the S3 server.")
    stores_key_id: str = Field(default="", description="Access key id of S3, or the account's name of Azure Blob.")
    stores_secret: SecretStr = Field(default=SecretStr(""), description="Secret access key, or the account's key.")
    stores_allow_http: bool = Field(default=False, description="Whether that server may be spoken to without TLS.")
    journal: str = Field(default="", description="SQLAlchemy URL of the journal; empty: SQLite in the home folder.")
    mlflow_uri: str = Field(default="", description="MLflow tracking URI; empty: SQLite in the home folder.")
    mlflow_registry: str = Field(
        default="",
        description="MLflow registry URI where the tracking server has no model registry; empty: the tracking server.",
    )
    dvc_remote: str = Field(
        default="",
        description="DVC remote: a folder, `s3://…`, `azure://…`, `https://…`; empty: DagsHub's, or a folder in the "
        "home folder.",
    )
    dvc_endpoint: str = Field(default="", description="Address of the S3-compatible server of that remote.")
    dvc_region: str = Field(default="", description="Region of that server.")
    dvc_user: str = Field(
        default="", description="Name at that remote: access key (S3), account (Azure), user (HTTP, WebDAV, SSH)."
    )
    dvc_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Secret at that remote: secret key (S3), account key or, without a name, connection string "
        "(Azure), password or token (HTTP, WebDAV, SSH).",
    )
    profile: Literal["full", "plain"] = Field(
        default="full",
        description="`full` adds to the profile a page a series by fg-data-profiling (extra `profile`).",
    )
    git: bool = Field(default=True, description="Commit the pointers of versioned data to git; `false` needs no git.")
    dagshub: str = Field(
        default="", description="DagsHub repository as `owner/name`: its DVC remote and its MLflow server are used."
    )
    dagshub_url: str = Field(default="https://dagshub.com", description="Base address of DagsHub.")
    dagshub_user: str = Field(default="", description="User name at DagsHub; empty: the repository's owner.")
    dagshub_token: SecretStr = Field(default=SecretStr(""), description="Access token at DagsHub.")
    github_url: str = Field(default="https://api.github.com", description="Base address of GitHub's API.")
    github_token: SecretStr = Field(
        default=SecretStr(""), description="Token with which reports are posted to pull requests."
    )
    github_login: str = Field(
        default="github-actions[bot]",
        description="Login of that token's owner: only comments of theirs are taken for ours and brought up to date.",
    )
    commit: str = Field(
        default="",
        description="Git commit of the code, for the records of trainings (empty: that of the checkout) and for "
        "`/health`; images know theirs.",
    )
    git_name: str = Field(default="forecastle", description="Author name of the commits that version data.")
    git_email: str = Field(default="forecastle@localhost", description="Author address of those commits.")
    open_meteo_url: str = Field(
        default="https://api.open-meteo.com", description="Base address of Open-Meteo's forecast API."
    )
    open_meteo_archive_url: str = Field(
        default="https://archive-api.open-meteo.com", description="Base address of Open-Meteo's archive API."
    )
    open_meteo_air_quality_url: str = Field(
        default="https://air-quality-api.open-meteo.com", description="Base address of Open-Meteo's air quality API."
    )
    openweathermap_url: str = Field(
        default="https://api.openweathermap.org", description="Base address of OpenWeatherMap's API."
    )
    openweathermap_key: SecretStr = Field(default=SecretStr(""), description="Key of OpenWeatherMap's API.")
    alpha_vantage_url: str = Field(
        default="https://www.alphavantage.co", description="Base address of Alpha Vantage's API."
    )
    alpha_vantage_key: SecretStr = Field(default=SecretStr(""), description="Key of Alpha Vantage's API.")
    twelve_data_url: str = Field(default="https://api.twelvedata.com", description="Base address of Twelve Data's API.")
    twelve_data_key: SecretStr = Field(default=SecretStr(""), description="Key of Twelve Data's API.")
    binance_url: str = Field(default="https://api.binance.com", description="Base address of Binance's spot API.")
    departures_url: str = Field(
        default="http://127.0.0.1:8010", description="Base address of the departures that `forecastle replay` serves."
    )
    gtfs_realtime_key: SecretStr = Field(
        default=SecretStr(""), description="Key of a GTFS-realtime feed whose task names a `key_param`."
    )
    http_json_key: SecretStr = Field(
        default=SecretStr(""), description="Key of an API that a task file declares under `[source.http_json]`."
    )
    budgets: Annotated[dict[str, Budget], NoDecode, BeforeValidator(_read_budgets)] = Field(
        default={},
        validate_default=True,
        description="What paid keys may ask, as JSON by provider, such as "
        '`{"alpha-vantage": {"per_minute": 75}}`; see [collecting](collecting.md).',
    )
    http_timeout: float = Field(default=20.0, gt=0, description="Seconds a source may take to answer.")
    http_attempts: int = Field(default=4, ge=1, description="Tries per request before a source counts as unavailable.")
    http_max_bytes: int = Field(default=50_000_000, gt=0, description="Largest answer accepted, in bytes.")
    alert_urls: SecretStr = Field(
        default=SecretStr(""),
        description="Whom the embedded rules tell of incidents: Apprise addresses, separated by blanks, such as "
        "`slack://…`, `mailto://…`, `json://…`; empty: the log. See [incidents](incidents.md).",
    )
    runbook_url: str = Field(
        default="docs/incidents.md",
        description="Where [the incident handbook](incidents.md) is published, such as `https://…/incidents.html`; "
        "every alert links to its part of it.",
    )
    service_url: str = Field(
        default="",
        description="Address of the running service, such as `http://127.0.0.1:8000`, whose metrics the embedded rules "
        "look at too (is it up, how long do predictions take); empty: Prometheus alone does.",
    )
    service_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that may read there, where that service asks for keys; one of `forecastle new-key`.",
    )
    model_source: Literal["registry", "image"] = Field(
        default="registry",
        description="Which champion serves: `registry` the published one, and the baked one where that cannot be "
        "reached; `image` the baked one alone.",
    )
    baked: str = Field(
        default="", description="Folder of the champions that an image carries (`forecastle bake`); empty: none."
    )
    host: str = Field(default="127.0.0.1", description="Address the service listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the service listens on; 0 takes a free one.")
    pages_url: str = Field(
        default="",
        description="Address at which a browser finds the home folder, for links to its pages; empty: file addresses.",
    )
    bin: str = Field(
        default="",
        description="For Airflow's DAGs: this command in its own environment, as an absolute path; see "
        "[Airflow](airflow.md).",
    )
    tasks: str = Field(default="", description="For Airflow's DAGs: the folder of the task files.")
    airflow_url: str = Field(default="", description="Base address of Airflow's API server.")
    airflow_user: str = Field(default="admin", description="User name at Airflow.")
    airflow_password: SecretStr = Field(default=SecretStr(""), description="Password of that user.")
    airflow_token: SecretStr = Field(
        default=SecretStr(""), description="Token at Airflow; with one, user and password are not needed."
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Keys of the service, separated by commas: what `forecastle new-key` prints of each; see "
        "[the service](service.md).",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of such keys, a line each; it is read again when it changes."
    )
    serve_without_keys: bool = Field(
        default=False, description="Let the service listen beyond this machine though it asks nobody for a key."
    )
    hosts: str = Field(
        default="",
        description="Names, separated by commas, by which a service that is open to this machine alone may be asked "
        "besides this machine's own, such as that of a proxy on it.",
    )
    max_body: int = Field(default=10_000_000, gt=0, description="Largest body of a request to the service, in bytes.")
    keep_archive: int = Field(
        default=0, ge=0, description="Days archived answers are kept by `forecastle prune`; 0 keeps them for ever."
    )
    keep_quarantine: int = Field(default=0, ge=0, description="Days quarantined batches are kept; 0: for ever.")
    keep_journal: int = Field(
        default=0, ge=0, description="Days scored forecasts and closed incidents are kept; 0: for ever."
    )
    keep_models: int = Field(
        default=0, ge=0, description="Days superseded models and their MLflow runs are kept; 0: for ever."
    )
    keep_runs: int = Field(
        default=90, ge=0, description="Days the working folders and reports of runs are kept; 0: for ever."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="How much is logged.")

    @property
    def alert_addresses(self) -> tuple[str, ...]:
        """Whom to tell of incidents; each may hold a secret."""
        return tuple(self.alert_urls.get_secret_value().split())

    @property
    def journal_url(self) -> str:
        """The journal's database address."""
        return self.journal or f"sqlite:///{(self.home / 'journal.db').resolve()}"

    @property
    def tracking_uri(self) -> str:
        """The address of MLflow's tracking store and registry."""
        return self.mlflow_uri or self.at_dagshub("mlflow") or self.own_registry

    @property
    def registry_uri(self) -> str:
        """The address of MLflow's model registry."""
        return self.mlflow_registry or self.tracking_uri

    @property
    def own_registry(self) -> str:
        """The address of a registry in the home folder, for a tracking server that has none."""
        return f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def remote(self) -> str:
        """The address of the DVC remote."""
        return self.dvc_remote or self.at_dagshub("dvc") or str((self.home / "dvc-remote").resolve())

    def at_dagshub(self, what: str) -> str:
        """The address of what DagsHub offers for its repository: ``dvc`` or ``mlflow``; empty where none is set."""
        repository = self.dagshub.strip("/").removesuffix(".git")
        if repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise SettingsError(
                f"{PREFIX}DAGSHUB as owner/name", repr(self.dagshub), "Write it like alice/weather, without a host."
            )
        return f"{self.dagshub_url.rstrip('/')}/{repository}.{what}" if repository else ""

    @property
    def dvc_login(self) -> tuple[str, str]:
        """Name and secret at the DVC remote, to be sent and never shown; each may be empty."""
        if not self.dvc_remote and self.dagshub:
            return self.dagshub_login
        return self.dvc_user, self.dvc_secret.get_secret_value().strip()

    @property
    def dagshub_login(self) -> tuple[str, str]:
        """Name and token at DagsHub, to be sent and never shown."""
        return self.dagshub_user or self.dagshub.partition("/")[0], self.secret("dagshub_token")

    @property
    def versions(self) -> Path:
        """The git and DVC workspace that holds the versioned training tables."""
        return (self.home / "versions").resolve()

    def secret(self, name: str) -> str:
        """Return a key or token, to be sent and never shown. Raises SettingsError where it is not set."""
        key: SecretStr = getattr(self, name)
        if not key.get_secret_value().strip():
            raise SettingsError(
                f"a key or token in {PREFIX}{name.upper()}", "none", "Get one from its issuer and set that variable."
            )
        return key.get_secret_value().strip()

    def page(self, path: Path) -> str:
        """Return the address at which a browser finds a file of the home folder."""
        if not self.pages_url:
            return path.resolve().as_uri()
        return f"{self.pages_url.rstrip('/')}/{path.relative_to(self.home).as_posix()}"

    def task_folder(self, task: str) -> Path:
        """The folder of one task's archive, history, quarantine, runs, reports and published models."""
        return self.home / task


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment, ``.env`` and files of SECRETS, in that order; overrides win.

    Raises SettingsError naming every bad one.
    """
    import os

    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    in_file = {name.upper(): " in .env" for name in DotEnvSettingsSource(Settings).env_vars}
    places = {**in_file, **dict.fromkeys(map(str.upper, os.environ), "")}
    strange = sorted(name for name in places if name.startswith(PREFIX) and name not in known)
    if strange:
        listing = "; ".join(f"{name}{places[name]}{nearest(name, known)}" for name in strange)
        raise SettingsError(
            f"only settings that exist ({PREFIX}…)", listing, "Rename or unset them; see docs/settings.md."
        )
    try:
        return Settings(_secrets_dir=SECRETS if SECRETS.is_dir() else None, **overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        listing = "; ".join(
            f"{PREFIX}{'.'.join(map(str, entry['loc'])).upper()}: {entry['msg'].lower()}" for entry in error.errors()
        )
        raise SettingsError("valid settings", listing, "Mend the environment or the .env file.") from None


def sealed_settings(**given: object) -> Settings:
    """Return settings that neither the environment nor any file has a say in: what is run with them reaches nobody's
    stores, alerts or services but those given."""
    return _Sealed(**given)  # type: ignore[arg-type]


class _Sealed(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that is started: this process's, and what it is told of its own."""
    import os

    return {**os.environ, **own}


def apply_library_defaults(settings: Settings | None = None) -> None:
    """Set LIBRARY_DEFAULTS where the environment says nothing: no telemetry, bounded waiting for a dead server.

    Where the settings have MLflow at DagsHub, its user and token are set too: MLflow takes them from nowhere else.
    """
    import os

    for name, value in LIBRARY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if settings is not None and not settings.mlflow_uri and settings.dagshub:
        user, token = settings.dagshub_login
        os.environ.update(MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=token)
