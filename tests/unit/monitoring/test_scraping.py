"""What only the running service knows is read from its metrics, with a key where it wants one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from forecastle.monitoring.metrics import Reading
from forecastle.monitoring.scraping import scrape
from forecastle.settings import Settings

UP, DOWN = Reading("up", ("forecastle",), 1.0), Reading("up", ("forecastle",), 0.0)
TEXT = """# TYPE forecastle_prediction_seconds histogram
forecastle_prediction_seconds_bucket{task="weather",model_version="1",le="+Inf"} 3.0
forecastle_prediction_seconds_bucket{task="other",model_version="1",le="+Inf"} 5.0
"""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of a service that answers its metrics to who presents the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["authorization"] == "Bearer a-key" else 401)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    yield Settings(home=tmp_path, service_url=address, _env_file=None)  # type: ignore[call-arg]
    server.shutdown()
    server.server_close()


def test_the_service_is_asked_with_the_key_of_the_settings(settings: Settings) -> None:
    known = settings.model_copy(update={"service_key": SecretStr("a-key")})
    bucket = Reading("forecastle_prediction_seconds_bucket", ("weather", "1", "+Inf"), 3.0)
    assert scrape(known, "weather") == [UP, bucket]


def test_a_service_that_wants_another_key_is_not_down(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert scrape(settings, "weather") == []
    assert "FORECASTLE_SERVICE_KEY" in caplog.text


def test_a_service_that_does_not_answer_is_down(settings: Settings) -> None:
    assert scrape(settings.model_copy(update={"service_url": "http://127.0.0.1:9"}), "weather") == [DOWN]


def test_without_an_address_nothing_is_asked(settings: Settings) -> None:
    assert scrape(settings.model_copy(update={"service_url": ""}), "weather") == []
