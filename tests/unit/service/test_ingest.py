"""From a body to a receipt: answers, quotas, repeats, and what is counted."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocean_core.config.settings import IngestSettings
from ocean_core.model.access import Principal
from ocean_core.model.errors import (
    CreditsError,
    DiskFullError,
    ForbiddenError,
    IdempotencyKeyError,
    IdempotencyMismatchError,
    InvalidReadingError,
    SeriesQuotaError,
)
from ocean_core.model.receipt import Owner
from ocean_core.service.series_quota import SeriesQuota
from support.ingest_bench import NOW_US, IngestBench


@pytest.fixture(scope="module")
def decoders() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def bench(decoders: ThreadPoolExecutor) -> IngestBench:
    return IngestBench(decoders, IngestSettings(series_per_sensor_max=4, series_total_max=6))


def test_a_single_answer_has_the_originals_fields(bench: IngestBench) -> None:
    assert bench.single({"sensor_id": "s", "value": 1, "timestamp": "2026-01-17T08:00:00Z"}) == {
        "id": 1,
        "sensor_id": "s",
        "buffered": True,
        "timestamp": "2026-01-17T08:00:00Z",
    }
    assert bench.single({"sensor_id": "s", "values": {"a": 1, "b": 2}})["count"] == 2
    event = bench.single({"sensor_id": "s", "data": "door open"})
    assert (event["id"], event["kind"]) == (4, "event")


def test_a_batch_answer_has_one_id_per_item(bench: IngestBench) -> None:
    answer = bench.batch(
        [{"sensor_id": "s", "values": {"a": 1, "b": 2}}, {"sensor_id": "t", "data": "x"}]
    )
    assert answer == {
        "count": 2,
        "ids": [1, 3],
        "buffered": True,
        "timestamp": "2026-05-28T20:26:40Z",
    }
    assert bench.metrics.value("ocean_telemetry_ingested_total") == 3


def test_a_partial_batch_returns_the_rejects(bench: IngestBench) -> None:
    answer = bench.batch(
        [{"sensor_id": "s", "value": 1}, {"sensor_id": "", "value": 1}], partial=True
    )
    assert (answer["count"], answer["ids"], answer["rejected_count"]) == (1, [1], 1)
    assert answer["rejected"][0]["item"] == 1
    assert answer["rejected"][0]["field"] == "sensor_id"


def test_a_bad_item_refuses_the_whole_batch(bench: IngestBench) -> None:
    with pytest.raises(InvalidReadingError):
        bench.batch([{"sensor_id": "s", "value": 1}, {"sensor_id": "s"}])
    assert bench.buffer.stored == []


def test_a_repeat_gets_the_same_answer_and_is_counted_once(bench: IngestBench) -> None:
    first = bench.single({"sensor_id": "s", "value": 1}, "k")
    bench.clock.advance(5)
    again = bench.single({"sensor_id": "s", "value": 1}, "k")
    assert again == {**first, "duplicate": True}
    assert bench.metrics.value("ocean_telemetry_ingested_total") == 1
    assert bench.metrics.value("ocean_telemetry_duplicate_total") == 1


def test_a_repeat_is_answered_even_if_it_would_be_refused_now(bench: IngestBench) -> None:
    item = {"sensor_id": "s", "value": 1, "timestamp": NOW_US / 1e6}
    first = bench.single(item, "k")
    bench.clock.set_wall(NOW_US - 3_600_000_000)
    assert bench.single(item, "k") == {**first, "duplicate": True}


def test_the_answer_tells_that_a_time_is_not_trusted(bench: IngestBench) -> None:
    assert bench.single({"sensor_id": "s", "value": 1, "timestamp": 5})["quality"] == 2


def test_a_key_belongs_to_one_body_and_one_route(bench: IngestBench) -> None:
    bench.single({"sensor_id": "s", "value": 1}, "k")
    with pytest.raises(IdempotencyMismatchError):
        bench.single({"sensor_id": "s", "value": 2}, "k")
    with pytest.raises(IdempotencyMismatchError):
        bench.batch([{"sensor_id": "s", "value": 1}], "k")


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
def test_a_key_must_be_printable_and_short(bench: IngestBench, key: str) -> None:
    with pytest.raises(IdempotencyKeyError):
        bench.single({"sensor_id": "s", "value": 1}, key)


def test_quotas_name_the_sensor_and_cost_nobody_else(bench: IngestBench) -> None:
    bench.batch([{"sensor_id": "s", "values": {"a": 1, "b": 1, "c": 1, "d": 1}}])
    with pytest.raises(SeriesQuotaError, match="'s' would have more than 4"):
        bench.single({"sensor_id": "s", "value": 1})
    bench.batch([{"sensor_id": "t", "value": 1}, {"sensor_id": "u", "value": 1}])
    with pytest.raises(SeriesQuotaError, match="'v' would bring the box above 6"):
        bench.single({"sensor_id": "v", "value": 1})
    assert bench.single({"sensor_id": "t", "value": 2})["id"] == 7


def test_a_renamed_sensor_counts_once_under_whichever_name_it_sends() -> None:
    quota = SeriesQuota(
        IngestSettings(series_total_max=2), lambda name: {"old": "new"}.get(name, name)
    )
    quota.learn(quota.check([("old", "value")]))
    assert quota.check([("new", "value"), ("old", "value")]) == []
    quota.learn(quota.check([("other", "value")]))
    assert len(quota) == 2
    with pytest.raises(SeriesQuotaError):
        quota.check([("third", "value")])


def test_what_was_not_stored_does_not_count_against_the_quota(bench: IngestBench) -> None:
    bench.buffer.broken = True
    with pytest.raises(DiskFullError):
        bench.single({"sensor_id": "s", "value": 1})
    assert len(bench.quota) == 0
    assert bench.metrics.value("ocean_telemetry_ingested_total") == 0


def test_a_reading_from_the_future_is_refused_only_by_a_clock_that_can_know(
    bench: IngestBench,
) -> None:
    item = {"sensor_id": "s", "value": 1, "timestamp": NOW_US / 1e6 + 3600}
    with pytest.raises(InvalidReadingError):
        bench.single(item)
    bench.clock.is_synchronised = False
    assert bench.single(item)["id"] == 1
    assert [alarm.name for alarm in bench.alarms.open_alarms()] == ["clock.untrusted"]


def test_a_clock_behind_the_newest_arrival_is_not_trusted(bench: IngestBench) -> None:
    bench.single({"sensor_id": "s", "value": 1})
    bench.clock.set_wall(NOW_US - 7_200_000_000)
    item = {"sensor_id": "s", "value": 1, "timestamp": NOW_US / 1e6}
    assert bench.single(item)["id"] == 2
    stored = bench.buffer.stored[-1].readings
    assert stored is not None
    assert list(stored.quality) == [2]


def test_a_sensor_with_a_dead_clock_gets_an_alarm_of_its_own(bench: IngestBench) -> None:
    bench.batch(
        [{"sensor_id": "good", "value": 1}, {"sensor_id": "bad", "value": 1, "timestamp": 5}]
    )
    (alarm,) = bench.alarms.open_alarms()
    assert alarm.name == "sensor.clock"
    assert "'bad'" in alarm.detail
    bench.service.clear_quiet_alarms()
    assert bench.alarms.open_alarms()
    bench.clock.advance(601)
    bench.service.clear_quiet_alarms()
    assert not bench.alarms.open_alarms()


def test_a_large_body_is_decoded_on_another_thread(bench: IngestBench) -> None:
    items = [{"sensor_id": "s", "value": i} for i in range(12_000)]
    assert bench.batch(items)["count"] == 12_000


def test_readings_under_a_users_key_count_for_the_user(bench: IngestBench) -> None:
    bench.single({"sensor_id": "s", "value": 1}, principal=Principal("key", "k1", user_id="u1"))
    bench.single({"sensor_id": "s", "value": 1}, principal=Principal("key", "k2"))
    assert bench.buffer.owners == [Owner("u1", charged=True), None]


def test_a_repeat_is_answered_after_the_credits_are_used_up(bench: IngestBench) -> None:
    payer = Principal("key", "k1", user_id="u1")
    item = {"sensor_id": "s", "value": 1}
    assert bench.single(item, "retry", payer)["id"] == 1
    bench.credits.left = 0
    assert bench.single(item, "retry", payer)["duplicate"]
    with pytest.raises(CreditsError):
        bench.single(item, "new", payer)
    assert bench.buffer.head_id == 1


def test_a_sensor_that_the_key_is_not_for_is_refused(bench: IngestBench) -> None:
    limited = Principal("key", "k1", sensors="hall-*")
    assert bench.single({"sensor_id": "hall-1", "value": 1}, principal=limited)["id"] == 1
    with pytest.raises(ForbiddenError):
        bench.single({"sensor_id": "yard-1", "value": 1}, principal=limited)
    assert bench.buffer.head_id == 1


def test_two_keys_do_not_share_idempotency_keys(bench: IngestBench) -> None:
    item = {"sensor_id": "s", "value": 1}
    assert bench.single(item, "same", Principal("key", "k1"))["id"] == 1
    assert bench.single(item, "same", Principal("key", "k2"))["id"] == 2
    assert bench.single(item, "same")["id"] == 3
    assert bench.single(item, "same", Principal("key", "k1"))["duplicate"]
