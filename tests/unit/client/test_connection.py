"""Connections over real sockets: kept, replaced when the other side hung up, shared, bounded."""

import multiprocessing
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from ocean_core.client.connection import (
    CONNECTIONS_MAX,
    Connections,
    LostError,
    RawAnswer,
    Target,
    UnreachableError,
    is_loopback,
    split_url,
)
from ocean_core.model.errors import CommandError
from support.scripted_http import Answer, ScriptedHttp
from support.waiting import until


def echo(method: str, path: str, body: bytes) -> Answer:
    if path == "/hang-up":
        return 0, {}, b""
    headers = {"X-Then": "close"} if path == "/close" else {"X-Path": path}
    return 200, headers, method.encode() + b" " + body


def ask(connections: Connections, path: str = "/", body: bytes | None = None) -> RawAnswer:
    return connections.exchange("POST", path, body, {}, 10.0)


def has_news(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


@contextmanager
def connected(server: ScriptedHttp) -> Iterator[Connections]:
    connections = Connections(Target(server.url))
    try:
        yield connections
    finally:
        connections.close()


def test_one_connection_serves_many_requests() -> None:
    with ScriptedHttp(echo) as server, connected(server) as connections:
        answers = [ask(connections, "/a", b"%d" % number) for number in range(5)]
        assert [answer.body for answer in answers] == [b"POST %d" % number for number in range(5)]
        assert answers[0].headers["x-path"] == "/a"
        assert server.connections == 1


def test_a_connection_that_the_server_closed_is_replaced_before_anything_is_sent() -> None:
    with ScriptedHttp(echo) as server, connected(server) as connections:
        for _ in range(3):
            assert ask(connections, "/close").status == 200
            (idle,) = connections._idle
            until(partial(has_news, idle.sock), within_s=10, what="the server hung up")
        assert server.connections == 3


def test_no_answer_means_lost_and_nobody_there_means_unreachable() -> None:
    with ScriptedHttp(echo) as server, connected(server) as connections:
        with pytest.raises(LostError):
            ask(connections, "/hang-up")
        assert ask(connections).status == 200
        url = server.url
    with pytest.raises(UnreachableError, match="refused"):
        ask(Connections(Target(url)))


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LostError, match="timed out"):
            Connections(Target(url)).exchange("GET", "/", None, {}, 0.05)


def test_threads_share_a_bounded_number_of_connections() -> None:
    together = threading.Barrier(CONNECTIONS_MAX, timeout=20)

    def decide(method: str, path: str, body: bytes) -> Answer:
        together.wait()
        return echo(method, path, body)

    found: list[bytes] = []
    with ScriptedHttp(decide) as server, connected(server) as connections:

        def work(number: int) -> None:
            found.append(ask(connections, "/", b"%d" % number).body)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(3 * CONNECTIONS_MAX)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        assert sorted(found) == sorted(b"POST %d" % n for n in range(3 * CONNECTIONS_MAX))
        assert server.connections <= CONNECTIONS_MAX


def test_whoever_waits_for_a_connection_in_vain_is_told() -> None:
    release = threading.Event()

    def decide(method: str, path: str, body: bytes) -> Answer:
        assert release.wait(20)
        return echo(method, path, body)

    with ScriptedHttp(decide) as server, connected(server) as connections:
        workers = [
            threading.Thread(target=ask, args=(connections,)) for _ in range(CONNECTIONS_MAX)
        ]
        for worker in workers:
            worker.start()
        try:
            with pytest.raises((UnreachableError, LostError)):
                connections.exchange("GET", "/", None, {}, 0.1)
        finally:
            release.set()
            for worker in workers:
                worker.join(20)


def ask_in_fork(connections: Connections, answers: "multiprocessing.SimpleQueue[bytes]") -> None:
    answers.put(ask(connections, "/", b"child").body)


def test_a_fork_uses_connections_of_its_own() -> None:
    context = multiprocessing.get_context("fork")
    with ScriptedHttp(echo) as server, connected(server) as connections:
        ask(connections)
        answers = context.SimpleQueue()
        child = context.Process(target=ask_in_fork, args=(connections, answers))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert answers.get() == b"POST child"
        assert ask(connections, "/", b"parent").body == b"POST parent"
        assert server.connections == 2


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8030", "ftp://a", "http://", "http://a:99999", "http://a:0", "http://a:x",
        "http://a/path", "", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="no address"):
        split_url(url)


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ["http://localhost:1", "http://127.9.9.9", "http://[::1]:8030"]))
    assert not any(map(is_loopback, ["http://10.0.0.1", "http://example.org", "http://[fe80::1]"]))
