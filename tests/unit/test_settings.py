"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecastle.errors import SettingsError
from forecastle.settings import load_settings


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
