"""Bad input: a precise refusal, nothing stored, no process harmed."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.appliance import Appliance, Peaks
from support.web import BATCH, INGEST, STATUS, Http, Reply

MIB = 1024 * 1024
BODY_MAX = 16 * MIB
HUGE = 100 * MIB
# What may be held of a body that is too large: the limit, once more while it is put together.
MEMORY_MAX = 3 * BODY_MAX
GOOD = {"sensor_id": "good", "value": 1.5}

# The whole module shares one server: what one case does to it, the next would notice.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("bad-input"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    data_dir = tmp_path_factory.mktemp("bad") / "data"
    with Appliance(data_dir, OCEAN_SERVER__REQUEST_TIMEOUT_S="1") as running:
        running.start()
        yield running
        assert "api.internal_error" not in running.log(), "a fault of our own was met"
        assert "Traceback" not in running.log()
        assert running.stop() == 0


@pytest.fixture
def http(box: Appliance) -> Iterator[Http]:
    """A connection; afterwards nothing may be stored, and the same process must be well."""
    before = box.status()["buffer"]["head_id"]
    yield box.http()
    status = box.http().get(STATUS).good()
    assert status["buffer"]["head_id"] == before, "something was stored"
    assert status["processes"]["ingest"]["pid"] == box.pid
    assert box.http().get("/health", ready="true").status == 200


def text(item: dict[str, Any], **raw: str) -> bytes:
    """Return JSON in which some values stand as written, valid or not."""
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in item.items()]
    parts += [f"{json.dumps(name)}: {value}" for name, value in raw.items()]
    return ("{" + ", ".join(parts) + "}").encode()


# --- no JSON --------------------------------------------------------------------------------------

MALFORMED = {
    "empty": (b"", "empty"),
    "blank": (b" \n\t ", "empty"),
    "words": (b"temperature=5", "byte 1"),
    "cut": (b'{"sensor_id": "a", "value": 1', "ends too early"),
    "comma": (b'{"sensor_id": "a", "value": 1,}', "byte"),
    "two": (b'{"sensor_id": "a", "value": 1} {}', "byte"),
    "single quotes": (b"{'sensor_id': 'a', 'value': 1}", "byte 1"),
    "comment": (b'{"sensor_id": "a", /* x */ "value": 1}', "byte"),
    "NaN": (text({"sensor_id": "a"}, value="NaN"), "byte"),
    "Infinity": (text({"sensor_id": "a"}, value="Infinity"), "byte"),
    "-Infinity": (text({"sensor_id": "a"}, value="-Infinity"), "byte"),
    "hex": (text({"sensor_id": "a"}, value="0x10"), "byte"),
    "leading zero": (text({"sensor_id": "a"}, value="01"), "byte"),
    "raw control character": (b'{"sensor_id": "a\nb", "value": 1}', "byte"),
    "invalid UTF-8": (b'{"sensor_id": "\xff\xfe", "value": 1}', "byte 15 is 0xff"),
    "overlong UTF-8": (b'{"sensor_id": "\xc0\xaf", "value": 1}', "byte 15 is 0xc0"),
    "surrogate in UTF-8": (b'{"sensor_id": "\xed\xa0\x80", "value": 1}', "byte 15 is 0xed"),
    "half a surrogate pair": (b'{"sensor_id": "\\ud800", "value": 1}', "surrogate"),
    "byte order mark": (b'\xef\xbb\xbf{"sensor_id": "a", "value": 1}', "byte order mark"),
    "UTF-16": ('{"sensor_id": "a", "value": 1}'.encode("utf-16"), "byte 0 is 0xff"),
    "zero bytes": (bytes(1000), "byte 0"),
    "deep nesting": (b'{"sensor_id":"a","data":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("path", [INGEST, BATCH], ids=["ingest", "batch"])
def test_malformed(http: Http, name: str, path: str) -> None:
    body, told = MALFORMED[name]
    problem = http.post(path, body).problem(400, "OC-2001")
    assert told in problem["detail"], problem
    assert problem["hint"]


@pytest.mark.parametrize("name", sorted(MALFORMED.keys() - {"empty", "blank", "byte order mark"}))
def test_malformed_item_of_a_batch(http: Http, name: str) -> None:
    """The place that is told is that in the body, not in the item."""
    good = json.dumps(GOOD).encode()
    body = b"[" + good + b", " + MALFORMED[name][0] + b"]"
    problem = http.post(BATCH, body).problem(400, "OC-2001")
    place = re.search(r"byte (\d+)", problem["detail"])
    assert "nested" in problem["detail"] or (place and int(place.group(1)) > len(good)), problem


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (INGEST, b"[]", "is an array"),
        (INGEST, b'"text"', "is a string"),
        (INGEST, b"5", "is a number"),
        (INGEST, b"null", "is null"),
        (BATCH, b"5", "is a number"),
        (BATCH, b'{"sensor_id": "a", "value": 1}', "is one object"),
        (BATCH, b'{"readings": 5}', "readings is a number"),
    ],
    ids=str,
)
def test_other_json_than_belongs_here(http: Http, path: str, body: bytes, told: str) -> None:
    problem = http.post(path, body).problem(400, "OC-2001")
    assert told in problem["detail"]


# --- fields ---------------------------------------------------------------------------------------

# name: (JSON of the item, field, found begins with, expected contains)
FIELDS: dict[str, tuple[bytes, str, str, str]] = {
    "no sensor": (b'{"value": 1}', "sensor_id", "nothing", "a string"),
    "sensor is a number": (text({"value": 1}, sensor_id="7"), "sensor_id", "7", "a string"),
    "sensor is null": (text({"value": 1}, sensor_id="null"), "sensor_id", "null", "a string"),
    "sensor is empty": (text({"sensor_id": "", "value": 1}), "sensor_id", '""', "1 to 256 bytes"),
    "sensor is too long": (
        text({"sensor_id": "x" * 257, "value": 1}), "sensor_id", '"xxx', "at most 256 bytes",
    ),
    "sensor is too long in bytes": (
        text({"sensor_id": "ö" * 129, "value": 1}), "sensor_id", '"', "not 258",
    ),
    "control character": (
        text({"sensor_id": "a\x00b", "value": 1}), "sensor_id", '"a\\u0000b', "no control",
    ),
    "delete character": (
        text({"sensor_id": "a\x7fb", "value": 1}), "sensor_id", '"a', "no control characters",
    ),
    "line break": (text({"sensor_id": "a\nb", "value": 1}), "sensor_id", '"a', "no control"),
    "white space": (text({"sensor_id": " a", "value": 1}), "sensor_id", '" a"', "white space"),
    "no content": (b'{"sensor_id": "a"}', "value", "nothing", "exactly one of"),
    "value and data": (
        text({"sensor_id": "a", "value": 1, "data": 2}), "value", "value and data", "exactly one",
    ),
    "value is text": (text({"sensor_id": "a", "value": "12"}), "value", '"12"', "a number"),
    "value is null": (text({"sensor_id": "a"}, value="null"), "value", "null", "a number"),
    "value is true": (text({"sensor_id": "a"}, value="true"), "value", "true", "a number"),
    "value is an array": (text({"sensor_id": "a"}, value="[1]"), "value", "[1]", "a number"),
    "value too large": (text({"sensor_id": "a"}, value="1e999"), "value", "1e999", "64-bit float"),
    "value far too large": (
        text({"sensor_id": "a"}, value="9" * 400), "value", "999", "64-bit float",
    ),
    "data too large": (text({"sensor_id": "a"}, data="-1e400"), "data", "-1e400", "64-bit float"),
    "values empty": (text({"sensor_id": "a", "values": {}}), "values", "{}", "at least one"),
    "values is a list": (text({"sensor_id": "a", "values": [1]}), "values", "[1]", "an object"),
    "metric is text": (
        text({"sensor_id": "a", "values": {"t": "x"}}), "values.t", '"x"', "a number",
    ),
    "metric too large": (
        text({"sensor_id": "a"}, values='{"t": 1e999}'), "values.t", "1e999", "64-bit float",
    ),
    "metric name empty": (text({"sensor_id": "a", "values": {"": 1}}), "values.", '""', "1 to 128"),
    "too many metrics": (
        text({"sensor_id": "a", "values": {f"m{i}": i for i in range(65)}}),
        "values", "65 metrics", "at most 64",
    ),
    "metric beside values": (
        text({"sensor_id": "a", "metric": "x", "values": {"t": 1}}), "metric", "metric beside",
        "only beside value",
    ),
    "unknown field": (
        text({"sensor_id": "a", "value": 1, "valeu": 2}), "valeu", "2", "only the fields",
    ),
    "timestamp no date": (
        text({**GOOD, "timestamp": "yesterday"}), "timestamp", '"yesterday"', "ISO 8601",
    ),
    "timestamp no day": (
        text({**GOOD, "timestamp": "2026-02-30T00:00:00Z"}), "timestamp", '"2026-02-30',
        "a day that exists",
    ),
    "timestamp no hour": (
        text({**GOOD, "timestamp": "2026-01-01T25:00:00Z"}), "timestamp", '"2026', "time of day",
    ),
    "timestamp leap second": (
        text({**GOOD, "timestamp": "2016-12-31T23:59:60Z"}), "timestamp", '"2016', "leap seconds",
    ),
    "timestamp before 1970": (
        text({**GOOD, "timestamp": "1969-12-31T23:59:59Z"}), "timestamp", '"1969', "1970-01-01",
    ),
    "timestamp negative": (text({**GOOD, "timestamp": -5}), "timestamp", "-5", "1970-01-01"),
    "timestamp after 9999": (text({**GOOD, "timestamp": 1e30}), "timestamp", "1e+30", "9999"),
    "timestamp is true": (text(GOOD, timestamp="true"), "timestamp", "true", "a string, a number"),
    "timestamp is an object": (text(GOOD, timestamp="{}"), "timestamp", "{}", "a string, a number"),
    "timestamp empty": (text({**GOOD, "timestamp": ""}), "timestamp", '""', "ISO 8601"),
    "timestamp too large": (text(GOOD, timestamp="1e999"), "timestamp", "1e999", "64-bit float"),
}  # fmt: skip


def check_field(problem: dict[str, Any], case: str, item: int | None) -> None:
    _, field, found, expected = FIELDS[case]
    entry = next((e for e in problem["errors"] if e["field"] == field), None)
    assert entry is not None, problem["errors"]
    assert entry["found"].startswith(found), entry
    assert expected in entry["expected"], entry
    assert entry.get("item") == item, entry
    assert len(entry["found"]) <= 80


@pytest.mark.parametrize("case", FIELDS)
def test_bad_field_of_a_single_item(http: Http, case: str) -> None:
    check_field(http.post(INGEST, FIELDS[case][0]).problem(422, "OC-2002"), case, None)


@pytest.mark.parametrize("case", FIELDS)
def test_one_bad_item_refuses_the_batch_and_is_named(http: Http, case: str) -> None:
    good = json.dumps(GOOD).encode()
    body = b"[" + b", ".join([good, good, FIELDS[case][0], good]) + b"]"
    check_field(http.post(BATCH, body).problem(422, "OC-2002"), case, 2)


def test_bad_items_of_a_large_batch_are_named_up_to_a_bound(http: Http) -> None:
    items: list[dict[str, Any]] = [dict(GOOD) for _ in range(2000)]
    for i in range(0, 2000, 5):
        items[i] = {"sensor_id": "good", "value": "no number"}
    problem = http.post(BATCH, items).problem(422, "OC-2002")
    assert len(problem["errors"]) == 100
    assert [entry["item"] for entry in problem["errors"]] == list(range(0, 500, 5))
    assert re.search(r"and \d+ more", problem["detail"]), problem["detail"]


def test_batch_of_nothing(http: Http) -> None:
    http.post(BATCH, []).problem(422, "OC-2002")


def test_batch_of_only_bad_items_is_refused_even_if_partial(http: Http) -> None:
    http.post(f"{BATCH}?partial=true", [{"sensor_id": ""}, {}]).problem(422, "OC-2002")


def test_partial_stores_the_good_items_and_returns_the_others(box: Appliance) -> None:
    before = box.status()["buffer"]["head_id"]
    items = [GOOD, {"sensor_id": "", "value": 1}, GOOD, {"sensor_id": "x", "value": "no"}, GOOD]
    answer = box.http().post(f"{BATCH}?partial=true", items).good()
    assert answer["count"] == 3
    assert answer["ids"] == [before + 1, before + 2, before + 3]
    assert answer["rejected_count"] == 2
    assert [(entry["item"], entry["field"]) for entry in answer["rejected"]] == [
        (1, "sensor_id"), (3, "value")
    ]  # fmt: skip
    assert box.status()["buffer"]["head_id"] == before + 3


@pytest.mark.parametrize("flag", ["yes", "", "2", "TRUE!"])
def test_partial_takes_only_true_and_false(http: Http, flag: str) -> None:
    problem = http.post(f"{BATCH}?partial={flag}", [GOOD]).problem(400, "OC-6003")
    assert problem["errors"][0]["field"] == "partial"


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/xml", "application/json; charset=utf-16", "application/octet-stream", "json",
    ],
)  # fmt: skip
def test_wrong_content_type(http: Http, kind: str) -> None:
    reply = http.post(INGEST, GOOD, headers={"Content-Type": kind})
    problem = reply.problem(415, "OC-2004")
    assert problem["errors"][0]["field"] == "Content-Type"
    assert problem["errors"][0]["found"] == kind


@pytest.mark.parametrize(
    "kind", ["", "application/json", "application/json; charset=UTF-8", "application/vnd.x+json"]
)
def test_right_content_type(box: Appliance, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    body = json.dumps(GOOD).encode()
    assert box.http().request("POST", INGEST, body, headers).status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "caf\xe9"], ids=ascii)
def test_bad_idempotency_key(http: Http, key: str) -> None:
    problem = http.post(INGEST, GOOD, key).problem(400, "OC-2006")
    assert problem["errors"][0]["field"] == "Idempotency-Key"


def test_idempotency_key_with_another_body(box: Appliance) -> None:
    http = box.http()
    first = http.post(INGEST, GOOD, "the-key").good()
    again = http.post(INGEST, GOOD, "the-key").good()
    assert again == {**first, "duplicate": True}
    before = box.status()["buffer"]["head_id"]
    http.post(INGEST, {**GOOD, "value": 2}, "the-key").problem(422, "OC-2005")
    http.post(BATCH, [GOOD], "the-key").problem(422, "OC-2005")
    assert box.status()["buffer"]["head_id"] == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", INGEST, 405, "OC-6002"),
        ("PUT", INGEST, 405, "OC-6002"),
        ("DELETE", "/health", 405, "OC-6002"),
        ("GET", "/nowhere", 404, "OC-6001"),
        ("POST", "/api/ocean/telemetry", 404, "OC-6001"),
        ("GET", "/%00", 404, "OC-6001"),
        ("GET", "/../../etc/passwd", 404, "OC-6001"),
    ],
)
def test_wrong_address_or_method(
    http: Http, method: str, path: str, status: int, code: str
) -> None:
    reply = http.request(method, path)
    reply.problem(status, code)
    assert status != 405 or reply.headers["allow"]


# --- size and time --------------------------------------------------------------------------------


def raw(box: Appliance, timeout_s: float = 30) -> socket.socket:
    host, _, port = box.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def head(*lines: str) -> bytes:
    return "\r\n".join(
        [
            f"POST {BATCH} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            *lines,
            "",
            "",
        ]
    ).encode()


def answer_of(connection: socket.socket) -> Reply:
    """Read one answer, to the end that its length names."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    before, _, body = received.partition(b"\r\n\r\n")
    first, *lines = before.decode().split("\r\n")
    headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return Reply(int(first.split()[1]), headers, body)


def test_declared_body_that_is_too_large_is_refused_before_it_comes(
    box: Appliance, http: Http
) -> None:
    with Peaks(box.pid) as memory, raw(box) as connection:
        connection.sendall(head(f"Content-Length: {HUGE}"))
        problem = answer_of(connection).problem(413, "OC-2003")
    assert problem["errors"][0]["found"] == f"{HUGE} bytes"
    assert problem["errors"][0]["expected"] == f"at most {BODY_MAX} bytes"
    assert memory.peak - memory.before < MIB * 8


def test_declared_and_sent_body_that_is_too_large(box: Appliance, http: Http) -> None:
    with Peaks(box.pid) as memory, raw(box) as connection:
        connection.sendall(head(f"Content-Length: {HUGE}"))
        send_until_refused(connection, HUGE, chunked=False)
        answer_of(connection).problem(413, "OC-2003")
    assert memory.peak - memory.before < MEMORY_MAX


def test_chunked_body_that_is_too_large(box: Appliance, http: Http) -> None:
    with Peaks(box.pid) as memory, raw(box) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        send_until_refused(connection, HUGE, chunked=True)
        problem = answer_of(connection).problem(413, "OC-2003")
        assert problem["errors"][0]["expected"] == f"at most {BODY_MAX} bytes"
    assert memory.peak - memory.before < MEMORY_MAX


def send_until_refused(connection: socket.socket, size: int, *, chunked: bool) -> None:
    """Send a body of blanks until the server has had enough of it."""
    block = b" " * MIB
    framed = f"{MIB:x}\r\n".encode() + block + b"\r\n" if chunked else block
    connection.settimeout(5)
    try:
        for _ in range(size // MIB):
            connection.sendall(framed)
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        return


def test_body_just_within_the_limit_is_looked_at(box: Appliance, http: Http) -> None:
    http.post(BATCH, b"[" + b" " * (BODY_MAX - 2) + b"]").problem(422, "OC-2002")
    with raw(box) as connection:
        connection.sendall(head(f"Content-Length: {BODY_MAX + 1}"))
        answer_of(connection).problem(413, "OC-2003")


def test_event_that_is_too_large(http: Http) -> None:
    problem = http.post(INGEST, {"sensor_id": "a", "data": "x" * (MIB + 10)}).problem(
        422, "OC-2002"
    )
    assert problem["errors"][0]["expected"] == f"at most {MIB} bytes"


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_slow_body(box: Appliance, http: Http, framing: str) -> None:
    started = time.monotonic()
    with raw(box) as connection:
        length = "Content-Length: 500" if framing == "declared" else "Transfer-Encoding: chunked"
        connection.sendall(head(length) + (b"[" if framing == "declared" else b"1\r\n[\r\n"))
        reply = answer_of(connection)
        reply.problem(408, "OC-2008")
        assert connection.recv(100) == b"", "the connection is closed"
    assert 0.8 < time.monotonic() - started < 10


def test_drop_by_drop_does_not_extend_the_time(box: Appliance, http: Http) -> None:
    enough = threading.Event()
    with raw(box) as connection:
        connection.sendall(head("Content-Length: 500"))

        def drip() -> None:
            try:
                while not enough.wait(0.1):
                    connection.sendall(b" ")
            except OSError:
                return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        try:
            answer_of(connection).problem(408, "OC-2008")
        finally:
            enough.set()
            dripping.join(5)


def test_client_that_leaves_half_way(box: Appliance, http: Http) -> None:
    for _ in range(20):
        with raw(box) as connection:
            connection.sendall(head("Content-Length: 500") + b'[{"sensor_id": "half"')


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST " + INGEST.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST " + INGEST.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=["nonsense", "version", "TLS", "negative length", "two lengths", "long path", "long head"],
)
def test_broken_http(box: Appliance, http: Http, request_bytes: bytes) -> None:
    """Whatever comes, it is refused or the connection is closed."""
    with raw(box, timeout_s=10) as connection:
        try:
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except TimeoutError:
            raise
        except OSError:
            # It has hung up, perhaps while we were sending.
            return
    assert answer == b"" or answer.split()[1].startswith(b"4"), answer[:200]


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/ocean/analytics/sensor/good/stats?start=yesterday", "start"),
        ("/api/ocean/analytics/sensor/good/stats?end=NaN", "end"),
        ("/api/ocean/analytics/sensor/good/stats?strat=2026-01-01", "strat"),
        ("/api/ocean/analytics/sensor/good/stats?start=2026-01-02&end=2026-01-01", "end"),
        ("/api/ocean/analytics/sensor/good/stats?metric=", "metric"),
        ("/api/ocean/analytics/sensor/good/timeseries?interval=0s", "interval"),
        ("/api/ocean/analytics/sensor/good/timeseries?interval=31d", "interval"),
        ("/api/ocean/analytics/sensor/good/timeseries?fill=zero", "fill"),
        ("/api/ocean/analytics/sensor/good/timeseries?tz=../../etc/passwd", "tz"),
        ("/api/ocean/analytics/sensor/good/anomalies?threshold=-1", "threshold"),
        ("/api/ocean/analytics/sensor/good/anomalies?threshold=nan", "threshold"),
        ("/api/ocean/analytics/sensor/good/anomalies?limit=0", "limit"),
        ("/api/ocean/analytics/sensor/good/anomalies?limit=99999999", "limit"),
        ("/api/ocean/analytics/sensor/good/stats?sensor_id=other", "sensor_id"),
        ("/api/ocean/sensors?limit=many", "limit"),
    ],
)
def test_bad_question(http: Http, path: str, field: str) -> None:
    problem = http.get(path).problem(400, "OC-5001")
    assert problem["errors"][0]["field"] == field
    assert problem["errors"][0]["expected"]


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "OC-2001", 400),
        (b"[]", "OC-2001", 400),
        (b"{}", "OC-5001", 400),
        (b'{"sensor_ids": []}', "OC-5001", 400),
        (b'{"sensor_ids": "a"}', "OC-5001", 400),
        (b'{"sensor_ids": [1]}', "OC-5001", 400),
        (b'{"sensor_ids": ["a"], "start_time": "x"}', "OC-5001", 400),
        (b'{"sensor_ids": ["a"], "x": 1}', "OC-5001", 400),
        (b'{"sensor_ids": ["\\ud800"]}', "OC-2001", 400),
        (b"\xff", "OC-2001", 400),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "OC-2001", 400),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_comparison(http: Http, body: bytes, code: str, status: int) -> None:
    http.post("/api/ocean/analytics/compare", body).problem(status, code)


def test_many_bad_requests_at_once_leave_it_well(box: Appliance, http: Http) -> None:
    """Sixteen clients sending nonsense at the same time; a good one is served all along."""
    failures: list[BaseException] = []

    def send_nonsense() -> None:
        client = Http(box.url)
        try:
            for body, _ in MALFORMED.values():
                reply = client.post(INGEST, body)
                assert reply.status in {400, 422}, reply
        except BaseException as error:  # noqa: BLE001 - the top of a thread: the test reports it
            failures.append(error)
        finally:
            client.close()

    senders = [threading.Thread(target=send_nonsense) for _ in range(16)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        assert http.get("/health").status == 200
    for sender in senders:
        sender.join(30)
    assert not failures, failures


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example:8030"),
    ],
)
def test_page_of_another_site_is_refused(http: Http, header: str, value: str) -> None:
    """Without this any page in a browser on the box could write readings."""
    problem = http.post(INGEST, GOOD, headers={header: value}).problem(403, "OC-6004")
    assert problem["errors"][0]["field"] == header
