"""What a refused request counts as in the ledger: how much, of which sensors, why."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ocean_core.config.settings import IngestSettings
from ocean_core.model.access import LOCAL, Principal, Scope
from ocean_core.model.errors import (
    BodyTooLargeError,
    DiskFullError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidReadingError,
    MalformedBodyError,
    OceanError,
    RateLimitError,
    SeriesQuotaError,
    UnauthenticatedError,
)
from ocean_core.model.receipt import Intake
from ocean_core.protocol.media import Encoding, Media
from ocean_core.service.ingest_body import PLAIN, Sent
from support.ingest_bench import IngestBench

METRIC = "ocean_telemetry_refused_total"


@pytest.fixture(scope="module")
def decoders() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def bench(decoders: ThreadPoolExecutor) -> IngestBench:
    made = IngestBench(decoders, IngestSettings(series_per_sensor_max=2))
    # Known from now on.
    made.batch([{"sensor_id": name, "value": 1} for name in ("a", "b")])
    return made


def refuse(
    bench: IngestBench,
    kind: type[OceanError],
    body: bytes,
    sent: Sent = PLAIN,
    principal: Principal = LOCAL,
) -> dict[str, int]:
    """Send a batch as a transport does, and return what the ledger counts for it."""
    with pytest.raises(kind) as caught:
        bench.send(body, sent, principal)
    return counted(bench, caught.value)


def counted(bench: IngestBench, error: OceanError) -> dict[str, int]:
    before = bench.metrics.value(METRIC, error.code)
    bench.service.count_refused(error)
    assert bench.metrics.value(METRIC, error.code) == before + 1
    taken = bench.refusals.take()
    assert {loss_class for _, loss_class in taken} == {f"refused {error.code}"}
    return {sensor_id: count for (sensor_id, _), count in taken.items()}


def text(*items: Any) -> bytes:
    return json.dumps(items).encode()


def test_a_bad_batch_counts_all_its_items(bench: IngestBench) -> None:
    good = [{"sensor_id": name, "value": 1} for name in "aabx"]
    bad = text(*good, {"sensor_id": "b"}, {"value": 1})
    assert refuse(bench, InvalidReadingError, bad) == {"a": 2, "b": 2, "": 2}


@pytest.mark.parametrize("encoding", [Encoding.IDENTITY, Encoding.GZIP])
@pytest.mark.parametrize("count", [3, 900, 40_000])
def test_a_body_that_breaks_off_counts_what_can_be_seen(
    bench: IngestBench, count: int, encoding: Encoding
) -> None:
    """Small ones are looked through at once, large ones on the thread of the decoder."""
    body = text(*({"sensor_id": "ab"[i % 2], "value": i} for i in range(2 * count)))[:-1]
    if encoding is Encoding.GZIP:
        body = gzip.compress(body)
    sent = Sent(encoding=encoding)
    assert refuse(bench, MalformedBodyError, body, sent) == {"a": count, "b": count}


def test_what_cannot_be_read_counts_once(bench: IngestBench) -> None:
    for body, sent in (
        (b"\xff" * 50, PLAIN),
        (b"", PLAIN),
        (b"no gzip", Sent(encoding=Encoding.GZIP)),
        (b"OCB1", Sent(media=Media.BLOCK)),
    ):
        assert refuse(bench, MalformedBodyError, body, sent) == {"": 1}
    assert refuse(bench, BodyTooLargeError, b" " * (17 * 1024 * 1024)) == {"": 1}


def test_columns_and_lines_count_too(bench: IngestBench) -> None:
    columns = b'{"sensor_id": ["a", "b", "a"], "value": [1, 2, "x"]}'
    assert refuse(bench, InvalidReadingError, columns) == {"a": 2, "b": 1}
    lines = b'{"sensor_id":"a","value":1}\n{"sensor_id":"b","value":"x"}\n'
    sent = Sent(media=Media.NDJSON)
    assert refuse(bench, InvalidReadingError, lines, sent) == {"a": 1, "b": 1}


def test_a_single_item(bench: IngestBench) -> None:
    with pytest.raises(InvalidReadingError) as caught:
        bench.single({"sensor_id": "a", "value": "x"})
    assert counted(bench, caught.value) == {"a": 1}


def test_good_readings_that_may_not_come_count_exactly(bench: IngestBench) -> None:
    body = text({"sensor_id": "a", "values": {"value": 1, "x": 2}}, {"sensor_id": "b", "value": 1})
    key = Principal("key", "k", scopes=frozenset({Scope.INGEST}), sensors="b*")
    assert refuse(bench, ForbiddenError, body, principal=key) == {"a": 2, "b": 1}
    full = text({"sensor_id": "a", "values": {"x": 1, "y": 2, "z": 3}})
    assert refuse(bench, SeriesQuotaError, full) == {"a": 3}
    slow = Principal("key", "s", scopes=frozenset({Scope.INGEST}), rate=1)
    bench.send(text(*[{"sensor_id": "a", "value": 1}] * 9), principal=slow)
    assert refuse(bench, RateLimitError, text({"sensor_id": "b", "value": 1}), principal=slow) == {
        "b": 1
    }
    bench.buffer.broken = True
    assert refuse(bench, DiskFullError, text({"sensor_id": "b", "value": 1})) == {"b": 1}


def test_a_key_used_for_another_body(bench: IngestBench) -> None:
    sent = Sent(idempotency_key="k")
    bench.send(text({"sensor_id": "a", "value": 1}), sent)
    other = text({"sensor_id": "b", "value": 1})
    assert refuse(bench, IdempotencyMismatchError, other, sent) == {"b": 1}


def test_a_repeat_that_would_be_refused_now_is_no_refusal(bench: IngestBench) -> None:
    item = {"sensor_id": "a", "value": 1, "timestamp": bench.clock.now_us() / 1e6}
    other = {"sensor_id": "a", "values": {"n1": 1}}
    bench.batch([item], "k")
    bench.batch([other], "q")
    bench.clock.set_wall(bench.clock.now_us() - 3_600_000_000)
    assert bench.batch([item], "k")["duplicate"]
    bench.quota._settings = IngestSettings(series_per_sensor_max=1)
    bench.quota._known.discard(("a", "n1"))
    assert bench.batch([other], "q")["duplicate"]
    # Whose rows came again is known if only a rule refuses them.
    assert bench.buffer.repeated == [None, {"a": 1}]
    assert bench.refusals.is_empty


def test_refused_items_of_a_partial_batch(bench: IngestBench) -> None:
    items: list[Any] = [{"sensor_id": "a", "value": 1}]
    items += [{"sensor_id": "a", "value": "x"}] * 2 + [{"sensor_id": "b"}, {"sensor_id": "z"}, 5]
    assert bench.batch(items, "k", partial=True)["rejected_count"] == 5
    assert bench.refusals.take() == {
        ("a", "refused OC-2002"): 2,
        ("b", "refused OC-2002"): 1,
        ("", "refused OC-2002"): 2,
    }
    assert bench.metrics.value(METRIC, "OC-2002") == 5
    assert bench.batch(items, "k", partial=True)["duplicate"]
    assert bench.refusals.is_empty


def test_refused_names_are_bounded(bench: IngestBench) -> None:
    items: list[Any] = [{"sensor_id": f"n{i}", "value": "x"} for i in range(3_000)]
    assert bench.batch([{"sensor_id": "a", "value": 1}, *items], partial=True)
    assert bench.refusals.take() == {("", "refused OC-2002"): 3_000}
    intake: Intake = bench.buffer.stored[-1]
    assert intake.refused is not None
    assert len(intake.refused) <= 1_001


def test_what_is_refused_before_its_body_is_read_counts_once(bench: IngestBench) -> None:
    assert counted(bench, UnauthenticatedError("no key")) == {"": 1}
    error = DiskFullError("full")
    bench.service.count_refused(error, {"a": 3, "stranger": 1})
    assert bench.refusals.take() == {("a", "refused OC-4001"): 3, ("", "refused OC-4001"): 1}
