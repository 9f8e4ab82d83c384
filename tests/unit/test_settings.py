"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecastle.errors import SettingsError
from forecastle.settings import load_settings, sealed_settings


def test_the_defaults_need_nothing_and_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.home == Path("data")
    assert settings.journal_url == f"sqlite:///{tmp_path / 'data' / 'journal.db'}"
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'data' / 'mlflow.db'}"
    assert settings.remote == str(tmp_path / "data" / "dvc-remote")
    assert settings.host == "127.0.0.1"


def test_the_environment_is_read_and_arguments_win(monkeypatch):
    monkeypatch.setenv("FORECASTLE_PORT", "9000")
    monkeypatch.setenv("FORECASTLE_JOURNAL", "postgresql://somewhere/journal")
    assert load_settings().port == 9000
    assert load_settings(port=9001).port == 9001
    assert load_settings().journal_url == "postgresql://somewhere/journal"


def test_a_setting_that_does_not_exist_is_named_with_the_nearest(monkeypatch):
    monkeypatch.setenv("FORECASTLE_PROT", "9000")
    with pytest.raises(SettingsError, match="FORECASTLE_PROT; did you mean 'FORECASTLE_PORT'"):
        load_settings()


def test_a_misspelt_name_in_the_env_file_is_named_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("OTHER=1\nforecastle_host=0.0.0.0\nFORECASTLE_PROT=9000\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="FORECASTLE_PROT in .env; did you mean 'FORECASTLE_PORT'"):
        load_settings()
    (tmp_path / ".env").write_text("OTHER=1\nforecastle_host=0.0.0.0\nFORECASTLE_PORT=9000\n", encoding="utf-8")
    assert (load_settings().host, load_settings().port) == ("0.0.0.0", 9000)


def test_every_bad_value_is_named(monkeypatch):
    monkeypatch.setenv("FORECASTLE_PORT", "many")
    monkeypatch.setenv("FORECASTLE_HTTP_TIMEOUT", "-1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "FORECASTLE_PORT" in str(caught.value)
    assert "FORECASTLE_HTTP_TIMEOUT" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("75 a minute", "expected json"),
        ('{"alphavantage": {}}', "did you mean 'alpha-vantage'"),
        ('{"binance": {"per_minut": 3}}', "FORECASTLE_BUDGETS.BINANCE.PER_MINUT"),
        ('{"binance": {"per_minute": 0}}', "greater than 0"),
        ("[1]", "dictionary"),
    ],
)
def test_a_budget_that_cannot_be_is_named(monkeypatch, given, said):
    monkeypatch.setenv("FORECASTLE_BUDGETS", given)
    with pytest.raises(SettingsError, match=said):
        load_settings()


def test_budgets_are_read_from_json(monkeypatch):
    monkeypatch.setenv("FORECASTLE_BUDGETS", '{"alpha-vantage": {"per_minute": 75}}')
    assert load_settings().budgets["alpha-vantage"].per_minute == 75
    monkeypatch.setenv("FORECASTLE_BUDGETS", "")
    assert load_settings().budgets == {}


def test_a_dagshub_repository_names_both_its_dvc_remote_and_its_mlflow_server():
    settings = load_settings(dagshub="alice/weather", dagshub_token="t0ken")
    assert settings.remote == "https://dagshub.com/alice/weather.dvc"
    assert settings.tracking_uri == "https://dagshub.com/alice/weather.mlflow"
    assert settings.dvc_login == settings.dagshub_login == ("alice", "t0ken")
    assert "t0ken" not in repr(settings)
    other = load_settings(dagshub="alice/weather", dvc_remote="/store", mlflow_uri="http://127.0.0.1:5000")
    assert (other.remote, other.tracking_uri, other.dvc_login) == ("/store", "http://127.0.0.1:5000", ("", ""))


@pytest.mark.parametrize("name", ["weather", "https://dagshub.com/alice/weather", "alice/weather/x", "a b/c"])
def test_a_dagshub_repository_that_cannot_be_is_refused(name):
    with pytest.raises(SettingsError, match="owner/name"):
        _ = load_settings(dagshub=name, dagshub_token="t0ken").remote


def test_dagshub_without_a_token_is_refused_by_name():
    with pytest.raises(SettingsError, match="FORECASTLE_DAGSHUB_TOKEN"):
        _ = load_settings(dagshub="alice/weather").dvc_login


def test_sealed_settings_are_told_nothing_by_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("FORECASTLE_STORES=s3://production/forecastle\n")
    monkeypatch.setenv("FORECASTLE_ALERT_URLS", "slack://production")
    monkeypatch.setenv("FORECASTLE_AIRFLOW_URL", "https://airflow.example.org")
    found = sealed_settings(home=tmp_path, port=0)
    assert (found.home, found.port, found.stores, found.airflow_url) == (tmp_path, 0, "", "")
    assert found.alert_addresses == ()
    assert load_settings().stores == "s3://production/forecastle"
