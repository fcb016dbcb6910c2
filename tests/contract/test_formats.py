"""Every form of readings over HTTP, plain and compressed: one meaning, precise refusals, bounds.

All of it twice: through the ordinary routes alone, and with the fast path before them.
"""

import gzip
import json
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from backports import zstd

from ocean_core.model.digest import digest_of
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from support.appliance import Appliance, Peaks
from support.stored import stored_readings
from support.web import BATCH, INGEST, Http, Reply

MIB = 1024 * 1024
BODY_MAX = 16 * MIB
JSON, NDJSON, BLOCK = "application/json", "application/x-ndjson", "application/x-ocean-block"
SENSORS = ["press-01", "raum-ä", "hall/3", "x" * 256]
START_US = 1_768_636_800_000_000

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("formats"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=["ordinary", "fast"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    data_dir = tmp_path_factory.mktemp(f"formats-{request.param}") / "data"
    fast = "true" if request.param == "fast" else "false"
    with Appliance(data_dir, OCEAN_SERVER__FAST_PATH=fast) as running:
        running.start()
        yield running
        assert "api.internal_error" not in running.log(), "a fault of our own was met"
        assert "Traceback" not in running.log()
        assert running.stop() == 0


@pytest.fixture
def nothing_stored(box: Appliance) -> Iterator[None]:
    """Afterwards nothing may have been stored, and the same process must be well."""
    before = box.status()["buffer"]["head_id"]
    yield
    status = box.status()
    assert status["buffer"]["head_id"] == before, "something was stored"
    assert status["processes"]["ingest"]["pid"] == box.pid


def wrapped(*columns: Any) -> bytes:
    return b'{"readings":' + encode_rows(*columns) + b"}"


FORMS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "rows": (JSON, encode_rows),
    "wrapped": (JSON, wrapped),
    "columnar": (JSON, encode_columnar),
    "ndjson": (NDJSON, encode_ndjson),
    "block": (BLOCK, encode_block),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "zstd": zstd.compress,
}
COLUMNS = {"columnar", "block"}

every_form = pytest.mark.parametrize("form", FORMS)
every_encoding = pytest.mark.parametrize("encoding", COMPRESS)
compressed = pytest.mark.parametrize("encoding", ["gzip", "zstd"])


def readings(count: int) -> tuple[list[str], Any, Any, Any]:
    """Return sensors, and for each reading its place among them, its moment and its value."""
    random = np.random.default_rng(count)
    return (
        SENSORS,
        random.integers(0, len(SENSORS), count, dtype=np.uint32),
        START_US + np.sort(random.integers(0, 10**10, count)),
        np.concatenate(([0.1, -0.0, 1e300], random.normal(20, 5, count - 3))),
    )


def send(
    http: Http,
    body: bytes,
    media: str,
    encoding: str = "identity",
    path: str = BATCH,
    key: str | None = None,
) -> Reply:
    """Send a body that is compressed already."""
    headers = {"Content-Type": media}
    if encoding != "identity":
        headers["Content-Encoding"] = encoding
    return http.post(path, body, key, headers)


# --- good -----------------------------------------------------------------------------------------


@every_encoding
@pytest.mark.parametrize("count", [4, 400, 9_000])
def test_the_same_readings_are_stored_the_same_in_every_form(
    box: Appliance, encoding: str, count: int
) -> None:
    columns = readings(count)
    sensors, index, moments, values = columns
    found = {}
    for form, (media, encode) in FORMS.items():
        reply = send(box.http(), COMPRESS[encoding](encode(*columns)), media, encoding)
        answer = reply.good()
        assert answer["count"] == count
        if form in COLUMNS:
            first, last = answer["first_id"], answer["last_id"]
            assert set(answer) == {"count", "first_id", "last_id", "buffered", "timestamp"}
        else:
            first, last = answer["ids"][0], answer["ids"][-1]
            assert answer["ids"] == list(range(first, last + 1))
            assert set(answer) == {"count", "ids", "buffered", "timestamp"}
        found[form] = stored_readings(box, first, last)
    rows = found["rows"]
    assert all(others == rows for others in found.values())
    digest = digest_of([row.timestamp_us for row in rows], [row.value for row in rows])
    assert digest == digest_of(moments, values)
    assert [row.sensor_id for row in rows] == [sensors[place] for place in index]
    assert {(row.metric, row.quality) for row in rows} == {("value", 0)}


@every_encoding
@pytest.mark.parametrize(
    "content_type", [JSON, "application/json; charset=utf-8", "application/senml+json", None]
)
def test_a_single_item(box: Appliance, encoding: str, content_type: str | None) -> None:
    body = COMPRESS[encoding](b'{"sensor_id":"one","value":1}')
    headers = {"Content-Encoding": encoding}
    if content_type is not None:
        headers["Content-Type"] = content_type
    answer = box.http().request("POST", INGEST, body, headers).good()
    assert (answer["sensor_id"], answer["buffered"]) == ("one", True)


@pytest.mark.parametrize("name", ["GZIP", "x-gzip", " gzip ", "Zstd"])
def test_names_of_encodings_are_taken_in_any_case(box: Appliance, name: str) -> None:
    body = COMPRESS["zstd" if name.lower() == "zstd" else "gzip"](b'{"sensor_id":"one","value":1}')
    send(box.http(), body, JSON, name, INGEST).good()


@pytest.mark.parametrize(
    "media", ["application/ndjson", "application/jsonl", "text/x-ndjson; charset=utf-8"]
)
def test_other_names_of_ndjson(box: Appliance, media: str) -> None:
    lines = b'{"sensor_id":"one","value":1}\r\n\r\n{"sensor_id":"door","data":"open"}'
    assert send(box.http(), lines, media).good()["count"] == 2


@compressed
def test_several_members_are_one_body(box: Appliance, encoding: str) -> None:
    compress = COMPRESS[encoding]
    body = compress(b'[{"sensor_id":"one",') + compress(b'"value":1}]')
    assert send(box.http(), body, JSON, encoding).good()["count"] == 1


@every_form
@every_encoding
def test_good_items_are_stored_and_the_others_returned(
    box: Appliance, form: str, encoding: str
) -> None:
    media, encode = FORMS[form]
    sensors, index, moments, values = readings(100)
    moments[[3, 50]] = 3 * 10**17  # The year 11476, whatever the box thinks of its clock.
    body = COMPRESS[encoding](encode(sensors, index, moments, values))
    problem = send(box.http(), body, media, encoding).problem(422, "OC-2002")
    assert [each["item"] for each in problem["errors"]] == [3, 50]
    answer = send(box.http(), body, media, encoding, BATCH + "?partial=true").good()
    assert (answer["count"], answer["rejected_count"]) == (98, 2)
    assert [(each["item"], each["field"]) for each in answer["rejected"]] == [
        (3, "timestamp"), (50, "timestamp"),
    ]  # fmt: skip
    if form in COLUMNS:
        assert answer["last_id"] - answer["first_id"] == 97
    else:
        assert len(answer["ids"]) == 98


# --- repeats --------------------------------------------------------------------------------------


@every_form
def test_a_repeat_may_be_compressed_otherwise(box: Appliance, form: str) -> None:
    media, encode = FORMS[form]
    body = encode(*readings(300))
    first = send(box.http(), gzip.compress(body, 1), media, "gzip", key=f"again-{form}").good()
    for encoding, other in (
        ("gzip", gzip.compress(body, 9)), ("zstd", zstd.compress(body)), ("identity", body),
    ):  # fmt: skip
        again = send(box.http(), other, media, encoding, key=f"again-{form}").good()
        assert again == {**first, "duplicate": True}
    problem = send(box.http(), encode(*readings(299)), media, key=f"again-{form}")
    problem.problem(422, "OC-2005")


def test_a_repeat_in_another_form_is_another_request(box: Appliance) -> None:
    bodies = [(encode(*readings(300)), media) for media, encode in FORMS.values()]
    send(box.http(), *bodies[0], key="form").good()
    for body, media in bodies[1:]:
        send(box.http(), body, media, key="form").problem(422, "OC-2005")
    # Bytes that are the same in both forms.
    line = b'{"sensor_id":"one","value":[1]}'
    send(box.http(), line, JSON, key="line").good()
    send(box.http(), line, NDJSON, key="line").problem(422, "OC-2005")


# --- refused --------------------------------------------------------------------------------------

GOOD_BLOCK = encode_block(*readings(5))
GOOD_JSON = b'[{"sensor_id":"one","value":1}]'

# name: (body, media, encoding, status, code, words of the detail)
REFUSED: dict[str, tuple[bytes, str, str, int, str, str]] = {
    "gzip that is none": (GOOD_JSON, JSON, "gzip", 400, "OC-2001", "Content-Encoding says gzip"),
    "zstd that is none": (GOOD_JSON, JSON, "zstd", 400, "OC-2001", "Content-Encoding says zstd"),
    "gzip called zstd": (gzip.compress(GOOD_JSON), JSON, "zstd", 400, "OC-2001", "0x28b52ffd"),
    "zstd called gzip": (zstd.compress(GOOD_JSON), JSON, "gzip", 400, "OC-2001", "0x1f8b"),
    "gzip not announced": (gzip.compress(GOOD_JSON), JSON, "identity", 400, "OC-2001", "UTF-8"),
    "half a gzip": (gzip.compress(GOOD_JSON)[:-12], JSON, "gzip", 400, "OC-2001", "cut off"),
    "half a zstd": (zstd.compress(GOOD_JSON)[:-5], JSON, "zstd", 400, "OC-2001", "cut off"),
    "more than gzip": (gzip.compress(GOOD_JSON) + b"x", JSON, "gzip", 400, "OC-2001", "follow"),
    "more than zstd": (zstd.compress(GOOD_JSON) + b"x", JSON, "zstd", 400, "OC-2001", "follow"),
    "gzip with a wrong sum": (
        gzip.compress(GOOD_JSON)[:-8] + bytes(8), JSON, "gzip", 400, "OC-2001", "expanded",
    ),
    "nothing in gzip": (gzip.compress(b""), JSON, "gzip", 400, "OC-2001", "empty"),
    "another encoding": (GOOD_JSON, JSON, "br", 415, "OC-2004", "'br'"),
    "two encodings": (GOOD_JSON, JSON, "gzip, gzip", 415, "OC-2004", "'gzip, gzip'"),
    "another type": (GOOD_JSON, "text/csv", "identity", 415, "OC-2004", "'text/csv'"),
    "a form": (
        GOOD_JSON, "application/x-www-form-urlencoded", "identity", 415, "OC-2004", "urlencoded",
    ),
    "another alphabet": (
        GOOD_JSON, "application/x-ndjson; charset=latin-1", "identity", 415, "OC-2004", "latin-1",
    ),
    "a bad line": (b'{"sensor_id":"a","value":1}\nx\n', NDJSON, "gzip", 422, "OC-2002", "line 2"),
    "no lines": (b"\n \n", NDJSON, "identity", 400, "OC-2001", "empty"),
    "an array as lines": (GOOD_JSON, NDJSON, "identity", 422, "OC-2002", "object"),
    "columns of other lengths": (
        b'{"sensor_id":"a","value":[1,2],"timestamp":[1]}', JSON, "zstd", 422, "OC-2002",
        "an array of 1",
    ),
    "a column of texts": (
        b'{"sensor_id":"a","value":[1,"2"]}', JSON, "identity", 422, "OC-2002", "item 1, value",
    ),
    "a block of another version": (
        b"OCB2" + GOOD_BLOCK[4:], BLOCK, "identity", 400, "OC-2001", "magic",
    ),
    "a block with a flipped bit": (
        GOOD_BLOCK[:-1] + b"!", BLOCK, "identity", 400, "OC-2001", "CRC",
    ),
    "half a block in zstd": (GOOD_BLOCK[:99], BLOCK, "zstd", 400, "OC-2001", "dictionary size"),
    "a block of events": (
        GOOD_BLOCK[:4] + b"\1" + GOOD_BLOCK[5:], BLOCK, "identity", 400, "OC-2001", "events",
    ),
    "a block that says JSON": (GOOD_BLOCK, JSON, "identity", 400, "OC-2001", ""),
    "JSON that says block": (GOOD_JSON * 9, BLOCK, "identity", 400, "OC-2001", "magic"),
    "a count that is a lie": (
        GOOD_BLOCK[:16] + struct.pack("<I", 2**32 - 1) + GOOD_BLOCK[20:], BLOCK, "identity",
        413, "OC-2003", "items",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("nothing_stored")
def test_what_is_wrong_is_said(box: Appliance, name: str) -> None:
    body, media, encoding, status, code, words = REFUSED[name]
    if status == 422 or name.endswith("in zstd"):
        body = COMPRESS[encoding](body)
    problem = send(box.http(), body, media, encoding).problem(status, code)
    assert words in problem["detail"]
    assert problem["hint"]


@pytest.mark.parametrize("media", [NDJSON, "application/jsonl", BLOCK])
@pytest.mark.usefixtures("nothing_stored")
def test_what_is_for_batch_is_told_so_by_ingest(box: Appliance, media: str) -> None:
    problem = send(box.http(), GOOD_BLOCK, media, path=INGEST).problem(415, "OC-2004")
    assert BATCH in problem["hint"]
    assert problem["errors"][0]["expected"] == f"{JSON} or application/x-nanogridata"


@pytest.mark.parametrize("body", [GOOD_JSON, b'{"sensor_id":["a"],"value":[1]}'])
@pytest.mark.usefixtures("nothing_stored")
def test_ingest_takes_one_item_only(box: Appliance, body: bytes) -> None:
    assert send(box.http(), body, JSON, path=INGEST).status in {400, 422}


@pytest.mark.parametrize(
    "headers", [{"Content-Type": NDJSON}, {"Content-Type": BLOCK}, {"Content-Encoding": "gzip"}]
)
def test_other_addresses_take_plain_json_only(box: Appliance, headers: dict[str, str]) -> None:
    path = "/api/ocean/metadata/formats"
    problem = box.http().post(path, b'{"value":1}', headers=headers).problem(415, "OC-2004")
    assert problem["errors"][0]["expected"] in {JSON, "identity"}
    assert not problem["hint"].startswith("Send it to")


# --- bounds ---------------------------------------------------------------------------------------

FILLED = b'[{"sensor_id":"a","value":"x"}' + b" " * (BODY_MAX - 31) + b"]"
BOMBS: dict[str, tuple[bytes, int, str]] = {
    "nothing but zeros": (bytes(128 * MIB), 413, "OC-2003"),
    "just within the limit": (FILLED, 422, "OC-2002"),
}


@compressed
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.usefixtures("nothing_stored")
def test_many_bombs_at_once_stay_within_bounds(box: Appliance, name: str, encoding: str) -> None:
    content, status, code = BOMBS[name]
    body = COMPRESS[encoding](content)
    assert len(body) < MIB // 4
    clients = 24

    def one(_: int) -> None:
        http = Http(box.url)
        try:
            send(http, body, JSON, encoding).problem(status, code)
        finally:
            http.close()

    with Peaks(box.pid) as memory, ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
    # One is open at a time: its pieces, put together, and what explaining it takes; not one each.
    assert memory.peak - memory.before < 6 * BODY_MAX


@compressed
def test_bombs_do_not_keep_others_waiting(box: Appliance, encoding: str) -> None:
    """The event loop answers good requests while another thread is busy with large ones."""
    body = COMPRESS[encoding](bytes(BODY_MAX * 4))
    over = threading.Event()

    def throw() -> int:
        http, thrown = Http(box.url), 0
        while not over.is_set() and thrown < 2_000:
            send(http, body, JSON, encoding).problem(413, "OC-2003")
            thrown += 1
        http.close()
        return thrown

    with ThreadPoolExecutor(4) as pool:
        throwers = [pool.submit(throw) for _ in range(4)]
        try:
            for value in range(50):
                box.http(timeout_s=5).post(INGEST, {"sensor_id": "calm", "value": value}).good()
        finally:
            over.set()
        assert all(thrower.result(60) for thrower in throwers)


def test_answers_to_columns_stay_small(box: Appliance) -> None:
    columns = readings(9_000)
    assert len(send(box.http(), encode_block(*columns), BLOCK).body) < 200
    assert len(json.dumps(send(box.http(), encode_rows(*columns), JSON).good())) > 9_000
