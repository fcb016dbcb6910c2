"""Single readings in groups: who goes with whom, what each is told, and what is left alone."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Principal, Scope
from ocean_core.model.block import Readings
from ocean_core.model.errors import DiskFullError, InternalError, OceanError
from ocean_core.model.receipt import Intake
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock, iso_utc
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.readings.shapes import ARRAY_ROWS_MIN
from ocean_core.service.ingest_answers import SingleAnswer
from ocean_core.service.singles import SingleReadings
from support.ingest_bench import NOW_US, MemoryBuffer
from support.two_ways import WatchedBuffer

HALL = Principal("key", "hall", scopes=frozenset({Scope.INGEST}), sensors="hall/*")


class Waiter:
    """A sink that remembers what it was told."""

    def __init__(self, *, fault: Exception | None = None) -> None:
        self.fault = fault
        self.answers: list[bytes] = []
        self.errors: list[tuple[OceanError, str]] = []

    def stored(self, answer: bytes) -> None:
        self.answers.append(answer)
        if self.fault is not None:
            raise self.fault

    def refused(self, error: OceanError, sensor_id: str) -> None:
        self.errors.append((error, sensor_id))
        if self.fault is not None:
            raise self.fault


class Bench:
    def __init__(self, known: Callable[[str], bool] = lambda name: name != "stranger") -> None:
        self.clock = ManualClock(NOW_US)
        self.metrics = MetricsRegistry(METRICS)
        self.told = io.StringIO()
        self.memory = MemoryBuffer()
        self.buffer = WatchedBuffer(self.memory)
        self.singles = SingleReadings(
            self.buffer,
            self.clock,
            self.metrics,
            EventLog(self.clock, stream=self.told),
            lambda series: series[1] == "value" and known(series[0]),
        )

    def offer(self, sensor_id: str = "s", value: float = 1, moment: Any = None) -> Waiter:
        """Offer a reading that has to be taken."""
        waiter = Waiter()
        body = {"sensor_id": sensor_id, "value": value}
        if moment is not None:
            body["timestamp"] = moment
        assert self.singles.offer(json.dumps(body).encode(), LOCAL, waiter)
        assert not waiter.answers
        assert not waiter.errors
        return waiter

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    @property
    def ingested(self) -> float:
        return self.metrics.value("ocean_telemetry_ingested_total")


def run(scenario: Callable[[Bench], Awaitable[Any]], **options: Any) -> Any:
    async def whole() -> Any:
        async with asyncio.timeout(20):
            return await scenario(Bench(**options))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def ids(waiters: list[Waiter]) -> list[int]:
    assert all(len(waiter.answers) == 1 and not waiter.errors for waiter in waiters)
    return [json.loads(waiter.answers[0])["id"] for waiter in waiters]


def rows(intake: Intake) -> list[tuple[str, str, int, float, int]]:
    columns = intake.readings
    assert isinstance(columns, Readings)
    assert intake.events is None
    assert intake.rows == intake.items == len(columns)
    return [
        (*columns.series[int(place)], int(moment), float(value), int(quality))
        for place, moment, value, quality in zip(
            columns.series_index, columns.timestamp_us, columns.value, columns.quality, strict=True
        )
    ]


def test_what_comes_in_one_turn_and_what_comes_meanwhile_are_two_groups() -> None:
    async def scenario(bench: Bench) -> None:
        bench.buffer.gate.clear()
        first = [bench.offer(value=n) for n in range(3)]
        await bench.settle()
        second: list[Waiter] = []
        for n in range(4):
            second.append(bench.offer(value=10 + n))
            await bench.settle()
        assert not any(waiter.answers for waiter in [*first, *second])
        bench.buffer.gate.set()
        await bench.settle()
        assert [intake.rows for intake in bench.buffer.intakes] == [3, 4]
        assert ids([*first, *second]) == [1, 2, 3, 4, 5, 6, 7]
        assert bench.ingested == 7
        last = bench.offer()
        await bench.settle()
        assert ids([last]) == [8]

    run(scenario)


def test_no_more_gather_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SINGLES_GATHERED_MAX", 3)

    async def scenario(bench: Bench) -> None:
        bench.buffer.gate.clear()
        first = bench.offer()
        await bench.settle()
        gathered = [bench.offer() for _ in range(3)]
        left = Waiter()
        assert not bench.singles.offer(b'{"sensor_id":"s","value":1}', LOCAL, left)
        bench.buffer.gate.set()
        await bench.settle()
        assert ids([first, *gathered]) == [1, 2, 3, 4]
        assert not left.answers
        assert ids([await settled(bench)]) == [5]

    async def settled(bench: Bench) -> Waiter:
        waiter = bench.offer()
        await bench.settle()
        return waiter

    run(scenario)


@pytest.mark.parametrize("count", [1, ARRAY_ROWS_MIN - 1, ARRAY_ROWS_MIN, 200])
def test_rows_are_stored_as_they_came_and_ids_are_theirs(count: int) -> None:
    async def scenario(bench: Bench) -> None:
        names = [f"s{n * 7 % 5}" for n in range(count)]
        waiters = [
            bench.offer(name, n / 4, NOW_US - n if n % 2 else None) for n, name in enumerate(names)
        ]
        await bench.settle()
        assert ids(waiters) == list(range(1, count + 1))
        (intake,) = bench.buffer.intakes
        assert rows(intake) == [
            (name, "value", NOW_US - n if n % 2 else NOW_US, n / 4, 0)
            for n, name in enumerate(names)
        ]
        assert intake.readings is not None
        assert len(intake.readings.series) == len(set(names))
        told = [json.loads(waiter.answers[0])["sensor_id"] for waiter in waiters]
        assert told == names

    run(scenario)


def test_a_group_that_is_refused_is_refused_to_each_by_name_and_the_next_is_stored() -> None:
    async def scenario(bench: Bench) -> None:
        bench.buffer.gate.clear()
        bench.buffer.failure = lambda: DiskFullError("no space", retry_after_s=5)
        refused = [bench.offer(name) for name in ("a", "b", "a")]
        await bench.settle()
        bench.buffer.gate.set()
        await bench.settle()
        assert [waiter.errors[0][1] for waiter in refused] == ["a", "b", "a"]
        assert {type(waiter.errors[0][0]) for waiter in refused} == {DiskFullError}
        assert not any(waiter.answers for waiter in refused)
        assert bench.ingested == 0
        bench.buffer.failure = None
        stored = bench.offer("a")
        await bench.settle()
        assert ids([stored]) == [1]

    run(scenario)


def test_an_unexpected_fault_is_answered_and_told_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.buffer.failure = lambda: RuntimeError("nobody thought of this")
        waiters = [bench.offer() for _ in range(3)]
        await bench.settle()
        assert {type(waiter.errors[0][0]) for waiter in waiters} == {InternalError}
        assert bench.told.getvalue().count("api.internal_error") == 1
        bench.buffer.failure = None
        after = bench.offer()
        await bench.settle()
        assert ids([after]) == [1]

    run(scenario)


@pytest.mark.parametrize("fails", [False, True])
def test_one_who_cannot_be_told_costs_the_others_nothing(fails: bool) -> None:
    async def scenario(bench: Bench) -> None:
        if fails:
            bench.buffer.failure = lambda: DiskFullError("no space")
        before = bench.offer()
        broken = Waiter(fault=RuntimeError("the connection is odd"))
        assert bench.singles.offer(b'{"sensor_id":"s","value":1}', LOCAL, broken)
        behind = bench.offer()
        await bench.settle()
        for waiter in (before, broken, behind):
            assert len(waiter.answers) + len(waiter.errors) == 1
        assert "the connection is odd" in bench.told.getvalue()
        bench.buffer.failure = None
        after = bench.offer()
        await bench.settle()
        assert len(after.answers) == 1

    run(scenario)


def test_whoever_sends_again_from_the_answer_goes_with_the_next_group() -> None:
    """As connections do that have sent ahead: one group has one reading of each."""

    class Eager(Waiter):
        def __init__(self, bench: Bench, left: int) -> None:
            super().__init__()
            self.bench, self.left = bench, left

        def stored(self, answer: bytes) -> None:
            super().stored(answer)
            if self.left:
                self.left -= 1
                assert self.bench.singles.offer(b'{"sensor_id":"e","value":1}', LOCAL, self)

    async def scenario(bench: Bench) -> None:
        eager = Eager(bench, 50)
        assert bench.singles.offer(b'{"sensor_id":"e","value":1}', LOCAL, eager)
        await bench.settle()
        modest = bench.offer("m")
        for _ in range(20):
            await bench.settle()
        assert len(eager.answers) == 51
        assert len(modest.answers) == 1
        of_eager = [sum(row[0] == "e" for row in rows(each)) for each in bench.buffer.intakes]
        assert max(of_eager) == 1

    run(scenario)


def left_alone() -> Iterator[tuple[str, bytes]]:
    item = {"sensor_id": "s", "value": 1}
    moments: list[Any] = [
        True, 1.5, float(NOW_US), "2026-01-17", str(NOW_US), [], NOW_US // 10**6, NOW_US // 1000,
        NOW_US * 1000, 0, -1, 2**63, 2**64, 10**30, limits.TIMESTAMP_PLAUSIBLE_US_MIN - 1,
        NOW_US + limits.FUTURE_TOLERANCE_US + 1,
    ]  # fmt: skip
    for moment in moments:
        yield f"moment {moment}", json.dumps({**item, "timestamp": moment}).encode()
    yield "unknown", b'{"sensor_id":"stranger","value":1}'
    for field in ('"metric":"value"', '"values":{"a":1}', '"data":1', '"x":1'):
        yield field, b'{"sensor_id":"s","value":1,%b}' % field.encode()
    for value in ("null", "true", '"1"', "NaN", "1e999", "[]", "9" * 400):
        yield f"value {value[:9]}", b'{"sensor_id":"s","value":%b}' % value.encode()
    for body in (b"", b"{", b"null", b"[]", b"1", b'{"sensor_id":"s"}', b'{"value":1}',
                 b'{"sensor_id":1,"value":1}', b'{"sensor_id":"\xff","value":1}', b"[" * 8000,
                 b'\xef\xbb\xbf{"sensor_id":"s","value":1}', b'{"sensor_id":"s","value":1}x',
                 '{"sensor_id":"ü","value":1}'.encode(), b'{"sensor_id":"\\ud800","value":1}',
                 b'{"sensor_id":"s","value":1' + b" " * 8192 + b"}"):  # fmt: skip
        yield f"body {body[:40]!r}", body


LEFT_ALONE = dict(left_alone())


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_not_usual_is_left_to_others(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        waiter = Waiter()
        assert not bench.singles.offer(LEFT_ALONE[name], LOCAL, waiter)
        usual = bench.offer()
        await bench.settle()
        assert ids([usual]) == [1]
        assert not waiter.answers
        assert not waiter.errors
        assert [intake.rows for intake in bench.buffer.intakes] == [1]

    run(scenario)


def test_sensors_that_a_key_is_not_for_are_left_to_others() -> None:
    async def scenario(bench: Bench) -> None:
        waiter = Waiter()
        assert not bench.singles.offer(b'{"sensor_id":"yard/1","value":1}', HALL, waiter)
        assert bench.singles.offer(b'{"sensor_id":"hall/1","value":1}', HALL, waiter)
        await bench.settle()
        assert ids([waiter]) == [1]

    run(scenario)


def test_without_a_plausible_clock_arrivals_are_left_to_others() -> None:
    async def scenario(bench: Bench) -> None:
        bench.clock.set_wall(5_000_000)
        assert not bench.singles.offer(b'{"sensor_id":"s","value":1}', LOCAL, Waiter())

    run(scenario)


def test_a_sensor_is_taken_as_soon_as_it_is_known() -> None:
    known: set[str] = set()

    async def scenario(bench: Bench) -> None:
        body = b'{"sensor_id":"new","value":1}'
        assert not bench.singles.offer(body, LOCAL, Waiter())
        known.add("new")
        assert bench.singles.offer(body, LOCAL, Waiter())

    run(scenario, known=known.__contains__)


def test_many_names_are_forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocean_core.service.singles.NAMES_REMEMBERED_MAX", 10)

    async def scenario(bench: Bench) -> None:
        waiters = [bench.offer(f"n{n}") for n in range(100)]
        assert len(bench.singles._names) <= 10
        await bench.settle()
        assert [json.loads(w.answers[0])["sensor_id"] for w in waiters] == [
            f"n{n}" for n in range(100)
        ]

    run(scenario)


@given(
    sensor_id=st.text(min_size=1, max_size=40),
    moment=st.integers(limits.TIMESTAMP_PLAUSIBLE_US_MIN, NOW_US + limits.FUTURE_TOLERANCE_US),
    value=st.floats(allow_nan=False, allow_infinity=False),
    before=st.integers(0, 3),
)
def test_answers_are_those_of_the_ordinary_way(
    sensor_id: str, moment: int, value: float, before: int
) -> None:
    async def scenario(bench: Bench) -> bytes:
        for _ in range(before):
            bench.offer()
        # As JSON with escapes: what has other letters is left to the ordinary way.
        body = json.dumps({"sensor_id": sensor_id, "timestamp": moment, "value": value})
        waiter = Waiter()
        is_taken = bench.singles.offer(body.encode(), LOCAL, waiter)
        await bench.settle()
        if not is_taken:
            return b""
        assert rows(bench.buffer.intakes[-1])[-1] == (sensor_id, "value", moment, value, 0)
        return waiter.answers[0]

    answer = run(scenario)
    is_text = not any(0xD800 <= ord(letter) < 0xE000 for letter in sensor_id)
    if answer or is_text:
        assert answer == msgspec.json.encode(
            SingleAnswer(before + 1, sensor_id, buffered=True, timestamp=iso_utc(moment))
        )
