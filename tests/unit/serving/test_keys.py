"""API keys: what each scope opens, how keys come and go, and where the service will not listen without them."""

from __future__ import annotations

import os

import pytest

from forecastle.cli import main
from forecastle.errors import SettingsError
from forecastle.serving import keys
from forecastle.serving.app import create_app
from forecastle.settings import Settings, load_settings

TASK = "/v1/tasks/nyc-temperature"
ROUTES = {
    ("GET", TASK): "read",
    ("GET", f"{TASK}/forecasts/JFK"): "read",
    ("GET", "/metrics"): "read",
    ("GET", "/docs"): "read",
    ("GET", "/openapi.json"): "read",
    ("GET", "/v1/incidents"): "read",
    ("POST", f"{TASK}/predict"): "read",
    ("POST", f"{TASK}/observations"): "write",
    ("POST", "/v1/alerts"): "admin",
    ("DELETE", TASK): "admin",
}


@pytest.fixture
def issued() -> dict[str, tuple[str, str]]:
    """A key, and the line that is kept of it, for each scope."""
    return {scope: keys.make_key(scope, [scope]) for scope in keys.SCOPES}


@pytest.fixture
def guarded(filled, issued, task, clock):
    """The service of the filled stores, which asks for keys."""
    lines = ",".join(line for _, line in issued.values())
    return create_app(Settings(**filled.model_dump() | {"api_keys": lines}), [task], clock, poll_every=0)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/health", "/ready", "/login", "/static/page.css"])
def test_some_routes_are_open_to_everybody(guarded, get, path: str) -> None:
    assert get(guarded, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_other_route_needs_its_scope_and_no_other(guarded, get, issued, method: str, path: str) -> None:
    nobody = get(guarded, path, method)
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert nobody.headers["content-type"] == "application/problem+json"
    assert get(guarded, path, method, bearer("fck_guessed")).status_code == 401
    for scope, (key, _) in issued.items():
        status = get(guarded, path, method, bearer(key)).status_code
        assert (status not in (401, 403)) is (scope == ROUTES[method, path]), scope
        if scope != ROUTES[method, path]:
            assert status == 403


def test_a_key_may_come_in_a_header_of_its_own(guarded, get, issued) -> None:
    assert get(guarded, TASK, headers={"x-api-key": issued["read"][0]}).status_code == 200


def test_a_browser_enters_its_key_once_and_keeps_it_in_a_cookie_out_of_reach_of_scripts(guarded, get, issued) -> None:
    sent = get(guarded, "/", headers={"accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    assert get(guarded, "/login", "POST", data={"key": "wrong"}).status_code == 401
    assert get(guarded, "/login", "POST", data={"key": issued["write"][0]}).status_code == 401
    taken = get(guarded, "/login", "POST", data={"key": issued["read"][0]})
    assert (taken.status_code, taken.headers["location"]) == (303, "/")
    kept = taken.headers["set-cookie"]
    assert "HttpOnly" in kept and "SameSite=Strict" in kept
    cookie = {"cookie": kept.partition(";")[0]}
    assert get(guarded, "/", headers=cookie).status_code == 200
    assert get(guarded, "/fragment", headers=cookie).status_code == 200


def test_a_cookie_never_changes_anything(filled, task, clock, get) -> None:
    key, line = keys.make_key("all", keys.SCOPES)
    app = create_app(Settings(**filled.model_dump() | {"api_keys": line}), [task], clock, poll_every=0)
    cookie = {"cookie": f"{keys.COOKIE}={key}"}
    assert get(app, TASK, headers=cookie).status_code == 200
    for path in (f"{TASK}/observations", "/v1/alerts"):
        assert get(app, path, "POST", cookie).status_code == 401


def test_keys_in_a_file_are_read_again_and_old_and_new_may_overlap(tmp_path, settings, monkeypatch) -> None:
    monkeypatch.setattr(keys, "LOOK_AGAIN", 0.0)
    (old, old_line), (new, new_line) = keys.make_key("old", ["read"]), keys.make_key("new", ["read"])
    file = tmp_path / "keys"
    file.write_text(f"# who may read\n{old_line}  # until Friday\n")
    ring = keys.Keyring(settings.model_copy(update={"api_keys_file": file}))
    assert ring.find(old) and not ring.find(new)
    replace(file, f"{old_line}\n{new_line}\n")
    assert ring.find(old) and ring.find(new)
    replace(file, new_line)
    assert not ring.find(old) and ring.find(new)
    replace(file, "what is this")
    assert ring.find(new), "a file that cannot be read changes nothing"
    replace(file, "")
    assert not ring.find(new) and not ring.is_open, "a file without keys lets nobody in"


def replace(file, text: str) -> None:
    """Put another file in the place of this one, as a deployment does."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, file)


@pytest.mark.parametrize("text", ["hunter2", "a:read:12", "a:look:" + "0" * 64, "a b:read:" + "0" * 64])
def test_a_line_that_is_no_key_is_refused_without_being_shown(settings, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        keys.Keyring(Settings(**settings.model_dump() | {"api_keys": text}))
    assert "entry 1 of FORECASTLE_API_KEYS" in str(refused.value) and text not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_without_keys_the_service_listens_on_this_machine_alone_unless_told_so_in_so_many_words(
    settings, host: str, issued
) -> None:
    with pytest.raises(SettingsError, match="FORECASTLE_SERVE_WITHOUT_KEYS=true"):
        keys.require_keys(settings.model_copy(update={"host": host}))
    keys.require_keys(settings.model_copy(update={"host": host, "serve_without_keys": True}))
    keys.require_keys(Settings(**settings.model_dump() | {"host": host, "api_keys": issued["read"][1]}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_on_this_machine_it_needs_none(settings, host: str) -> None:
    keys.require_keys(settings.model_copy(update={"host": host}))


def test_the_command_prints_a_key_and_the_line_that_opens_the_service_to_it(capsys, monkeypatch) -> None:
    assert main(["new-key", "dashboard", "--scope", "read", "--scope", "write"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    monkeypatch.setenv("FORECASTLE_API_KEYS", said["line"])
    found = keys.Keyring(load_settings()).find(said["key"])
    assert found is not None and (found.name, found.scopes) == ("dashboard", {"read", "write"})
    assert said["key"] not in said["line"]
    assert main(["new-key", "dash board", "--scope", "read"]) == 2
    assert main(["new-key", "dashboard", "--scope", "look"]) == 2


OURS = [
    "127.0.0.1",
    "127.0.0.1:8000",
    "localhost:8000",
    "LOCALHOST",
    "[::1]:8000",
    "proxy.example:8000",
    "proxy.example",
]
OTHERS = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example:80",
    "0.0.0.0",
    "[x",
    "",
]


@pytest.mark.parametrize(("host", "status"), [*((one, 200) for one in OURS), *((one, 421) for one in OTHERS)])
def test_open_to_this_machine_alone_it_answers_by_the_names_of_this_machine_and_those_it_is_told(
    settings, task, clock, get, host: str, status: int
) -> None:
    app = create_app(settings.model_copy(update={"hosts": "other.example, Proxy.example"}), [task], clock, poll_every=0)
    answer = get(app, "/health", headers={"host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["type"] == "urn:forecastle:problem:host" and repr(host) in answer.json()["found"]


def test_where_it_asks_for_keys_or_listens_beyond_this_machine_it_may_have_any_name(
    guarded, settings, task, clock, get, issued
) -> None:
    elsewhere = {"host": "evil.example"}
    assert get(guarded, "/v1/tasks", headers=elsewhere | {"x-api-key": issued["read"][0]}).status_code == 200
    beyond = settings.model_copy(update={"host": "0.0.0.0", "serve_without_keys": True})
    assert get(create_app(beyond, [task], clock, poll_every=0), "/health", headers=elsewhere).status_code == 200
