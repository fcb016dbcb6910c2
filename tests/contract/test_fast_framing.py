"""Where one request ends and the next begins: the fast path and uvicorn agree, whatever comes.

The same bytes go to both ways, in the same pieces; answers, and whether the connection closes, must
be equal, and no request may be served twice, or a part of it be taken for another. What the whole
server makes of such bytes stands in ``test_framing.py``.
"""

import random
from asyncio import Runner
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.ingress.fast_http import HELD_BYTES_MAX, FastHttpProtocol
from support.journal_kit import START_US
from support.two_ways import DATE, Box, Line, Said, open_box, play, request
from support.web import BATCH, INGEST

pytestmark = pytest.mark.timeout(180)

ITEM = b'{"sensor_id":"s","value":1}'
SIZE = len(ITEM)
HIDDEN = request(INGEST, b'{"sensor_id":"hidden","value":1}')
GOOD = request(INGEST, ITEM)
HEAD = GOOD[: -SIZE - 2]
"""Without the empty line."""
BARE = request(INGEST, ITEM, length=None)[: -SIZE - 2]
"""Without a length."""

LOST = (
    b"HTTP/1.1 400 Bad Request\r\ndate: " + DATE + b"\r\ncontent-type: text/plain; charset=utf-8"
    b"\r\ncontent-length: 30\r\nconnection: close\r\n\r\nInvalid HTTP request received."
)
"""What uvicorn answers to what is no request."""


def chunked(body: bytes = ITEM, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    return b"%x%b%b%b%b0%b%b" % (len(body), extension, end, body, end, end, end)


def lengths() -> Iterator[tuple[str, bytes]]:
    for text in (b"27", b"027", b"0000000000027", b"+27", b"-27", b"0x1b", b"1b", b"27.0", b"27,27",
                 b"27, 27", b"27 27", b"27;", b"2 7", b"", b" ", b"\t27", b"27\t", b"  27  ",
                 b"99999999999999999999", b"18446744073709551643", b"4294967323", b"0", b"00", b"1",
                 b"26", b"28", b"1e1", b"\xb2\xb7", b"'27'", b"27\x00", b"27\x0b", b"\x0c27",
                 b"_27", b"2_7"):  # fmt: skip
        yield f"length {text!r}", BARE + b"Content-Length: " + text + b"\r\n\r\n" + ITEM
    one = b"Content-Length: %d\r\n" % SIZE
    for other in (one, b"Content-Length: 5\r\n", b"content-length: 27\r\n", b"Content-Length: 0\r\n",
                  b"Content_Length: 5\r\n", b"Content-Length : 27\r\n", b"Content-Length\r\n",
                  b"Content-Length:\r\n", b"Content-Length\t: 5\r\n", b"Content-Length\x00: 5\r\n",
                  b" Content-Length: 5\r\n", b"X: y\r\n Content-Length: 5\r\n",
                  b"X: y\nContent-Length: 5\r\n", b"X: y\rContent-Length: 5\r\n"):  # fmt: skip
        yield f"length and {other!r}", BARE + one + other + b"\r\n" + ITEM
        yield f"{other!r} and length", BARE + other + one + b"\r\n" + ITEM
    yield "only folded", BARE + b"Content-Length:\r\n 27\r\n\r\n" + ITEM


def encodings() -> Iterator[tuple[str, bytes]]:
    length = b"Content-Length: 5\r\n"
    for value in (b"chunked", b"Chunked", b"CHUNKED", b"identity", b"gzip, chunked", b"chunked, gzip",
                  b"xchunked", b"chunked;a=b", b"\tchunked", b"chunked ", b"\x0bchunked", b"",
                  b"chunked, chunked", b"'chunked'", b"chunke\x64", b"chunked\x00"):  # fmt: skip
        coding = b"Transfer-Encoding: " + value + b"\r\n"
        yield f"coding {value!r}", BARE + coding + b"\r\n" + chunked()
        yield f"coding {value!r}, length", BARE + coding + length + b"\r\n" + chunked()
        yield f"length, coding {value!r}", BARE + length + coding + b"\r\n" + chunked()
        yield f"true length, coding {value!r}", HEAD + coding + b"\r\n" + ITEM
    coding = b"Transfer-Encoding: chunked\r\n"
    for odd in (b"Transfer-Encoding ", b"Transfer_Encoding", b" Transfer-Encoding",
                 b"Transfer-Encoding\x00", b"transfer-encoding", b"X: y\r\n Transfer-Encoding",
                 b"X: y\nTransfer-Encoding"):  # fmt: skip
        yield f"name {odd!r}", HEAD + odd + b": chunked\r\n\r\n" + ITEM
    bodies = {
        "extension": chunked(extension=b";a=b"),
        "extension with a quote": chunked(extension=b';a="\r\n"'),
        "long extension": chunked(extension=b";" + b"a" * 20_000),
        "extension with a line feed": chunked(extension=b";a\nb"),
        "spaces": chunked(extension=b"  "),
        "line feeds": chunked(end=b"\n"),
        "negative": b"-1\r\n" + ITEM + b"\r\n0\r\n\r\n",
        "huge": b"fffffffffffffffff\r\n" + ITEM + b"\r\n0\r\n\r\n",
        "no end": b"1b\r\n" + ITEM + b"0\r\n\r\n",
        "too short": b"1a\r\n" + ITEM + b"\r\n0\r\n\r\n",
        "0x": b"0x1b\r\n" + ITEM + b"\r\n0\r\n\r\n",
        "zeros": b"0000001b\r\n" + ITEM + b"\r\n000\r\n\r\n",
        "trailer": b"1b\r\n" + ITEM + b"\r\n0\r\nX: y\r\n\r\n",
        "length as trailer": b"1b\r\n" + ITEM + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
        "two": b"a\r\n" + ITEM[:10] + b"\r\n11\r\n" + ITEM[10:] + b"\r\n0\r\n\r\n",
        "empty": b"0\r\n\r\n",
    }
    for name, body in bodies.items():
        yield f"chunks: {name}", BARE + coding + b"\r\n" + body


def lines() -> Iterator[tuple[str, bytes]]:
    for before in (b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\r\n ", b"\0", b"\r\n" * 50, b"x"):
        yield f"{before[:9]!r} before", before + GOOD
    for after in (b"\r\n", b"\n", b"\r\n\r\n", b" ", b"\0", b"x"):
        yield f"{after!r} after", GOOD + after
    yield "bare line feeds", GOOD.replace(b"\r\n", b"\n")
    yield "bare carriage returns", GOOD.replace(b"\r\n", b"\r")
    yield "last line bare", HEAD + b"\n" + ITEM
    yield "first line bare", GOOD.replace(b"\r\n", b"\n", 1)
    yield "an extra carriage return", HEAD + b"\r\r\n" + ITEM
    yield "an empty line too early", GOOD.replace(b"\r\n", b"\r\n\r\n", 1)
    for header in (b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b"X : a", b"X\t: a", b"X", b": a", b":",
                   b"X:a", b"X:", b"X: \0", b"X: a\0b", b"X: a\x01b", b"X: a\x7fb", b"X: \xff",
                   b"X\xff: a", b"X Y: a", b"X(: a", b"X: a\rb", b"X: a\nb", b"\0: a", b"X\0: a",
                   b"Host: localhost", b"host : localhost", b"Host:localhost\r\n evil",
                   b"Authorization: Bearer ocean_good_1\r\nAuthorization: x",
                   b"authorization : Bearer ocean_good_1",
                   b"Connection: close", b"connection:\r\n close", b"Connection: keep-alive, close",
                   b"Connection: keep-alive\r\nConnection: close", b"Connection: upgrade\r\nUpgrade: h2c",
                   b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c", b"Expect: 100-continue",
                   b"X: " + b"a" * 31_000, b"X: " + b"a" * 33_000, b"X: " + b"a" * 70_000,
                   b"\r\n".join(b"X-%d: a" % n for n in range(300)),
                   b"\r\n".join(b"X-%d: a" % n for n in range(9_000))):  # fmt: skip
        yield f"header {header[:30]!r} {len(header)}", HEAD + header + b"\r\n\r\n" + ITEM
        first, _, rest = GOOD.partition(b"\r\n")
        yield f"first {header[:30]!r} {len(header)}", first + b"\r\n" + header + b"\r\n" + rest
    for start in (b"post", b"POST ", b" POST", b"PO ST", b"POS", b"POSTX", b"GET", b"PRI", b"CONNECT",
                  b"P\0ST", b"HEAD", b"OPTIONS", b"QUERY", b"SOURCE", b"M-SEARCH"):  # fmt: skip
        yield f"method {start!r}", GOOD.replace(b"POST", start, 1)
    for version in (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"http/1.1",
                    b"HTTP/11", b"HTTP/1.", b"HTTP/01.1", b"ICE/1.0", b"RTSP/1.0", b""):  # fmt: skip
        yield f"version {version!r}", GOOD.replace(b"HTTP/1.1", version, 1)
    path = INGEST.encode()
    for target in (b"http://localhost" + path, b"http://evil.example" + path, b"*", b"", path + b" x",
                   path + b"\t", path + b"#x", path + b"?", path + b"\xff", path + b"\0", b"//" + path,
                   b"localhost:80", path + b"%", path + b"%zz", path + b"\\", b"?" + path,
                   b"http://" + path, b"http://[::1" + path, b"/" + b"a" * 33_000):  # fmt: skip
        yield f"target {target[:40]!r}", GOOD.replace(path, target, 1)


TABLES = {table.__name__: table for table in (lengths, encodings, lines)}


async def exchange(box: Box, raw: bytes) -> tuple[Said, list[str], int]:
    """Send a request, then, after its answer, a good one; return what came of them."""
    line = box.connect()
    before = box.buffer.head_id
    said = [await line.ask(raw), await line.ask(GOOD)]
    line.hang_up()
    await box.settle()
    content = b"".join(each.content for each in said)
    names = sorted({row[0] for row in box.stored()})
    return Said(content, said[-1].closed), names, box.buffer.head_id - before


@pytest.mark.parametrize("table", TABLES)
def test_both_ways_draw_the_same_lines_between_requests(table: str) -> None:
    cases = dict(TABLES[table]())

    async def scenario(box: Box) -> list[Any]:
        await box.ask(GOOD)
        return [await exchange(box, raw) for raw in cases.values()]

    fast, slow = play(None, scenario)
    for name, quick, thorough in zip(cases, fast, slow, strict=True):
        assert agree(quick, thorough), (name, quick, thorough)


@pytest.mark.parametrize("table", TABLES)
def test_nothing_hidden_behind_an_odd_request_is_served(table: str) -> None:
    """What the odd one hides in or behind its body is at most served as uvicorn would."""
    cases = {name: raw.replace(ITEM, HIDDEN) for name, raw in TABLES[table]()}

    async def scenario(box: Box) -> list[Any]:
        await box.ask(GOOD)
        found = []
        for raw in cases.values():
            line = box.connect()
            count = len(box.stored())
            said = await line.ask(raw)
            line.hang_up()
            await box.settle()
            found.append((said, [row[0] for row in box.stored()[count:]]))
        return found

    fast, slow = play(None, scenario)
    for name, quick, thorough in zip(cases, fast, slow, strict=True):
        # The answer to one that was in flight when a bad one came is lost in uvicorn alone.
        assert quick[1] == thorough[1], name
        assert quick[0].closed == thorough[0].closed, name


def agree(quick: Any, thorough: Any) -> bool:
    """Whether two outcomes are the same, but for what uvicorn loses.

    When something bad follows a request in one piece, uvicorn alone answers the bad one, closes,
    and the answer to the request before is lost. The fast path gives both.
    """
    fast, slow = said_in_order(quick[0]), said_in_order(thorough[0])
    if fast != slow and slow.content == LOST:
        assert fast.content.startswith(b"HTTP/1.1 ")
        fast = Said(fast.content[-len(LOST) :], fast.closed)
    return fast == slow and quick[1:] == thorough[1:]


def said_in_order(said: Said) -> Said:
    """Sort what Litestar lists as it happens to come."""
    lines = [
        b"allow: " + b", ".join(sorted(line[7:].split(b", "))) if line[:7] == b"allow: " else line
        for line in said.content.split(b"\r\n")
    ]
    return Said(b"\r\n".join(lines), said.closed)


# --- pieces


POOL = {
    "single": GOOD,
    "other single": request(INGEST, b'{"sensor_id":"t","value":2}', "User-Agent: x"),
    "batch": request(BATCH, b"[%b,%b]" % (ITEM, ITEM)),
    "large batch": request(BATCH, b"[%b]" % b",".join([ITEM] * 200)),
    "partial": request(BATCH + "?partial=true", b"[%b,1]" % ITEM),
    "bad json": request(INGEST, b"{"),
    "nobody": request(INGEST, ITEM, "Authorization: Bearer ocean_none_1"),
    "unknown path": request("/nothing", method="GET"),
    "chunked": request(INGEST, chunked(), "Transfer-Encoding: chunked", length=None),
    "keyed": request(INGEST, ITEM, "Idempotency-Key: a"),
    "asks first": request(INGEST, ITEM, "Expect: 100-continue"),
    "no body": request(INGEST, b"", length="0"),
    "line before": b"\r\n" + GOOD,
    "offer": request(INGEST, ITEM, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "a request as body": request(INGEST, GOOD + GOOD),
    "last": request(INGEST, ITEM, "Connection: close"),
    "old": request(INGEST, ITEM, version="1.0"),
}


class Bench:
    """One server that plays many exchanges, each as if it were the first."""

    def __init__(self, *, fast: bool) -> None:
        self._runner = Runner(loop_factory=uvloop.new_event_loop)
        self._context = open_box(None, fast=fast)
        self.box: Box = self._runner.run(self._context.__aenter__())
        self.play([(POOL["other single"], True), (GOOD, True)])

    def play(self, pieces: list[tuple[bytes, bool]]) -> tuple[Said, list[Any]]:
        """Send pieces, waiting after those that say so; return all answers and what was stored."""
        return self._runner.run(self._play(pieces))

    async def _play(self, pieces: list[tuple[bytes, bool]]) -> tuple[Said, list[Any]]:
        box, memory = self.box, self.box.buffer.inner
        memory.head_id = 0  # type: ignore[misc]
        memory.kept.clear()  # type: ignore[attr-defined]
        box.buffer.intakes.clear()
        # Long ago for what is counted by time; the wall clock stands still.
        box.clock.advance(3600)
        box.clock.set_wall(START_US)
        line = box.connect()
        for data, waits in pieces:
            line.send(data)
            if waits:
                await box.settle()
        await box.settle()
        said = line.take()
        line.hang_up()
        await box.settle()
        return said, box.stored()

    def close(self) -> None:
        self._runner.run(self._context.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def benches() -> Iterator[tuple[Bench, Bench]]:
    both = Bench(fast=True), Bench(fast=False)
    yield both
    for bench in both:
        bench.close()


def cut(raw: bytes, places: list[int], waits: list[bool]) -> list[tuple[bytes, bool]]:
    edges = [0, *sorted({place % len(raw) for place in places} - {0}), len(raw)]
    flags = (waits * len(edges))[: len(edges) - 1] if waits else [False] * (len(edges) - 1)
    return [(raw[a:b], wait) for a, b, wait in zip(edges, edges[1:], flags, strict=False)]


@pytest.mark.parametrize("name", POOL)
def test_a_request_may_be_cut_anywhere(benches: tuple[Bench, Bench], name: str) -> None:
    """At each position, and byte by byte, with others before and behind it."""
    fast, slow = benches
    before, behind = POOL["single"], POOL["batch"]
    raw = POOL[name] + behind
    expected = slow.play([(before, True), (POOL[name], True), (behind, True)])
    assert fast.play([(before, True), (POOL[name], True), (behind, True)]) == expected
    assert fast.play([(before + raw, True)]) == expected
    for place in range(1, min(len(raw), 600)):
        pieces = [(before, False), (raw[:place], place % 2 == 0), (raw[place:], True)]
        assert fast.play(pieces) == expected, place
    single_bytes = [(before, False), *((raw[n : n + 1], False) for n in range(len(raw)))]
    assert fast.play(single_bytes) == expected


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=8),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    waits=st.lists(st.booleans(), max_size=5),
)
def test_any_cut_of_any_requests_gives_the_same_answers(
    benches: tuple[Bench, Bench], names: list[str], places: list[int], waits: list[bool]
) -> None:
    fast, slow = benches
    raw = b"".join(POOL[name] for name in names)
    expected = slow.play([(POOL[name], True) for name in names])
    assert fast.play(cut(raw, places, waits)) == expected
    assert fast.play([(raw, True)]) == expected


def test_a_bad_request_behind_good_ones_does_not_cost_their_answers(
    benches: tuple[Bench, Bench],
) -> None:
    fast, slow = benches
    bad = GOOD.replace(b"Content-Length: 27", b"Content-Length: x")
    expected = slow.play([(GOOD, True), (GOOD, True), (bad, True)])
    assert expected[0].content.count(b"HTTP/1.1 200 OK") == 2
    assert expected[0].closed
    assert fast.play([(GOOD + GOOD + bad + GOOD, True)]) == expected


def test_more_than_may_be_held_is_left_where_it_is(benches: tuple[Bench, Bench]) -> None:
    fast, _ = benches

    async def flood(line: Line, count: int) -> None:
        box = line.box
        box.buffer.gate.clear()
        pieces = [GOOD * 20] * (count // 20)
        for piece in pieces:
            line.send(piece)
        assert isinstance(line.protocol, FastHttpProtocol)
        held = sum(len(data) for data in line.protocol._held)
        assert held <= HELD_BYTES_MAX + len(pieces[0])
        assert line.is_waiting()
        box.buffer.gate.set()
        await box.settle()
        assert not line.is_waiting()
        assert line.take().content.count(b"HTTP/1.1 200 OK") == count

    async def scenario() -> None:
        line = fast.box.connect()
        await flood(line, 2_000)
        line.hang_up()
        await fast.box.settle()

    fast._runner.run(scenario())


def test_random_bytes_between_requests_never_hide_one(benches: tuple[Bench, Bench]) -> None:
    """Seeded noise: whatever uvicorn makes of it, the fast path makes of it too."""
    fast, slow = benches
    chance = random.Random(5)
    for _ in range(300):
        raw = bytearray(chance.choice([GOOD, POOL["batch"], POOL["keyed"], POOL["chunked"]]))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(raw))
            action = chance.randrange(4)
            if action == 0:
                raw[place] = chance.randrange(256)
            elif action == 1:
                del raw[place]
            elif action == 2:
                raw.insert(place, chance.choice(b"\r\n \t:,;0123456789\0"))
            else:
                raw[place:place] = chance.choice(
                    [b"\r\n", b"\r\n\r\n", b": ", b"Content-Length: 3\r\n"]
                )
        pieces = [(bytes(raw), True), (GOOD, True)]
        assert agree(fast.play(pieces), slow.play(pieces)), bytes(raw)
