"""The fast path is no other server: what it answers, counts and stores is what Litestar would.

Each group of requests is played twice, with the fast path and without, on fresh journals and clocks
that stand still; answers must be equal to the byte, and so must counters, log, and what is stored.
"""

import asyncio
import gzip
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backports import zstd

from ocean_core.config.settings import AccessSettings, IngestSettings, ServerSettings
from ocean_core.model.errors import (
    BufferFullError,
    BufferUnavailableError,
    DiskFullError,
    StoreIOError,
)
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from support.fake_frames import frame
from support.journal_kit import START_US
from support.two_ways import BODY_BYTES_MAX, Box, Line, Said, play, request
from support.web import BATCH, INGEST

pytestmark = pytest.mark.timeout(120)

ITEM = b'{"sensor_id":"s","value":1}'
SECOND = START_US // 1_000_000


@dataclass(frozen=True)
class Case:
    """A request, and where it comes in."""

    raw: bytes
    listener: str = "local"
    address: str = "127.0.0.1"


def remote(raw: bytes, address: str = "192.0.2.7") -> Case:
    return Case(raw, "network", address)


def single(body: bytes | str, *headers: str, **more: Any) -> Case:
    return Case(request(INGEST, body, *headers, **more))


def batch(body: bytes | str, *headers: str, query: str = "", **more: Any) -> Case:
    return Case(request(BATCH + query, body, *headers, **more))


# --- tables


def singles() -> Iterator[tuple[str, Case]]:
    moments: list[Any] = [
        None, SECOND, SECOND * 1000, START_US, START_US * 1000, SECOND + 0.25, float(START_US),
        START_US + 60_000_000, START_US + 60_000_001, START_US - 1, 0, 1, -1,
        946_684_800_000_000, 946_684_799_999_999, 946_684_800, 10**17, 10**20, True, "", "x",
        "2026-01-17T12:00:00Z", "2026-01-17", "2026-01-17T12:00:00+02:00", "1780000000",
        "2027-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-02-30T00:00:00Z", [], {},
    ]  # fmt: skip
    for moment in moments:
        body = json.dumps({"sensor_id": "s", "timestamp": moment, "value": 1.5})
        yield f"timestamp {moment!r}", single(body)
    for value in ("1", "-0.0", "1e3", "1e308", "1e309", "9" * 400, "NaN", "Infinity", "-1e999",
                  "true", "null", '"1"', '"x"', "[]", "[1]", "{}", "01", "1.", ".5", "+1", "0x1",
                  "1e-400", "18446744073709551617", ""):  # fmt: skip
        yield f"value {value[:30]}", single(f'{{"sensor_id":"s","value":{value}}}')
    names = ["s", "", " ", "s ", "a/b", "ä", "\u2028", "日本", 'q"q', "b\\s", "n\nl", "z\0",
             "x" * 256, "x" * 257, "ä" * 128, "ä" * 129, "\x7f", "\x1f", "😀", "a\u202eb"]  # fmt: skip
    for name in names:
        for ascii_only in (True, False):
            for number in (1, 2):
                body = json.dumps({"sensor_id": name, "value": number}, ensure_ascii=ascii_only)
                yield f"sensor {name[:9]!r} {ascii_only} {number}", single(body)
    for sensor in ("1", "null", "[]", "{}", "true", '"\\ud800"', '"\\u0073"', '"\\x"'):
        yield f"sensor {sensor}", single(f'{{"sensor_id":{sensor},"value":1}}')
    bodies = {
        "values": '{"sensor_id":"s","values":{"a":1,"b":2}}',
        "values again": '{"sensor_id":"s","values":{"a":1,"b":2}}',
        "values empty": '{"sensor_id":"s","values":{}}',
        "values bad": '{"sensor_id":"s","values":{"a":"x","b":1e999}}',
        "metric": '{"sensor_id":"s","metric":"temp","value":3}',
        "metric value": '{"sensor_id":"s","metric":"value","value":3}',
        "metric empty": '{"sensor_id":"s","metric":"","value":3}',
        "event": '{"sensor_id":"s","data":{"door":"open"}}',
        "event text": '{"sensor_id":"s","data":"open"}',
        "event null": '{"sensor_id":"s","data":null}',
        "numbers as data": '{"sensor_id":"s","data":{"a":1,"b":2.5}}',
        "value and data": '{"sensor_id":"s","value":1,"data":2}',
        "none of them": '{"sensor_id":"s"}',
        "no sensor": '{"value":1}',
        "unknown field": '{"sensor_id":"s","value":1,"vlaue":2}',
        "unit": '{"sensor_id":"s","value":1,"unit":"C"}',
        "field twice": '{"sensor_id":"s","value":1,"value":2}',
        "spaces": ' \r\n\t{ "sensor_id" : "s" , "value" : 1 } \n',
        "array": '[{"sensor_id":"s","value":1}]',
        "number": "1",
        "text": '"s"',
        "null": "null",
        "only spaces": "  ",
        "cut off": '{"sensor_id":"s","value":',
        "more behind": '{"sensor_id":"s","value":1}{',
        "two of them": '{"sensor_id":"s","value":1}{"sensor_id":"s","value":2}',
        "comma": '{"sensor_id":"s","value":1,}',
        "quotes": "{'sensor_id':'s','value':1}",
        "comment": '{"sensor_id":"s","value":1}//',
        "deep": '{"sensor_id":"s","data":' + "[" * 5000 + "]" * 5000 + "}",
        "too deep": "[" * 9000,
        "large": '{"sensor_id":"s","value":1' + " " * 9000 + "}",
        "large event": '{"sensor_id":"s","data":"' + "x" * 15_000 + '"}',
        "too large": '{"sensor_id":"s","data":"' + "x" * BODY_BYTES_MAX + '"}',
    }
    for name, body in bodies.items():
        yield name, single(body)
    yield "byte order mark", single(b"\xef\xbb\xbf" + ITEM)
    yield "not UTF-8", single(b'{"sensor_id":"\xff","value":1}')
    yield "UTF-16", single(ITEM.decode().encode("utf-16"))
    yield "cut letter", single(b'{"sensor_id":"\xc3","value":1}')
    yield "NUL bytes", single(b"\0" * 40)
    yield "nothing", single(b"")
    yield "again", single(ITEM)


def batches() -> Iterator[tuple[str, Case]]:
    index = np.arange(40, dtype=np.uint32) % 3
    moment = START_US - np.arange(40, dtype=np.int64)
    value = np.arange(40, dtype=np.float64) / 4
    columns = (["a", "b", "ü"], index, moment, value)
    forms = {
        "application/json": [encode_rows(*columns), encode_columnar(*columns)],
        "application/x-ndjson": [encode_ndjson(*columns)],
        "application/x-ocean-block": [encode_block(*columns)],
    }
    forms["application/json"].append(b'{"readings":%b}' % forms["application/json"][0])
    packings: dict[str, Callable[[bytes], bytes]] = {
        "identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress, "x-gzip": gzip.compress,
        "br": bytes, "gzip, gzip": gzip.compress, "deflate": bytes,
    }  # fmt: skip
    for kind, contents in forms.items():
        for number, content in enumerate(contents):
            for query in ("", "?partial=true", "?partial=false"):
                yield f"{kind} {number} {query}", batch(content, query=query, kind=kind)
            yield f"{kind} {number} cut", batch(content[:-3], kind=kind)
            yield (
                f"{kind} {number} cut, partial",
                batch(content[:-3], query="?partial=true", kind=kind),
            )
            yield f"{kind} {number} as a single", single(content, kind=kind)
            for coding, pack in packings.items():
                header = f"Content-Encoding: {coding}"
                packed = pack(content)
                yield f"{kind} {number} {coding}", batch(packed, header, kind=kind)
                yield f"{kind} {number} {coding} cut", batch(packed[:-2], header, kind=kind)
                yield f"{kind} {number} {coding} more", batch(packed + b"x", header, kind=kind)
    bomb = b"[" + b" " * 1_000_000 + b"]"
    for coding, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        yield f"bomb {coding}", batch(pack(bomb), f"Content-Encoding: {coding}")
        yield f"single {coding}", single(pack(ITEM), f"Content-Encoding: {coding}")
        yield f"plain as {coding}", single(ITEM, f"Content-Encoding: {coding}")
    mixed = json.dumps(
        [{"sensor_id": "s", "value": n} if n % 3 else {"sensor_id": "s"} for n in range(20)]
    )
    for flag in ("true", "false", "1", "0", "TRUE", "yes", "", "2", "true&partial=false", "true&partail=1",
                 "%74rue", "true&x=1"):  # fmt: skip
        yield f"partial={flag}", batch(mixed, query=f"?partial={flag}")
    for query in ("?", "?x=1", "?partial", "?Partial=true", "?%70artial=true"):
        yield f"query {query}", batch(mixed, query=query)
    bodies = {
        "none": "[]", "none wrapped": '{"readings":[]}', "all bad": '[{"value":1},{}]',
        "an object": '{"sensor_id":"s","value":1}', "numbers": "[1,2]", "null": "null",
        "events": '[{"sensor_id":"s","data":1},{"sensor_id":"s","value":1}]',
        "columns of two lengths": '{"sensor_id":["a","b"],"value":[1]}',
        "one sensor": '{"sensor_id":"a","value":[1,2,3]}',
        "columns with a bad value": '{"sensor_id":"a","value":[1,null,3]}',
        "unknown column": '{"sensor_id":"a","value":[1],"vlaue":[1]}',
    }  # fmt: skip
    for name, body in bodies.items():
        for query in ("", "?partial=true"):
            yield f"{name} {query}", batch(body, query=query)


def repeats() -> Iterator[tuple[str, Case]]:
    def keyed(key: str, body: bytes = ITEM, path: str = INGEST) -> Case:
        return Case(request(path, body, f"Idempotency-Key: {key}"))

    rows = b'[{"sensor_id":"s","value":1},{"sensor_id":"t","value":2}]'
    yield "new", keyed("a")
    yield "repeat", keyed("a")
    yield "again", keyed("a")
    yield "without", single(ITEM)
    yield "other body", keyed("a", b'{"sensor_id":"s","value":2}')
    yield "other form", keyed("a", rows, BATCH)
    yield "other letters", keyed("A")
    yield "batch", keyed("b", rows, BATCH)
    yield "batch again", keyed("b", rows, BATCH)
    yield "in part", keyed("b", rows, BATCH + "?partial=true")
    yield "bad body", keyed("c", b"{")
    yield "bad body of a known key", keyed("a", b"{")
    for name, key in {
        "empty": "", "space": " ", "longest": "k" * 255, "too long": "k" * 256,
        "controls": "a\tb", "umlaut": "ä", "spaces inside": "a b", "quoted": '"a"',
    }.items():  # fmt: skip
        yield name, keyed(key)
        yield f"{name} again", keyed(key)
    yield "twice", Case(request(INGEST, ITEM, "Idempotency-Key: x", "Idempotency-Key: y"))
    yield (
        "of a key",
        Case(request(INGEST, ITEM, "Idempotency-Key: a", "Authorization: Bearer ocean_good_1")),
    )


def principals() -> Iterator[tuple[str, Case]]:
    inside = json.dumps({"sensor_id": "hall/1", "value": 1})
    values = [
        None, "Bearer ocean_good_1", "bearer ocean_good_1", "BEARER  ocean_good_1 ", "ocean_good_1",
        "Bearer", "Bearer ", "Basic b2NlYW46eA==", "Bearer ocean_none_1", "Bearer nonsense",
        "Bearer owner_x", "Bearer owner_y", "Bearer ocean_admin_1", "Bearer ocean_read_1",
        "Bearer ocean_hall_1", "Bearer ocean_good_1, Bearer ocean_good_1", "Bearer ocean_gööd_1",
        "Bearer " + "o" * 300, "Bearer ocean_" + "o" * 300, "",
    ]  # fmt: skip
    for value in values:
        for body in (ITEM.decode(), inside):
            headers = () if value is None else (f"Authorization: {value}",)
            for path in (INGEST, BATCH):
                content = body if path == INGEST else f"[{body}]"
                raw = request(path, content, *headers)
                name = f"{value} {path[-6:]} {body[14:20]}"
                yield f"{name} here", Case(raw)
                yield f"{name} elsewhere", remote(raw)
    twice = ("Authorization: Bearer ocean_good_1", "Authorization: Bearer ocean_read_1")
    yield "two keys", Case(request(INGEST, ITEM, *twice))
    yield "a stranger on the local listener", Case(request(INGEST, ITEM), address="192.0.2.9")
    yield "one with a key", Case(request(INGEST, ITEM, twice[0]), address="192.0.2.9")
    yield "IPv6", Case(request(INGEST, ITEM), address="::1")
    for number in range(6):
        yield (
            f"rate {number}",
            Case(request(INGEST, ITEM, "Authorization: Bearer ocean_slow_1")),
        )
    for number in range(5):
        yield (
            f"credits {number}",
            Case(request(INGEST, ITEM, "Authorization: Bearer ocean_paid_1")),
        )
    yield (
        "credits for many",
        Case(request(BATCH, f"[{inside}]", "Authorization: Bearer ocean_paid_1")),
    )


def pages() -> Iterator[tuple[str, Case]]:
    for host in ("localhost", "localhost:8030", "LOCALHOST", "127.0.0.1", "127.0.0.1:8030", "[::1]",
                 "192.0.2.1", "evil.example", "localhost.evil.example", "a.localhost", "", None,
                 "localhost:x", "@localhost", "localhost@evil.example", "evil.example#localhost",
                 "[::1", "local host", "ä", "localhost, localhost"):  # fmt: skip
        raw = request(INGEST, ITEM, host=host)
        keyed = request(INGEST, ITEM, "Authorization: Bearer ocean_good_1", host=host)
        yield f"host {host}", Case(raw)
        yield f"host {host} with a key", Case(keyed)
        yield f"host {host} elsewhere", remote(keyed)
    for header in ("Origin: http://localhost", "Origin: http://localhost:8030", "Origin: null",
                   "Origin: https://evil.example", "Origin:", "Sec-Fetch-Site: cross-site",
                   "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", "Via: 1.1 p",
                   "X-Forwarded-For: 127.0.0.1", "x-forwarded-anything: x", "Forwarded: for=::1",
                   "X-Real-IP: 127.0.0.1", "X-Forwarded: 1", "Cookie: a=b", "Referer: http://evil/",
                   "X-HTTP-Method-Override: DELETE", "Range: bytes=0-1", "If-None-Match: *",
                   "Accept: text/html", "Accept-Encoding: gzip", "Prefer: return=minimal",
                   "X-Request-Id: 1", "Host: localhost", "Host: evil.example"):  # fmt: skip
        yield header, single(ITEM, header)
        yield f"{header} with a key", single(ITEM, header, "Authorization: Bearer ocean_good_1")
        keyed = request(INGEST, ITEM, header, "Authorization: Bearer ocean_good_1")
        yield f"{header} elsewhere", remote(keyed)


def kinds() -> Iterator[tuple[str, Case]]:
    for kind in (None, "", "application/json", "APPLICATION/JSON", "text/json", "text/plain",
                 "application/json; charset=utf-8", "application/json;charset=latin-1",
                 "application/senml+json", "application/x-www-form-urlencoded", "json", "*/*",
                 "application/x-ndjson", "application/x-ocean-block", "multipart/form-data; b=1",
                 "application/json, text/plain", "application/jsön", ";charset=utf-8",
                 'application/json; charset="UTF-8"', " application/json "):  # fmt: skip
        yield f"single {kind}", single(ITEM, kind=kind)
        yield f"batch {kind}", batch(b"[%b]" % ITEM, kind=kind)
    yield "two", single(ITEM, "Content-Type: text/plain")
    for coding in ("", "identity", "IDENTITY", "gzip", "br", "identity, gzip", "x", "zstd"):
        yield f"coding {coding}", single(ITEM, f"Content-Encoding: {coding}")
    yield "two codings", single(ITEM, "Content-Encoding: identity", "Content-Encoding: gzip")


def wording() -> Iterator[tuple[str, Case]]:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "post", "POSt", "TRACE"):
        yield f"{method} single", Case(request(INGEST, ITEM, method=method))
        yield f"{method} batch", Case(request(BATCH, ITEM, method=method))
    for path in (INGEST + "/", INGEST + "?", INGEST + "?x=1", INGEST + "#x", INGEST.upper(),
                 "/" + INGEST, INGEST + ";v=1", INGEST.replace("ingest", "%69ngest"),
                 "http://localhost" + INGEST, "http://evil.example" + INGEST, "//evil" + INGEST,
                 "*", "/", INGEST + "%00", INGEST + "%ff", INGEST + "?a=%ff", "/x/.." + INGEST,
                 INGEST + "\\", "/api/ocean/telemetry", INGEST + "/x"):  # fmt: skip
        yield f"path {path}", Case(request(path, ITEM))
    for version in ("1.0", "1.1", "0.9", "1.2", "2.0", "3"):
        yield f"version {version}", single(ITEM, version=version)
        yield f"version {version}, stays", single(ITEM, "Connection: keep-alive", version=version)
    for header in ("Connection: close", "Connection: Close", "Connection: keep-alive",
                   "Connection: Keep-Alive", "Connection:", "Connection: close, keep-alive",
                   "Connection: keep-alive, x", "Connection: upgrade", "Connection: x",
                   "Expect: 100-continue", "Expect: x", "TE: trailers", "Trailer: x", "Upgrade: x",
                   "Keep-Alive: timeout=5", "X-Odd: \x7f", "X-Odd: ä", "X-Odd: a\tb", "x_y: 1",
                   "X-Empty:", "x" * 300 + ": 1"):  # fmt: skip
        yield header[:40], single(ITEM, header)
        yield f"{header[:40]}, bad body", single(b"{", header)
        yield f"{header[:40]}, too large", single(b"x" * (BODY_BYTES_MAX + 1), header)
        yield (
            f"{header[:40]}, bomb",
            batch(gzip.compress(b" " * 60_000), header, "Content-Encoding: gzip"),
        )
    yield "upper case", Case(request(INGEST, ITEM).replace(b"Content-", b"CONTENT-"))
    yield (
        "lower case",
        Case(request(INGEST, ITEM).replace(b"Content-", b"content-").replace(b"Host", b"host")),
    )
    yield "no space", Case(request(INGEST, ITEM).replace(b": ", b":"))
    yield "many spaces", Case(request(INGEST, ITEM).replace(b": ", b":  \t "))
    yield "spaces behind", Case(request(INGEST, ITEM).replace(b"\r\nContent-T", b" \r\nContent-T"))
    yield "no length", single(ITEM, length=None)
    yield "length and zeros", single(ITEM, length=f"000{len(ITEM)}")
    yield "length of nothing", single(b"", length="0")
    yield "many headers", single(ITEM, *(f"X-{n}: {n}" for n in range(200)))
    yield "too many headers", single(ITEM, *(f"X-{n}: {n}" for n in range(400)))
    yield (
        "too many headers and much",
        single(b" " * 19_000, *(f"X-{n}: {'x' * 40}" for n in range(400))),
    )
    yield "a large header", single(ITEM, "X-Large: " + "x" * 20_000)
    yield "too large a header", single(ITEM, "X-Large: " + "x" * 40_000)
    yield "too large a key", single(ITEM, "Idempotency-Key: " + "x" * 40_000)
    yield "too large an address", Case(request(INGEST + "?" + "x" * 40_000, ITEM))


def frames() -> Iterator[tuple[str, Case]]:
    """Nanogridata, in every form, taken by a service of frames that is none."""
    good, bad, busy = frame("a"), frame("b", "mac"), frame("c", "busy")
    kind = "application/x-nanogridata"
    bodies = {
        "good": good, "again": good, "bad": bad, "busy": busy, "foreign": frame("f", "foreign"),
        "two": frame("d") + frame("e", "two"), "bad among good": good + bad + frame("g"),
        "all bad": bad + bad, "garbage": b"\0" * 40, "text": good.hex().encode(), "nothing": b"",
        "JSON": ITEM, "too large": good * 1000, "many": b"".join(frame(str(n), "mac") for n in range(300)),
    }  # fmt: skip
    for name, body in bodies.items():
        yield f"{name}, one", single(body, kind=kind)
        yield f"{name}, several", batch(body, kind=kind)
        yield f"{name}, in part", batch(body, query="?partial=true", kind=kind)
        yield f"{name}, keyed", single(body, "Idempotency-Key: a", kind=kind)
        for coding, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
            header = f"Content-Encoding: {coding}"
            yield f"{name}, {coding}", batch(pack(body), header, kind=kind)
            yield f"{name}, {coding}, one", single(pack(body), header, kind=kind)
            yield f"{name}, not {coding}", batch(body, header, kind=kind)
        yield f"{name} by a key", single(body, "Authorization: Bearer ocean_hall_1", kind=kind)
        yield f"{name} elsewhere", remote(request(INGEST, body, kind=kind))
        data = json.dumps({"sensor_id": "s", "data": body.hex()})
        yield f"{name} in JSON", single(data)
        rows = f'[{ITEM.decode()},{data},{{"sensor_id":"t","data":"x"}},{data}]'
        lines = f"{ITEM.decode()}\n{data}\n{ITEM.decode()}"
        for query in ("", "?partial=true"):
            yield f"{name} in an array {query}", batch(rows, query=query)
            yield f"{name} in readings {query}", batch(f'{{"readings":{rows}}}', query=query)
            yield f"{name} in lines {query}", batch(lines, query=query, kind="application/x-ndjson")
            yield f"{name} alone {query}", batch(f"[{data}]", query=query)
            yield f"{name} and a bad item {query}", batch(f"[{data},{{}}]", query=query)
            key = f"Idempotency-Key: {name} {query}"
            yield f"{name} in an array {query}, keyed", batch(rows, key, query=query)
            yield f"{name} in an array {query}, repeated", batch(rows, key, query=query)
    yield "base64", single(json.dumps({"sensor_id": "s", "data": b64encode(frame("h")).decode()}))
    yield "large and keyed", batch(good + b" " * 9000, "Idempotency-Key: x", kind=kind)


TABLES = {
    table.__name__: table
    for table in (singles, batches, repeats, principals, pages, kinds, wording, frames)
}


def outcome(box: Box, answers: Any) -> dict[str, Any]:
    """Return everything that must be the same both ways."""
    return {
        "answers": answers,
        "counted": box.counted(),
        "ledger": box.refusals.take(),
        "stored": box.stored(),
        "log": [line for line in log_of(box) if "api.internal_error" not in line],
        "alarms": [alarm for alarm in log_of(box) if "alarm" in alarm],
        "held": box.bodies.held,
        "frames": box.taker.asked,
        "used keys": sorted(set(box.keys.used)),
    }


def log_of(box: Box) -> list[str]:
    return re.findall(r"^20\d\d-.*$", box.told.getvalue(), re.MULTILINE)


def in_order(said: Said) -> Said:
    """Sort what Litestar lists as it happens to come."""
    content = re.sub(
        rb"\r\nallow: ([A-Z, ]+)",
        lambda found: b"\r\nallow: " + b", ".join(sorted(found[1].split(b", "))),
        said.content,
    )
    return Said(content, said.closed)


def compare(results: list[dict[str, Any]], names: list[str]) -> None:
    fast, slow = results
    for name, quick, thorough in zip(names, fast["answers"], slow["answers"], strict=True):
        assert in_order(quick) == in_order(thorough), name
    for what in fast.keys() - {"answers"}:
        assert fast[what] == slow[what], what


# --- the comparison


@pytest.mark.parametrize("table", TABLES)
def test_both_ways_answer_count_and_store_the_same(tmp_path: Path, table: str) -> None:
    cases = dict(TABLES[table]())

    async def scenario(box: Box) -> dict[str, Any]:
        answers: list[Said] = []
        for case in cases.values():
            answers.append(await box.ask(case.raw, case.listener, case.address))
            box.clock.advance(0.01)
        answered = sum(1 for answer in answers if answer.content)
        if box.fast:
            # So that the comparison is not one of the slow way with itself.
            assert len(box.slow_requests) < answered * 0.9, "nearly nothing was fast"
        else:
            assert len(box.slow_requests) > answered * 0.7
        return outcome(box, answers)

    compare(play(tmp_path, scenario, access=AccessSettings()), list(cases))


@pytest.mark.parametrize("table", TABLES)
def test_both_ways_are_the_same_on_one_connection(tmp_path: Path, table: str) -> None:
    """What one request leaves behind on its connection changes nothing for the next."""
    cases = dict(TABLES[table]())

    async def scenario(box: Box) -> dict[str, Any]:
        lines: dict[tuple[str, str], Line] = {}
        answers: list[Said] = []
        for case in cases.values():
            place = (case.listener, case.address)
            line = lines.get(place)
            if line is None or line.wire.is_closed:
                line = lines[place] = box.connect(*place)
            answers.append(await line.ask(case.raw))
        return outcome(box, answers)

    compare(play(tmp_path, scenario), list(cases))


def test_quotas_are_the_same(tmp_path: Path) -> None:
    items = [{"sensor_id": f"q{n // 3}", "metric": f"m{n % 3}", "value": 1} for n in range(15)]
    plain = [{"sensor_id": f"q{n}", "value": 1} for n in range(9)]
    cases = [request(INGEST, json.dumps(item)) for item in [*items, *plain, *plain]]
    cases.append(request(BATCH, json.dumps(plain)))

    async def scenario(box: Box) -> dict[str, Any]:
        return outcome(box, [await box.ask(raw) for raw in cases])

    settings = IngestSettings(series_per_sensor_max=2, series_total_max=12)
    compare(play(tmp_path, scenario, ingest=settings), [repr(raw) for raw in cases])


def test_rates_of_addresses_are_the_same(tmp_path: Path) -> None:
    good = request(INGEST, ITEM, "Authorization: Bearer ocean_good_1")
    bad = request(INGEST, ITEM, "Authorization: Bearer ocean_none_1")
    cases = [good, bad, good, good, good, bad, request(BATCH, b"[]"), good] * 3

    async def scenario(box: Box) -> dict[str, Any]:
        answers = []
        for number, raw in enumerate(cases):
            answers.append(await box.ask(raw, "network", f"192.0.2.{number % 2}"))
            box.clock.advance(0.1)
        assert {answer.content[9:12] for answer in answers} >= {b"200", b"401", b"429"}
        return outcome(box, answers)

    settings = AccessSettings(requests_per_address_max=2)
    compare(play(tmp_path, scenario, access=settings), [repr(raw) for raw in cases])


@pytest.mark.parametrize("trusts", [True, False])
def test_whether_this_machine_needs_a_key_is_the_same(tmp_path: Path, trusts: bool) -> None:
    cases = [request(INGEST, ITEM), request(INGEST, ITEM, "Authorization: Bearer ocean_good_1")]

    async def scenario(box: Box) -> dict[str, Any]:
        return outcome(box, [await box.ask(raw) for raw in cases])

    results = play(tmp_path, scenario, access=AccessSettings(trust_loopback=trusts))
    compare(results, ["without", "with"])
    assert (b" 200 " in results[0]["answers"][0].content[:20]) is trusts


# New ones each time: what an error knows of its request is written into it.
FAILURES: dict[str, Callable[[], Exception]] = {
    "unavailable": lambda: BufferUnavailableError("the journal is closed", retry_after_s=5),
    "disk full": lambda: DiskFullError("no space left", retry_after_s=5),
    "disk failing": lambda: StoreIOError("input/output error", retry_after_s=5),
    "queue full": lambda: BufferFullError("too much waits for the disk", retry_after_s=2),
    "queue full, no time": lambda: BufferFullError("too much waits for the disk"),
    "unexpected": lambda: RuntimeError("nobody thought of this"),
    "unexpected kind": lambda: KeyError("x"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_are_told_the_same_way(tmp_path: Path, failure: str) -> None:
    cases = [
        request(INGEST, ITEM),
        request(INGEST, ITEM, "Idempotency-Key: k"),
        request(INGEST, b'{"sensor_id":"s","data":"x"}'),
        request(BATCH, b"[%b]" % ITEM),
        request(BATCH + "?partial=true", b"[%b,1]" % ITEM),
        request(INGEST, ITEM, "Authorization: Bearer ocean_paid_1"),
        request(INGEST, ITEM, "Connection: close"),
        request(INGEST, b"{"),
    ]

    async def scenario(box: Box) -> dict[str, Any]:
        answers = [await box.ask(cases[0])]
        box.buffer.failure = FAILURES[failure]
        answers.extend([await box.ask(raw) for raw in cases])
        line = box.connect()
        answers.append(await line.ask(cases[0] * 3))
        box.buffer.failure = None
        answers.append(await line.ask(cases[0]))
        if box.fast:
            assert not [seen for seen in box.slow_requests if "/batch" in seen]
        return outcome(box, answers)

    results = play(tmp_path, scenario)
    if failure.startswith("unexpected"):
        # The fast path still knows which sensor it was.
        for result in results:
            result["ledger"] = sum(result["ledger"].values())
    compare(results, ["before", *map(repr, cases), "three at once", "after"])
    status = int(results[0]["answers"][1].content[9:12])
    expected = {"queue": 429, "disk full": 507, "unexp": 500}
    assert status == next((s for n, s in expected.items() if failure.startswith(n)), 503)
    if status == 429:
        assert b"\r\nretry-after: " in results[0]["answers"][1].content


def test_a_clock_that_cannot_be_trusted_is_treated_the_same(tmp_path: Path) -> None:
    bodies = [
        json.dumps({"sensor_id": "s", "value": 1, "timestamp": moment})
        for moment in (None, START_US, START_US + 10**9, 0, 10**6, 1, "2026-01-17")
    ]

    async def scenario(box: Box) -> dict[str, Any]:
        answers = [await box.ask(request(INGEST, ITEM))]
        for now_us in (START_US, 5_000_000, 946_684_799_000_000, 946_684_800_000_000,
                       START_US - 10**9, START_US + 10**9):  # fmt: skip
            box.clock.set_wall(now_us)
            for is_synchronised in (True, False):
                box.clock.is_synchronised = is_synchronised
                answers.extend([await box.ask(request(INGEST, body)) for body in bodies])
        return outcome(box, answers)

    results = play(tmp_path, scenario)
    compare(results, [str(n) for n in range(len(results[0]["answers"]))])


def test_a_body_that_hardly_fits_in_memory_is_treated_the_same(tmp_path: Path) -> None:
    large = request(BATCH, b"[%b]" % ITEM + b" " * 60_000)

    async def scenario(box: Box) -> dict[str, Any]:
        answers = []
        for reserved in (0, 900_000, (1 << 20) - 60_000, 1 << 20):
            source = f"somebody {reserved}"
            assert box.bodies.reserve(source, reserved)
            answers.append(await box.ask(large))
            answers.append(await box.ask(request(INGEST, ITEM)))
            box.bodies.release(source, reserved)
        return outcome(box, answers)

    results = play(tmp_path, scenario, server=ServerSettings(port=0))
    compare(results, [str(n) for n in range(8)])
    codes = [answer.content[9:12] for answer in results[0]["answers"][::2]]
    assert codes == [b"200", b"200", b"429", b"429"]
    assert results[0]["held"] == 0


def test_a_body_that_does_not_end_and_one_that_is_given_up_are_treated_the_same(
    tmp_path: Path,
) -> None:
    raw = request(INGEST, ITEM)

    async def scenario(box: Box) -> dict[str, Any]:
        slow, gone = box.connect(), box.connect()
        slow.send(raw[:-5])
        gone.send(raw[:-7])
        await box.settle()
        gone.hang_up()
        async with asyncio.timeout(10):
            while not slow.wire.is_closed:  # noqa: ASYNC110 - the server's own timer
                await asyncio.sleep(0.01)
        said = [slow.take(), gone.take()]
        await box.settle()
        return outcome(box, said)

    results = play(tmp_path, scenario, server=ServerSettings(port=0, request_timeout_s=1))
    compare(results, ["slow", "gone"])
    assert results[0]["answers"][0].content.startswith(b"HTTP/1.1 408 ")


# --- which way, and who still counts


def test_the_usual_requests_take_the_fast_path_and_odd_ones_do_not(tmp_path: Path) -> None:
    fast = [
        request(INGEST, ITEM),
        request(INGEST, b"{"),
        request(INGEST, ITEM, "Authorization: Bearer ocean_good_1"),
        request(INGEST, ITEM, "Idempotency-Key: k", "User-Agent: x", "Accept: */*"),
        request(BATCH, b"[%b]" % ITEM),
        request(BATCH + "?partial=true", b"[%b,2]" % ITEM),
        request(BATCH, gzip.compress(b"[%b]" % ITEM), "Content-Encoding: gzip"),
    ]
    slow = [
        request(INGEST, ITEM, "Connection: close"),
        request(INGEST, ITEM, "Expect: 100-continue"),
        request(INGEST, ITEM, "X-Forwarded-For: 10.0.0.1"),
        request(INGEST, ITEM, "Origin: http://localhost"),
        request(INGEST, ITEM, "Authorization: Bearer ocean_none_1"),
        request(INGEST, ITEM, version="1.0"),
        request(INGEST, ITEM, host="evil.example"),
        request("/health", b"", method="GET"),
        request(BATCH + "?partial=1", b"[%b]" % ITEM),
    ]

    async def scenario(box: Box) -> tuple[int, int]:
        for raw in fast:
            await box.ask(raw)
        first = len(box.slow_requests)
        for raw in slow:
            await box.ask(raw)
        return first, len(box.slow_requests)

    assert play(tmp_path, scenario) == [(0, len(slow)), (len(fast), len(fast) + len(slow))]


def test_a_key_that_is_revoked_or_expires_counts_no_longer_on_an_open_connection(
    tmp_path: Path,
) -> None:
    async def scenario(box: Box) -> list[bytes]:
        answers = []
        for name in ("brief", "good"):
            raw = request(INGEST, ITEM, f"Authorization: Bearer ocean_{name}_1")
            line, other = box.connect("network", "192.0.2.1"), box.connect()
            for ask in (line.ask, other.ask):
                answers.extend([await ask(raw), await ask(raw)])
            if name == "good":
                box.keys.revoke("ocean_good_1")
            else:
                box.clock.advance(60)
            answers.extend([await line.ask(raw), await other.ask(raw), await box.ask(raw)])
        return [said.content[9:12] for said in answers]

    fast, slow = play(tmp_path, scenario)
    assert fast == slow == ([b"200"] * 4 + [b"401"] * 3) * 2


def test_what_one_listener_has_learned_is_not_believed_by_another(tmp_path: Path) -> None:
    """The same head is good for one who may, and bad for one who may not."""
    strange = request(INGEST, ITEM, host="evil.example")
    keyed = request(INGEST, ITEM, "Authorization: Bearer ocean_good_1", host="evil.example")
    plain = request(INGEST, ITEM)

    async def scenario(box: Box) -> list[bytes]:
        answers = []
        for _ in range(2):
            for raw in (plain, strange, keyed):
                for place in (("network", "192.0.2.1"), ("local", "127.0.0.1"),
                              ("local", "192.0.2.1"), ("network", "127.0.0.1")):  # fmt: skip
                    said = await box.ask(raw, *place)
                    answers.append(said)
        return [said.content[9:12] for said in answers]

    fast, slow = play(tmp_path, scenario)
    assert fast == slow
    assert fast[:12] == [
        b"401", b"200", b"401", b"401",
        b"401", b"403", b"401", b"401",
        b"200", b"200", b"200", b"200",
    ]  # fmt: skip
