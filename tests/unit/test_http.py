"""The one HTTP client: polite, bounded, and silent about secrets."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import Response
from starlette.routing import Route

from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable
from forecastle.http import CUT, LONGEST_WAIT, Answer, Client, Request, asgi_transport, excerpt
from forecastle.settings import Settings

ADDRESS = "https://source.example/data"
KEY = "s3cret+key/1"
KEYED = Request(ADDRESS, {"symbol": "IBM", "apikey": KEY}, frozenset({"apikey"}))


class Source:
    """An application that gives its answers in turn, the last one for ever, and remembers what was asked."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.waits: list[float] = []

    def client(self, **settings: object) -> Client:
        app = Starlette(routes=[Route("/{path:path}", self._answer)])
        return Client(Settings(**settings), asgi_transport(app), self.waits.append)

    async def _answer(self, request: Asked) -> Response:
        self.asked.append(str(request.url))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def served(write: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve real answers on loopback, written by a function; yield the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            write(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_answer_is_handed_out_byte_for_byte_with_status_headers_and_address():
    body = b'{"value":  1.50,\r\n "unit": "\xc2\xb0C"}\n'
    source = Source(Response(body, headers={"ETag": '"7"', "Set-Cookie": "session=1"}))
    with source.client() as client:
        answer = client.get(Request(ADDRESS, {"latitude": "1,2", "hourly": "a,b"}))
    assert answer.body == body
    assert answer.status == 200
    assert answer.headers == {"etag": '"7"'}
    assert answer.url == f"{ADDRESS}?latitude=1,2&hourly=a,b"


def test_parameters_are_added_to_those_the_address_already_has():
    source = Source(Response(b"{}"))
    with source.client() as client:
        answer = client.get(Request(f"{ADDRESS}?format=json", {"page": "2"}))
    assert source.asked == [f"{ADDRESS}?format=json&page=2"]
    assert answer.url == f"{ADDRESS}?format=json&page=2"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_heal_is_asked_again_until_it_answers(status):
    source = Source(Response(b"busy", status), Response(b"busy", status), Response(b"fine"))
    with source.client() as client:
        assert client.get(Request(ADDRESS)).body == b"fine"
    assert len(source.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_what_asking_again_cannot_heal_is_an_answer(status):
    source = Source(Response(b'{"error":true}', status))
    with source.client() as client:
        answer = client.get(Request(ADDRESS))
    assert (answer.status, answer.body) == (status, b'{"error":true}')
    assert len(source.asked) == 1


def test_after_the_last_attempt_the_source_is_unavailable_and_its_own_words_are_in_the_message():
    source = Source(Response(b'{"error":true,"reason":"Daily limit exceeded."}', 429))
    with source.client(http_attempts=3) as client, pytest.raises(SourceUnavailable) as refused:
        client.get(Request(ADDRESS))
    assert len(source.asked) == 3
    assert "source.example/data" in refused.value.expected
    assert "HTTP 429" in refused.value.found and "Daily limit exceeded." in refused.value.found
    assert "3 attempts" in refused.value.found


def test_waits_between_attempts_are_random_and_bounded():
    source = Source(Response(b"busy", 503))
    with source.client(http_attempts=12) as client, pytest.raises(SourceUnavailable):
        client.get(Request(ADDRESS))
    assert len(source.waits) == 11
    assert len(set(source.waits)) > 1
    assert all(0 <= wait <= LONGEST_WAIT for wait in source.waits)


def test_retry_after_in_seconds_is_honoured():
    source = Source(Response(b"busy", 429, {"Retry-After": "7"}), Response(b"fine"))
    with source.client() as client:
        client.get(Request(ADDRESS))
    assert source.waits == [7.0]


def test_retry_after_as_a_date_counts_from_the_date_of_the_answer():
    headers = {"Retry-After": "Sun, 01 Dec 2013 00:00:20 GMT", "Date": "Sun, 01 Dec 2013 00:00:08 GMT"}
    source = Source(Response(b"busy", 503, headers), Response(b"fine"))
    with source.client() as client:
        client.get(Request(ADDRESS))
    assert source.waits == [12.0]


def test_a_source_that_asks_for_a_long_pause_is_left_alone_at_once():
    source = Source(Response(b"busy", 429, {"Retry-After": "3600"}))
    with source.client() as client, pytest.raises(SourceUnavailable, match="3600 s"):
        client.get(Request(ADDRESS))
    assert (len(source.asked), source.waits) == (1, [])


def test_an_answer_larger_than_the_limit_is_refused_and_not_asked_for_again():
    source = Source(Response(b"x" * 2_000))
    with source.client(http_max_bytes=1_000) as client, pytest.raises(AnswerChanged, match="at most 1000 bytes"):
        client.get(Request(ADDRESS))
    assert len(source.asked) == 1


def test_an_answer_of_just_the_limit_is_taken():
    with Source(Response(b"x" * 1_000)).client(http_max_bytes=1_000) as client:
        assert len(client.get(Request(ADDRESS)).body) == 1_000


def test_what_came_of_a_refused_answer_is_handed_over_once_the_last_attempts(tmp_path):
    source = Source(Response(b"first", 503), Response(b"second", 429))
    kept: list[Answer] = []
    with source.client(http_attempts=3) as client, pytest.raises(SourceUnavailable):
        client.get(Request(ADDRESS), kept.append)
    assert [(one.status, one.body) for one in kept] == [(429, b"second")]


def test_nothing_is_handed_over_of_an_answer_that_healed():
    kept: list[Answer] = []
    with Source(Response(b"busy", 503), Response(b"fine")).client() as client:
        client.get(Request(ADDRESS), kept.append)
    assert kept == []


def test_of_an_answer_that_is_too_large_the_beginning_is_handed_over_and_marked():
    kept: list[Answer] = []
    with Source(Response(b"abc" * 1_000)).client(http_max_bytes=1_000) as client, pytest.raises(AnswerChanged):
        client.get(Request(ADDRESS), kept.append)
    assert kept[0].body == (b"abc" * 1_000)[:1_000]
    assert kept[0].headers[CUT] == "the first 1000 bytes"


@pytest.mark.parametrize("most", range(990, 1_012))
def test_no_part_of_a_secret_is_left_where_an_answer_is_cut(most):
    whole = b"x" * 995 + KEY.encode() + b"y" * 995

    def drip(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=(whole[at : at + 7] for at in range(0, len(whole), 7)))

    kept: list[Answer] = []
    with Client(Settings(http_max_bytes=most), httpx.MockTransport(drip)) as client:
        with pytest.raises(AnswerChanged):
            client.get(KEYED, kept.append)
    assert set(kept[0].body) <= set(b"xy*")
    assert len(kept[0].body) <= most


def test_headers_of_a_request_are_sent():
    seen: list[str] = []

    def write(handler: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["If-None-Match"])
        handler.send_response(304)
        handler.end_headers()

    with served(write) as address, Client(Settings()) as client:
        assert client.get(Request(address, headers={"if-none-match": '"7"'})).status == 304
    assert seen == ['"7"']


def test_a_host_that_refuses_connections_is_unavailable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Client(Settings(http_attempts=2), sleep=lambda _: None) as client:
        with pytest.raises(SourceUnavailable, match="ConnectError.*2 attempts"):
            client.get(Request(f"http://127.0.0.1:{port}/"))


def test_a_source_that_drips_is_cut_off_as_a_whole():
    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b".")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    with served(drip) as address, Client(Settings(http_attempts=1, http_timeout=0.3)) as client:
        with pytest.raises(SourceUnavailable, match="within 0.3 s"):
            client.get(Request(address))


def test_an_answer_that_breaks_off_is_asked_for_again():
    asked = []

    def break_off_once(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"whole" if len(asked) > 1 else b"ha")

    with served(break_off_once) as address, Client(Settings(), sleep=lambda _: None) as client:
        assert client.get(Request(address)).body == b"whole"
    assert len(asked) == 2


@pytest.mark.parametrize("address", ["ftp://source.example/", "source.example/data", "http://[::1"])
def test_an_address_that_is_none_is_a_mistake_of_the_user(address):
    with Client(Settings(), sleep=lambda _: None) as client, pytest.raises(SettingsError, match="http"):
        client.get(Request(address))


def test_a_secret_is_sent_but_not_shown_in_the_address():
    source = Source(Response(b"{}"))
    with source.client() as client:
        answer = client.get(KEYED)
    assert "apikey=s3cret" in source.asked[0]
    assert answer.url == f"{ADDRESS}?symbol=IBM&apikey=***"


def test_no_secret_reaches_a_log(caplog):
    caplog.set_level("DEBUG")
    with Source(Response(b"{}")).client() as client:
        client.get(KEYED)
    assert "s3cret" not in caplog.text


def test_a_password_in_the_address_is_not_shown():
    request = Request("https://me:hush@source.example/data", {"a": "1"})
    assert request.address == "https://source.example/data?a=1"
    assert request.source == "source.example/data"


def test_a_body_or_header_that_echoes_the_secret_is_handed_out_without_it():
    source = Source(Response(f"Your key {KEY} is spent".encode(), headers={"X-Echo": f"key={KEY}"}))
    with source.client() as client:
        answer = client.get(KEYED)
    assert answer.body == b"Your key *** is spent"
    assert answer.headers["x-echo"] == "key=***"


@pytest.mark.parametrize("spelling", [KEY, "s3cret%2Bkey%2F1"])
def test_an_error_message_that_echoes_the_secret_is_shown_without_it(spelling):
    source = Source(Response(f"key {spelling} refused".encode(), 503))
    with source.client(http_attempts=1) as client, pytest.raises(SourceUnavailable) as refused:
        client.get(KEYED)
    assert spelling not in str(refused.value)
    assert "key *** refused" in str(refused.value)


def test_an_empty_secret_hides_nothing():
    request = Request(ADDRESS, {"apikey": ""}, frozenset({"apikey"}))
    assert request.hide("as it was") == "as it was"


def test_an_excerpt_is_one_short_line_whatever_the_bytes():
    assert excerpt(b"  a\n\n b\t") == "a b"
    assert excerpt(b"") == "an empty body"
    assert len(excerpt(b"\xff" * 10_000)) == 201


def test_one_application_serves_one_client_after_the_other():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})

    transport = asgi_transport(app)
    for _ in range(2):
        with Client(Settings(), transport) as client:
            assert client.get(Request(ADDRESS)).body == b"here"


@pytest.mark.parametrize("spelling", [r"ab\/cd+e", r"ab\u002fcd+e", r"ab\u002Fcd+e", "ab/cd+e", "ab%2Fcd%2Be"])
def test_a_key_that_is_echoed_as_json_writes_it_is_replaced_too(spelling):
    request = Request("https://example.org/", {"apikey": "ab/cd+e"}, frozenset({"apikey"}))
    assert request.hide_bytes(f'{{"m": "key {spelling}."}}'.encode()) == b'{"m": "key ***."}'


def test_what_is_sent_as_json_arrives_so_and_its_secrets_are_hidden_where_they_come_back() -> None:
    heard: list[tuple[str, str, bytes]] = []

    async def answer(request: Asked) -> Response:
        heard.append((request.method, request.headers["authorization"], await request.body()))
        return Response(b"no " + await request.body(), 422)

    app = Starlette(routes=[Route("/data", answer, methods=["POST"])])
    headers, body = {"authorization": "Bearer t0ken"}, {"password": "pass word"}
    request = Request(ADDRESS, headers=headers, method="POST", body=body, hidden=("t0ken", "pass word"))
    said = Client(Settings(), asgi_transport(app)).send(request)
    assert heard == [("POST", "Bearer t0ken", b'{"password":"pass word"}')]
    assert (said.status, said.body) == (422, b'no {"password":"***"}')
