"""Every form and compression of a body ends in the same rows, the same repeats, bounded memory."""

import asyncio
import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from backports import zstd

from ocean_core.config.settings import IngestSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.digest import digest_of
from ocean_core.model.errors import (
    BodyTooLargeError,
    IdempotencyMismatchError,
    InvalidReadingError,
    MalformedBodyError,
    SeriesQuotaError,
)
from ocean_core.model.receipt import IdempotencyKey, Intake, Owner, Receipt
from ocean_core.protocol.media import Encoding, Media
from ocean_core.protocol.readings import DecodeContext
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from ocean_core.service.ingest_body import Form, Opening, Sent
from support.ingest_bench import NOW_US, IngestBench, MemoryBuffer

SENSORS = ["press-01", "raum-ä", "x"]
COMPRESS: dict[Encoding, Callable[[bytes], bytes]] = {
    Encoding.IDENTITY: bytes,
    Encoding.GZIP: lambda body: gzip.compress(body, mtime=0),
    Encoding.ZSTD: zstd.compress,
}
MIB = 1024 * 1024


def wrapped(*columns: Any) -> bytes:
    return b'{"readings":' + encode_rows(*columns) + b"}"


FORMS: dict[str, tuple[Media, Callable[..., bytes]]] = {
    "rows": (Media.JSON, encode_rows),
    "wrapped": (Media.JSON, wrapped),
    "columnar": (Media.JSON, encode_columnar),
    "ndjson": (Media.NDJSON, encode_ndjson),
    "block": (Media.BLOCK, encode_block),
}


def readings(count: int) -> tuple[list[str], Any, Any, Any]:
    """Return sensors, and for each reading its place among them, its moment and its value."""
    random = np.random.default_rng(4)
    return (
        SENSORS,
        random.integers(0, len(SENSORS), count, dtype=np.uint32),
        NOW_US - random.integers(0, 10**9, count),
        random.normal(20, 5, count),
    )


class CountingPool(ThreadPoolExecutor):
    """One thread that says how often it was needed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.calls = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.calls += 1
        return super().submit(*arguments, **named)


@pytest.fixture(scope="module")
def pool() -> Iterator[CountingPool]:
    with CountingPool() as made:
        yield made


@pytest.fixture
def bench(pool: CountingPool) -> IngestBench:
    pool.calls = 0
    return IngestBench(pool, IngestSettings())


@pytest.mark.parametrize("count", [3, 2_000, 20_000])
@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_readings_become_the_same_rows(
    bench: IngestBench, form: str, encoding: Encoding, count: int
) -> None:
    sensors, index, moments, values = readings(count)
    media, encode = FORMS[form]
    body = COMPRESS[encoding](encode(sensors, index, moments, values))
    answer = bench.send(body, Sent(media, encoding))
    assert answer["count"] == count
    if form in {"columnar", "block"}:
        assert (answer["first_id"], answer["last_id"]) == (1, count)
        assert "ids" not in answer
    else:
        assert answer["ids"] == list(range(1, count + 1))
        assert "first_id" not in answer
    rows = bench.buffer.stored[0].readings
    assert rows is not None
    assert digest_of(rows.timestamp_us, rows.value) == digest_of(moments, values)
    names = [rows.series[place][0] for place in rows.series_index]
    assert names == [sensors[place] for place in index]
    assert not np.asarray(rows.quality).any()


@pytest.mark.parametrize("encoding", Encoding)
def test_a_single_item_may_be_compressed(bench: IngestBench, encoding: Encoding) -> None:
    body = COMPRESS[encoding](b'{"sensor_id":"s","value":1}')
    answer = json.loads(asyncio.run(bench.service.ingest_single(body, Sent(encoding=encoding))))
    assert (answer["id"], answer["sensor_id"]) == (1, "s")


# --- where it happens -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [Encoding.GZIP, Encoding.ZSTD])
def test_what_expands_to_little_is_expanded_at_once(
    bench: IngestBench, pool: CountingPool, encoding: Encoding
) -> None:
    body = COMPRESS[encoding](encode_rows(*readings(500)))
    bench.send(body, Sent(encoding=encoding))
    assert pool.calls == 0


@pytest.mark.parametrize("encoding", [Encoding.GZIP, Encoding.ZSTD])
def test_what_expands_to_much_is_expanded_elsewhere(
    bench: IngestBench, pool: CountingPool, encoding: Encoding
) -> None:
    small = COMPRESS[encoding](b'[{"sensor_id":"s","value":1}' + b" " * 10**6 + b"]")
    assert len(small) < 4_000
    bench.send(small, Sent(encoding=encoding))
    large = COMPRESS[encoding](encode_rows(*readings(20_000)))
    assert len(large) > limits.EXPAND_INLINE_BYTES_MAX
    bench.send(large, Sent(encoding=encoding))
    assert pool.calls == 2


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [Encoding.GZIP, Encoding.ZSTD])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [3, 20_000])
def test_a_body_that_is_cut_off_is_refused(
    bench: IngestBench, form: str, encoding: Encoding, count: int
) -> None:
    media, encode = FORMS[form]
    body = COMPRESS[encoding](encode(*readings(count)))
    with pytest.raises(MalformedBodyError):
        bench.send(body[: len(body) // 2], Sent(media, encoding))
    with pytest.raises(MalformedBodyError):
        bench.send(body + b"more", Sent(media, encoding))
    assert not bench.buffer.stored


@pytest.mark.parametrize("encoding", [Encoding.GZIP, Encoding.ZSTD])
@pytest.mark.parametrize("form", FORMS)
def test_a_bomb_is_refused(bench: IngestBench, form: str, encoding: Encoding) -> None:
    body = COMPRESS[encoding](bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            bench.send(body, Sent(FORMS[form][0], encoding))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * limits.BODY_BYTES_MAX + limits.MIB
    assert not bench.buffer.stored


@pytest.mark.parametrize("form", ["columnar", "block"])
def test_columns_may_be_stored_in_part(bench: IngestBench, form: str) -> None:
    sensors, index, moments, values = readings(100)
    moments[[3, 50]] = NOW_US + 10**9
    media, encode = FORMS[form]
    body = encode(sensors, index, moments, values)
    with pytest.raises(InvalidReadingError):
        bench.send(body, Sent(media))
    answer = bench.send(body, Sent(media), partial=True)
    assert (answer["count"], answer["first_id"], answer["last_id"]) == (98, 1, 98)
    assert answer["rejected_count"] == 2
    assert [problem["item"] for problem in answer["rejected"]] == [3, 50]


# --- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_repeat_may_be_compressed_otherwise(bench: IngestBench, form: str) -> None:
    media, encode = FORMS[form]
    body = encode(*readings(200))
    first = bench.send(body, Sent(media, idempotency_key="k"))
    for encoding, packed in (
        (Encoding.GZIP, gzip.compress(body, 1, mtime=1)),
        (Encoding.GZIP, gzip.compress(body, 9, mtime=2)),
        (Encoding.ZSTD, zstd.compress(body)),
        (Encoding.IDENTITY, body),
    ):
        assert bench.send(packed, Sent(media, encoding, "k")) == {**first, "duplicate": True}
    assert len(bench.buffer.stored) == 1


def test_a_repeat_of_other_readings_or_in_another_form_is_another_request(
    bench: IngestBench,
) -> None:
    body = encode_ndjson(*readings(1))
    bench.send(gzip.compress(body), Sent(Media.NDJSON, Encoding.GZIP, "k"))
    for other in (
        (body, Sent(Media.JSON, idempotency_key="k")),
        (gzip.compress(body + b"\n"), Sent(Media.NDJSON, Encoding.GZIP, "k")),
    ):
        with pytest.raises(IdempotencyMismatchError):
            bench.send(*other)


@pytest.mark.parametrize("encoding", Encoding)
def test_a_repeat_that_would_be_refused_now_names_its_sensor(
    bench: IngestBench, encoding: Encoding
) -> None:
    item = {"sensor_id": "s", "value": 1, "timestamp": NOW_US / 1e6}
    first = bench.single(item, "k")
    bench.clock.set_wall(NOW_US - 3_600_000_000)
    body = COMPRESS[encoding](json.dumps(item).encode())
    again = asyncio.run(bench.service.ingest_single(body, Sent(Media.JSON, encoding, "k")))
    assert json.loads(again) == {**first, "duplicate": True}


@pytest.mark.parametrize("encoding", Encoding)
def test_digests_of_json_are_those_that_earlier_versions_have_stored(encoding: Encoding) -> None:
    context = DecodeContext(arrival_us=NOW_US, clock_trusted=True)
    body = b'[{"sensor_id":"s","value":1}]'
    for form in (Form.BATCH, Form.PARTIAL):
        opening = Opening(form, Sent(Media.JSON, encoding, "k"), context)
        opening.wholly(COMPRESS[encoding](body))
        stored = hashlib.sha256(form.encode() + b"\0" + body).digest()
        assert opening.idempotency(LOCAL) == IdempotencyKey("local", "k", stored)


# --- memory ---------------------------------------------------------------------------------------


class WatchfulBuffer(MemoryBuffer):
    """Notes how much memory is held when a request begins to wait for the disk."""

    held = 0
    decoders: ThreadPoolExecutor | None = None

    async def append(
        self,
        intake: Intake,
        idempotency: IdempotencyKey | None = None,
        owner: Owner | None = None,
    ) -> Receipt:
        self.held = tracemalloc.get_traced_memory()[0]
        return await super().append(intake, idempotency, owner)

    async def lookup(self, idempotency: IdempotencyKey, repeated: Any = None) -> Receipt | None:
        # The decoder's thread and the loop hold what it returned until both have gone on.
        if self.decoders is not None:
            await asyncio.get_running_loop().run_in_executor(self.decoders, int)
        self.held = max(self.held, tracemalloc.get_traced_memory()[0])
        return await super().lookup(idempotency, repeated)


def spaced(item: bytes, size: int) -> bytes:
    """Return a batch of one item that is large only before it is decoded."""
    return b"[" + item + b" " * size + b"]"


@pytest.mark.parametrize("size", [100_000, 8 * MIB])
@pytest.mark.parametrize("good", [True, False], ids=["good", "refused"])
def test_nothing_expanded_is_held_while_a_request_waits(
    bench: IngestBench, size: int, *, good: bool
) -> None:
    buffer = WatchfulBuffer()
    bench.service._buffer = buffer
    item = b'{"sensor_id":"s","value":1}' if good else b'{"sensor_id":"s","value":"x"}'
    packed = gzip.compress(spaced(item, size))
    tracemalloc.start()
    try:
        sent = Sent(Media.JSON, Encoding.GZIP, "k")
        if good:
            bench.send(packed, sent)
        else:
            with pytest.raises(InvalidReadingError):
                bench.send(packed, sent, Principal("key", "k1"))
    finally:
        tracemalloc.stop()
    assert 0 < buffer.held < 60_000


@pytest.mark.parametrize("count", [2_000, 90_000])
@pytest.mark.parametrize("is_repeat", [True, False], ids=["repeat", "refused"])
def test_refused_rows_are_not_held_while_their_key_is_looked_up(
    bench: IngestBench, pool: CountingPool, count: int, *, is_repeat: bool
) -> None:
    """A small body may hold many rows, and while the disk stands still many such requests wait."""
    index, moments = np.zeros(count, dtype=np.uint32), np.full(count, NOW_US)
    body = zstd.compress(encode_columnar(SENSORS[:1], index, moments, np.ones(count)))
    assert len(body) < 60_000
    sent = Sent(Media.JSON, Encoding.ZSTD, "k")
    if is_repeat:
        bench.send(body, sent)
    bench.quota._settings = IngestSettings(series_total_max=0)
    bench.quota._known.clear()
    buffer = WatchfulBuffer()
    buffer.decoders = pool
    buffer.kept = bench.buffer.kept
    bench.service._buffer = buffer
    bench.buffer.stored.clear()
    tracemalloc.start()
    try:
        if is_repeat:
            assert bench.send(body, sent)["duplicate"]
            assert buffer.repeated == [{SENSORS[0]: count}]
        else:
            with pytest.raises(SeriesQuotaError) as caught:
                bench.send(body, sent)
            assert caught.value.refused == {SENSORS[0]: count}
    finally:
        tracemalloc.stop()
    assert 0 < buffer.held < 60_000


def test_a_single_repeat_over_the_quota_names_its_sensor(
    bench: IngestBench,
) -> None:
    items: list[dict[str, Any]] = [
        {"sensor_id": "s", "value": 1},
        {"sensor_id": "e", "data": "text"},
    ]
    for item in items:
        first = bench.single(item, item["sensor_id"])
        bench.quota._settings = IngestSettings(series_total_max=0)
        bench.quota._known.clear()
        assert bench.single(item, item["sensor_id"]) == {**first, "duplicate": True}
        bench.quota._settings = IngestSettings()


def test_a_quality_that_a_sender_gives_raises_no_alarm_of_a_clock(bench: IngestBench) -> None:
    plausible, dead = NOW_US - 1_000_000, 5_000_000
    quality = np.array([2, 0], dtype=np.uint8)
    columns = (["s"], np.zeros(2, dtype=np.uint32))
    values = np.array([1.0, 2.0])
    for moments, expected in (([plausible, plausible], []), ([plausible, dead], ["sensor.clock"])):
        block = encode_block(*columns, np.array(moments, dtype=np.int64), values, quality=quality)
        bench.send(block, Sent(media=Media.BLOCK))
        stored = bench.buffer.stored[-1].readings
        assert stored is not None
        assert list(stored.quality) == [2, 2 if dead in moments else 0]
        assert [alarm.name for alarm in bench.alarms.open_alarms()] == expected
