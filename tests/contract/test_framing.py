"""Requests that two parsers could read differently: none of them hides a second request in a body.

Each case is one write with a good request behind it on the same connection. What is ambiguous must
be refused and the connection closed, so that nothing behind it is read as a request.
"""

import re
import socket
import time
from collections.abc import Iterator

import pytest

from support.appliance import Appliance
from support.web import INGEST, STATUS

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("framing"), pytest.mark.timeout(120)]

BODY = b'{"sensor_id":"s","value":1}'
SIZE = len(BODY)
POST = (
    b"POST /api/ocean/telemetry/ingest HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\n"
)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
NEXT = GET + b"\r\n"
LENGTH = b"Content-Length: %d\r\n" % SIZE
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def chunks(body: bytes = BODY, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    return b"%x%s%s%s%s0%s%s" % (len(body), extension, end, body, end, end, end)


# name: (what is sent before NEXT, the statuses that come back, whether a reading is stored)
TAKEN = {
    "length": (POST + LENGTH + b"\r\n" + BODY, 1),
    "chunks": (POST + CHUNKED + b"\r\n" + chunks(), 1),
    "a chunk extension": (POST + CHUNKED + b"\r\n" + chunks(extension=b";a=b"), 1),
    "a tab before the value": (POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + chunks(), 1),
    "an offer of HTTP/2": (POST + OFFER + LENGTH + b"\r\n" + BODY, 1),
    "an offer of HTTP/2 with chunks": (POST + OFFER + CHUNKED + b"\r\n" + chunks(), 1),
    "two offers": ((POST + OFFER + LENGTH + b"\r\n" + BODY) * 2, 2),
    "an offer of WebSocket": (
        POST + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + LENGTH + b"\r\n" + BODY,
        1,
    ),
    "three at once": ((POST + LENGTH + b"\r\n" + BODY) * 3, 3),
    "two hundred at once": ((POST + LENGTH + b"\r\n" + BODY) * 200, 200),
    "an empty line before": (b"\r\n" + POST + LENGTH + b"\r\n" + BODY, 1),
    "an empty line behind": (POST + LENGTH + b"\r\n" + BODY + b"\r\n", 1),
    "a length with zeros": (POST + b"Content-Length: 00%d\r\n\r\n" % SIZE + BODY, 1),
    "a length between spaces": (POST + b"Content-Length: \t %d \r\n\r\n" % SIZE + BODY, 1),
    "names in odd case": (POST + b"cONTENT-lENGTH: %d\r\n\r\n" % SIZE + BODY, 1),
    "no host": (POST.replace(b"Host: localhost\r\n", b"") + LENGTH + b"\r\n" + BODY, 1),
    "an absolute address": (
        POST.replace(b"POST ", b"POST http://localhost") + LENGTH + b"\r\n" + BODY,
        1,
    ),
    "a short way, a long way, a short way": (
        POST + LENGTH + b"\r\n" + BODY + POST + CHUNKED + b"\r\n" + chunks()
        + POST + LENGTH + b"\r\n" + BODY,
        3,
    ),
}  # fmt: skip
REFUSED = {
    "an offer, a length and chunks": POST + OFFER + LENGTH + CHUNKED + b"\r\n" + chunks(),
    "an offer and two lengths": POST + OFFER + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "length and chunks": POST + LENGTH + CHUNKED + b"\r\n" + chunks(),
    "chunks and length": POST + CHUNKED + b"Content-Length: 4\r\n\r\n" + chunks(),
    "the same length twice": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "two lengths": POST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: %d, %d\r\n\r\n" % (SIZE, SIZE) + BODY,
    "a length with a plus": POST + b"Content-Length: +%d\r\n\r\n" % SIZE + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"Content-Length: 0x1b\r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "a space before the colon": POST + b"Content-Length : %d\r\n\r\n" % SIZE + BODY,
    "a length of two numbers": POST + b"Content-Length: %d %d\r\n\r\n" % (SIZE, SIZE) + BODY,
    "a length with more behind": POST + b"Content-Length: %d;\r\n\r\n" % SIZE + BODY,
    "a length with a null byte": POST + b"Content-Length: %d\0\r\n\r\n" % SIZE + BODY,
    "a null byte in a name": POST + b"X\0: a\r\n" + LENGTH + b"\r\n" + BODY,
    "a header without a colon": POST + b"X\r\n" + LENGTH + b"\r\n" + BODY,
    "a header without a name": POST + b": a\r\n" + LENGTH + b"\r\n" + BODY,
    "a space before a name": POST + b" X: a\r\n" + LENGTH + b"\r\n" + BODY,
    "a method in lower case": (POST + LENGTH + b"\r\n" + BODY).replace(b"POST", b"post", 1),
    "two keys": POST + LENGTH + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n" + BODY,
    "too large a header with readings": POST + LENGTH + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n" + BODY,
    "an empty length": POST + b"Content-Length:\r\n\r\n" + BODY,
    "identity and length": POST + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + chunks(),
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunks(),
    "two codings": POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + chunks(),
    "a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + chunks(),
    "bare line feeds": (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "one bare line feed": POST + b"X-A: b\n" + LENGTH + b"\r\n" + BODY,
    "a bare carriage return": POST + b"X-A: b\rContent-Length: 3\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded header": POST + b"X-A: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded length": POST + b"Content-Length:\r\n %d\r\n\r\n" % SIZE + BODY,
    "a null byte": POST + b"X-A: b\0c\r\n" + LENGTH + b"\r\n" + BODY,
    "chunks with bare line feeds": POST + CHUNKED + b"\r\n" + chunks(end=b"\n"),
    "a negative chunk": POST + CHUNKED + b"\r\n-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": POST + CHUNKED + b"\r\nffffffffffffffffff\r\n" + BODY,
    "a chunk without an end": POST + CHUNKED + b"\r\n%x\r\n" % SIZE + BODY + b"0\r\n\r\n",
    "a length in the trailer": POST + CHUNKED + b"\r\n%x\r\n" % SIZE + BODY
    + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two hosts": GET + b"Host: evil.example\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a control character in the method": b"G\x01T /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the address": b"GET /health /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "too long an address": b"GET /health?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "too large a header": GET + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
    "too many headers": GET + b"".join(b"X-%d: a\r\n" % n for n in range(9000)) + b"\r\n",
}  # fmt: skip


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast path", "uvicorn alone"])
def box(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Appliance]:
    settings = {"OCEAN_SERVER__FAST_PATH": request.param}
    with Appliance(tmp_path_factory.mktemp("framing") / "data", settings=settings) as running:
        running.start()
        yield running
        assert "api.internal_error" not in running.log()
        assert "Traceback" not in running.log()
        assert running.stop() == 0


def exchange(box: Appliance, raw: bytes, answers: int) -> tuple[list[int], bool]:
    """Send bytes; return the statuses that came, and whether the server hung up.

    Reads until it hangs up or has given as many answers as could come.
    """
    port = int(box.url.rpartition(":")[2])
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(raw)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                data = sock.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return statuses_in(received), True
            received += data
            if len(statuses_in(received)) == answers and received.endswith(b"}"):
                return statuses_in(received), False
    raise AssertionError(f"neither {answers} answers nor an end: {received[:500]!r}")


def statuses_in(received: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def head_of(box: Appliance) -> int:
    head: int = box.http().get(STATUS).good()["buffer"]["head_id"]
    return head


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_clear_is_taken_and_the_next_request_too(box: Appliance, name: str) -> None:
    raw, count = TAKEN[name]
    before = head_of(box)
    assert exchange(box, raw + NEXT, count + 1) == ([200] * (count + 1), False)
    assert head_of(box) == before + count


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_is_refused_with_all_behind_it(box: Appliance, name: str) -> None:
    before = head_of(box)
    found, closed = exchange(box, REFUSED[name] + NEXT, 2)
    assert len(found) <= 1, found
    assert all(400 <= status < 500 for status in found), found
    assert closed
    assert head_of(box) == before, "something was stored"


@pytest.mark.parametrize("offer", [b"", OFFER], ids=["plain", "with an offer"])
def test_slow_bytes_are_put_together(box: Appliance, offer: bytes) -> None:
    raw = POST + offer + LENGTH + b"\r\n" + BODY
    port = int(box.url.rpartition(":")[2])
    before = head_of(box)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(len(raw)):
            sock.sendall(raw[position : position + 1])
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert head_of(box) == before + 1


@pytest.mark.parametrize("left_out", [0, 1, SIZE, SIZE + 10])
def test_who_says_that_it_sends_no_more_is_not_waited_for(box: Appliance, left_out: int) -> None:
    """A half-closed connection ends; what was whole may be stored, what was not is not."""
    raw = POST + LENGTH + b"\r\n" + BODY
    port = int(box.url.rpartition(":")[2])
    before = barrier(box)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(raw[: len(raw) - left_out])
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while data := sock.recv(65_536):
            received += data
    assert len(statuses_in(received)) <= 1
    stored = barrier(box) - before - 1
    assert stored <= (left_out == 0)
    if statuses_in(received) == [200]:
        assert stored == 1


def barrier(box: Appliance) -> int:
    """Store a reading behind all that came before; return its id."""
    return int(box.http().post(INGEST, {"sensor_id": "s", "value": 1}).good()["id"])
