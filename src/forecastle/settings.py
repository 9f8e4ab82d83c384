"""Where things lie and what is secret: every environment variable, once. The only reader of ``os.environ``.

A value that changes a forecast belongs in the task file, never here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from forecastle.errors import SettingsError
from forecastle.task import nearest

PREFIX = "FORECASTLE_"

LIBRARY_DEFAULTS = {  # what libraries read from the environment when they are imported, where the user does not say
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning take a busy machine from those they wait for
}


class Settings(BaseSettings):
    """The settings of one installation, read from ``FORECASTLE_*`` variables and a ``.env`` file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", frozen=True, extra="ignore")

    home: Path = Field(default=Path("data"), description="Folder that holds the stores of every task.")
    journal: str = Field(default="", description="SQLAlchemy URL of the journal; empty: SQLite in the home folder.")
    mlflow_uri: str = Field(default="", description="MLflow tracking URI; empty: SQLite in the home folder.")
    dvc_remote: str = Field(default="", description="DVC remote; empty: a folder in the home folder.")
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
    gtfs_realtime_key: SecretStr = Field(
        default=SecretStr(""), description="Key of a GTFS-realtime feed whose task names a `key_param`."
    )
    http_json_key: SecretStr = Field(
        default=SecretStr(""), description="Key of an API that a task file declares under `[source.http_json]`."
    )
    http_timeout: float = Field(default=20.0, gt=0, description="Seconds a source may take to answer.")
    http_attempts: int = Field(default=4, ge=1, description="Tries per request before a source counts as unavailable.")
    http_max_bytes: int = Field(default=50_000_000, gt=0, description="Largest answer accepted, in bytes.")
    host: str = Field(default="127.0.0.1", description="Address the service listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the service listens on; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="How much is logged.")

    @property
    def journal_url(self) -> str:
        """The journal's database address."""
        return self.journal or f"sqlite:///{(self.home / 'journal.db').resolve()}"

    @property
    def tracking_uri(self) -> str:
        """The address of MLflow's tracking store and registry."""
        return self.mlflow_uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def remote(self) -> str:
        """The address of the DVC remote."""
        return self.dvc_remote or str((self.home / "dvc-remote").resolve())

    @property
    def versions(self) -> Path:
        """The git and DVC workspace that holds the versioned training tables."""
        return (self.home / "versions").resolve()

    def secret(self, name: str) -> str:
        """Return a source's key, to be sent and never shown. Raises SettingsError where it is not set."""
        key: SecretStr = getattr(self, name)
        if not key.get_secret_value().strip():
            raise SettingsError(
                f"the source's key in {PREFIX}{name.upper()}", "none", "Get one from the source and set that variable."
            )
        return key.get_secret_value().strip()

    def task_folder(self, task: str) -> Path:
        """The folder of one task's archive, history, quarantine, runs, reports and published models."""
        return self.home / task


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment and ``.env``; overrides win. Raises SettingsError naming every bad one."""
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
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        listing = "; ".join(
            f"{PREFIX}{'.'.join(map(str, entry['loc'])).upper()}: {entry['msg'].lower()}" for entry in error.errors()
        )
        raise SettingsError("valid settings", listing, "Mend the environment or the .env file.") from None


def apply_library_defaults() -> None:
    """Set LIBRARY_DEFAULTS where the environment says nothing: no telemetry, bounded waiting for a dead server."""
    import os

    for name, value in LIBRARY_DEFAULTS.items():
        os.environ.setdefault(name, value)
