"""What the load generators send: files of requests with places for the time, see load.c.

Batches look as a gateway sends them: some moments of 100 sensors, time moving on from request to
request. Values scatter around 20 with a deviation of 2; one in 500 lies far outside. The values
repeat after some dozen requests; so do the times of compressed bodies, which cannot be stamped.
"""

from __future__ import annotations

import gzip
import itertools
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from backports import zstd

SERIES: Final = 100
SINGLES: Final = 1000
STATIC, NOW_US, SECONDS, BLOCK = range(4)
INGEST: Final = "/api/ocean/telemetry/ingest"
BATCH: Final = "/api/ocean/telemetry/batch"
TYPES: Final = {
    "rows": "application/json",
    "columnar": "application/json",
    "ndjson": "application/x-ndjson",
    "packed": "application/x-ocean-block",
}
COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: gzip.compress(body, 6),
    "zstd": zstd.compress,
}
_HOLE: Final = b"@@@@@@%04d"
_HOLES: Final = re.compile(rb"@@@@@@(\d{4})")


@dataclass(frozen=True)
class Batches:
    """What kind of batches: form, rows, compression, seconds between moments, when it begins."""

    form: str = "rows"
    rows: int = 1000
    encoding: str = ""
    step_s: float = 0.1
    first_s: int = 0

    @property
    def advance_s(self) -> int:
        """By how many seconds each request lies after the one before."""
        return max(1, round(self.rows // SERIES * self.step_s))


@dataclass(frozen=True)
class Request:
    """One request and where its times go: (offset, extra) as load.c wants them."""

    content: bytes
    kind: int = STATIC
    stamps: tuple[tuple[int, int], ...] = ()
    advance: int = 0

    def packed(self) -> bytes:
        """Return it as load.c reads it."""
        head = struct.pack("<4I", len(self.content), self.kind, len(self.stamps), self.advance)
        places = b"".join(struct.pack("<2I", *stamp) for stamp in self.stamps)
        return head + places + self.content + b"\0" * (-len(self.content) % 8)


def write(path: Path, requests: Iterator[Request]) -> None:
    """Write a file for the generators."""
    with path.open("wb") as file:
        for request in requests:
            file.write(request.packed())


def read(path: Path) -> list[Request]:
    """Read such a file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        length, kind, stamps, advance = struct.unpack_from("<4I", data, at)
        at += 16
        flat = struct.unpack_from(f"<{2 * stamps}I", data, at)
        at += 8 * stamps
        places = tuple(zip(flat[::2], flat[1::2], strict=True))
        found.append(Request(data[at : at + length], kind, places, advance))
        at += (length + 7) // 8 * 8
    return found


def post(path: str, body: bytes, kind: str = "application/json", encoding: str = "") -> bytes:
    """Return a whole request."""
    also = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{also}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def singles() -> Iterator[Request]:
    """Readings of 73 bytes of JSON, each with the time of its sending."""
    for number in range(SINGLES):
        value = 20 + 5 * math.sin(number / 17)
        body = f'{{"sensor_id":"sensor-{number % SERIES:03}","value":{value:.3f},"timestamp":'
        content = post(INGEST, body.encode() + b"0" * 16 + b"}")
        yield Request(content, NOW_US, ((len(content) - 17, 0),))


def addresses(paths: list[str], bodies: list[str]) -> Iterator[Request]:
    """Given addresses in turn, with a body where there is one."""
    for path, body in itertools.zip_longest(paths, bodies, fillvalue=""):
        if body:
            yield Request(post(path, body.encode()))
        else:
            yield Request(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


def batches(what: Batches) -> Iterator[Request]:
    """Some dozen batches."""
    random = Random(7)
    count = max(8, min(64, 256_000 // what.rows))
    for number in range(count):
        values = [
            round(random.gauss(20, 2) + (40 if random.random() < 1 / 500 else 0), 3)
            for _ in range(what.rows)
        ]
        if what.form == "packed":
            body = _block(values, what)
            yield _finished(body, what, number)
        else:
            yield _finished(_text(values, what), what, number)


def _finished(body: bytes, what: Batches, number: int) -> Request:
    """Make a request of a body; fill the holes now if they cannot be filled later."""
    kind, begin_s = TYPES[what.form], what.first_s + number * what.advance_s
    if what.encoding:
        body = _moved(body, begin_s) if what.form == "packed" else _filled(body, begin_s)
        return Request(post(BATCH, COMPRESSORS[what.encoding](body), kind, what.encoding))
    content = post(BATCH, body, kind)
    if what.form == "packed":
        place = (len(content) - len(body) + 64, what.rows)
        return Request(content, BLOCK, (place,), what.advance_s)
    stamps = tuple((hole.start(), int(hole[1])) for hole in _HOLES.finditer(content))
    return Request(content, SECONDS, stamps, what.advance_s)


def _text(values: list[float], what: Batches) -> bytes:
    """Return JSON of one form or another, with a hole for the seconds of each time."""
    names = [b"sensor-%03d" % (row % SERIES) for row in range(what.rows)]
    times = [_hole(row // SERIES * what.step_s) for row in range(what.rows)]
    if what.form == "columnar":
        return b'{"sensor_id":[%s],"timestamp":[%s],"value":[%s]}' % (
            b",".join(b'"%s"' % name for name in names),
            b",".join(times),
            b",".join(b"%.3f" % value for value in values),
        )
    rows = [
        b'{"sensor_id":"%s","timestamp":%s,"value":%.3f}' % row
        for row in zip(names, times, values, strict=True)
    ]
    return b"\n".join(rows) if what.form == "ndjson" else b"[" + b",".join(rows) + b"]"


def _hole(seconds: float) -> bytes:
    whole = _HOLE % int(seconds)
    return whole if seconds == int(seconds) else whole + b".%06d" % round(1e6 * (seconds % 1))


def _filled(body: bytes, begin_s: int) -> bytes:
    return _HOLES.sub(lambda hole: b"%010d" % (begin_s + int(hole[1])), body)


def _block(values: list[float], what: Batches) -> bytes:
    """Return a packed block (docs/block-format.md) whose times begin at 0."""
    rows = np.arange(what.rows)
    names = b"".join(
        struct.pack("<HH", 10, 5) + b"sensor-%03dvalue" % number for number in range(SERIES)
    )
    columns = (
        (1_000_000 * (rows // SERIES) * what.step_s).astype("<i8").tobytes()
        + np.array(values, "<f8").tobytes()
        + (rows % SERIES).astype("<u4").tobytes()
        + bytes(what.rows)
        + names
    )
    head = struct.pack(
        "<4sBBHQIIq16sIII", b"OCB1", 0, 0, 64, 0, what.rows, SERIES, 0, bytes(16), len(names), 0, 0
    )
    return head + struct.pack("<I", zlib.crc32(columns, zlib.crc32(head))) + columns


def _moved(block: bytes, seconds: int) -> bytes:
    """Return a block with its times moved on, and its CRC."""
    rows = struct.unpack_from("<I", block, 16)[0]
    times = (np.frombuffer(block, "<i8", rows, 64) + 1_000_000 * seconds).astype("<i8").tobytes()
    rest = times + block[64 + 8 * rows :]
    return block[:60] + struct.pack("<I", zlib.crc32(rest, zlib.crc32(block[:60]))) + rest


class Stamper:
    """Fills in the times as load.c does, for the generator in Python."""

    def __init__(self, requests: list[Request], first_s: int, now_us: Callable[[], int]) -> None:
        self._requests = requests
        self._first_s = first_s
        self._now_us = now_us
        self._turn = 0

    def __call__(self) -> bytes:
        """Return the next request."""
        request = self._requests[self._turn % len(self._requests)]
        seconds = self._first_s + self._turn * request.advance
        self._turn += 1
        if request.kind == STATIC:
            return request.content
        if request.kind == BLOCK:
            begin = request.stamps[0][0] - 64
            return request.content[:begin] + _moved(request.content[begin:], seconds)
        content = bytearray(request.content)
        for offset, extra in request.stamps:
            if request.kind == NOW_US:
                content[offset : offset + 16] = b"%016d" % self._now_us()
            else:
                content[offset : offset + 10] = b"%010d" % (seconds + extra)
        return bytes(content)
