"""The server's bounds: a head that is too long or never ends, a body nobody reads, too many connections."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from forecastle.serving import protocol, server

MUCH = 100_000_000  # more than the buffers of a connection hold
GOOD = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


async def app(scope, receive, send) -> None:
    """Answer with what was sent to /echo, and to everything else without reading it."""
    assert scope["type"] == "http"
    body, more = b"", scope["path"] == "/echo"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """The address of a server of that application."""
    with server.listen("127.0.0.1", 0) as (door, _):
        served = server._server(app)
        served.config.lifespan = "off"
        thread = threading.Thread(target=served.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        yield door.getsockname()
        served.should_exit = True
        thread.join(60)


def connect(address: tuple[str, int]) -> closing[socket.socket]:
    return closing(socket.create_connection(address, timeout=60))


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def problem(answer: bytes) -> dict:
    head, _, body = answer.rpartition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return json.loads(body)


@pytest.mark.parametrize("endless", [b"x-a: " + b"v" * 1000 + b"\r\n", b"v" * 1000], ids=["many", "one"])
def test_a_head_above_the_bound_is_431(address, endless) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: here\r\nx-b: ")
        sent = 0
        try:
            while sent < MUCH:
                sent += connection.send(endless)
        except OSError:
            pass
        answer = rest(connection)
    assert answer == b"" or problem(answer)["status"] == 431  # the end may overtake the answer
    assert sent < MUCH


def test_a_head_just_above_the_bound_is_told_why(address) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"v" * protocol.HEAD_BYTES)
        found = problem(rest(connection))
    assert (found["status"], found["expected"]) == (431, f"a head of at most {protocol.HEAD_BYTES} bytes")


@pytest.mark.parametrize("part", [GOOD[:-1], GOOD + GOOD[:9], GOOD + b"\r\n"], ids=["first", "next", "empty lines"])
def test_a_head_that_does_not_come_whole_in_time_is_408_though_bytes_come(address, monkeypatch, part) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connect(address) as connection:
        connection.sendall(part[:-1])
        if part.startswith(GOOD):
            connection.recv(65_536)  # the answer to the first
        connection.sendall(part[-1:])
        assert problem(rest(connection))["status"] == 408


def test_a_connection_that_says_nothing_is_closed(address, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connect(address) as connection:
        assert rest(connection) == b""


def test_a_body_that_nobody_reads_keeps_no_connection(address, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connect(address) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 1000\r\n\r\n")
        connection.recv(65_536)
        connection.sendall(b"x")
        assert rest(connection) == b""


def test_what_follows_a_body_is_bounded_too(address) -> None:
    with connect(address) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        sent = 0
        try:
            while sent < MUCH:
                sent += connection.send(b"x-a: " + b"v" * 1000 + b"\r\n")
        except OSError:
            pass
        rest(connection)
    assert sent < MUCH


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_a_large_body_is_read_whole_however_it_is_cut(address, size) -> None:
    body = bytes(range(256)) * 1200
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    with connect(address) as connection:
        if size == 1:
            connection.sendall(b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(body))
            connection.sendall(body)
        else:
            connection.sendall(b"POST /echo HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n")
            for part in parts:
                connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            connection.sendall(b"0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while not found.endswith(body):
            found += connection.recv(1_000_000)


def test_requests_on_one_connection_are_answered_one_after_the_other(address) -> None:
    with connect(address) as connection:
        for many in (1, 1, 500):
            connection.sendall(GOOD * many)
            found = b""
            while found.count(b"200 OK") < many:
                found += connection.recv(65_536)


def test_one_connection_too_many_is_503_and_the_others_go_on(address, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 3)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(address)) for _ in range(3)]
        for one in held:
            one.sendall(GOOD)
            assert b"200 OK" in one.recv(65_536)
        with connect(address) as late:
            assert problem(rest(late))["status"] == 503
        held[0].sendall(GOOD)
        assert b"200 OK" in held[0].recv(65_536)
