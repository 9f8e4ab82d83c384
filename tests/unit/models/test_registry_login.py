"""MLflow at DagsHub is asked with the user and token of the settings, and no message shows them."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from forecastle.errors import RegistryUnavailable
from forecastle.models import registry
from forecastle.settings import Settings


@pytest.fixture
def asked() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that refuses everyone, and what it was asked: path and authorization."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path.partition("?")[0], self.headers["authorization"] or ""))
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_the_registry_at_dagshub_is_asked_with_its_user_and_token(task, tmp_path, asked, monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "somebody-else")  # restored after the test
    address, seen = asked
    settings = Settings(home=tmp_path, dagshub="alice/weather", dagshub_url=address, dagshub_token="t0ken")
    with pytest.raises(RegistryUnavailable) as refused:
        registry.versions(settings, task)
    path, login = seen[0]
    assert path.startswith("/alice/weather.mlflow/api/2.0/mlflow/")
    assert base64.b64decode(login.removeprefix("Basic ")) == b"alice:t0ken"
    assert "t0ken" not in str(refused.value)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "alice"
