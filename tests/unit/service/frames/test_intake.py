"""Frames on their way to a durable outcome: once each, whatever comes in between."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ocean_core.config.settings import NanogridataSettings
from ocean_core.model.access import Principal, Scope
from ocean_core.model.errors import BufferUnavailableError, DiskFullError
from ocean_core.model.receipt import FRAME_NOTE_BYTES
from ocean_core.protocol.nanogridata.encode import cbor_payload, encode, gas_payload
from ocean_core.protocol.nanogridata.frame import CUSTOM, GAS, MULTI_SENSOR
from ocean_core.protocol.nanogridata.secret import HmacSecret
from support.frame_kit import NOW_S, SECRET, FrameKit, pressure

KEY = Principal("key", "k1", scopes=frozenset({Scope.INGEST}), sensors="P-*")


def run(case: Callable[[FrameKit], Awaitable[None]], kit: FrameKit | None = None) -> FrameKit:
    made = kit or FrameKit()

    async def whole() -> None:
        await made.opened()
        await asyncio.wait_for(case(made), 20)
        await made.service.close()

    asyncio.run(whole())
    return made


def test_a_frame_becomes_a_reading_with_its_note() -> None:
    async def case(kit: FrameKit) -> None:
        (result,) = await kit.take(pressure(pa=99_000))
        assert (result.outcome, result.sensor_id, result.first_id, result.rows) == (
            "stored", "P-1", 1, 1,
        )  # fmt: skip

    kit = run(case)
    assert kit.readings() == [("P-1", "pressure", NOW_S, 99_000.0, 0)]
    assert len(kit.buffer.intakes[0].frames) == FRAME_NOTE_BYTES
    assert kit.facts.told == [("P-1", "LAB", "pressure_v1", {"pressure": "Pa"})]
    assert kit.gaps.times == {"P-1": [NOW_S]}


def test_every_level_form_and_type_is_stored_as_what_it_is() -> None:
    entries = [{"ts": NOW_S - 2, "ppm": 3}, {"ts": NOW_S - 1.5, "ppm": 20_000}]
    gas = {"device_id": "G-1", "gas_type": "CO2", "lab_id": "L", "entries": entries}
    frames = [
        pressure(level=0),
        pressure(level=2, pa=1),
        encode(
            GAS, 1, gas_payload("G-2", "NO2", NOW_S, 1.5), level=1, timestamp=NOW_S, secret=SECRET
        ),
        encode(GAS, 1, cbor_payload(gas), level=3, timestamp=NOW_S, secret=SECRET, iv=bytes(12)),
        encode(MULTI_SENSOR, 1, b"\0\1\2\3", level=0, timestamp=NOW_S),
        pressure("P-9", level=0, kind=2),
        encode(CUSTOM, 3, cbor_payload({"b": b"\xff"}), level=1, timestamp=NOW_S, secret=SECRET),
    ]

    async def case(kit: FrameKit) -> None:
        results = await kit.take(*frames, given="beside")
        assert [one.outcome for one in results] == ["stored"] * len(frames)
        assert [one.sensor_id for one in results] == [
            "P-1", "P-1", "G-2", "G-1", "beside", "P-9", "beside",
        ]  # fmt: skip
        assert [one.rows for one in results] == [1, 1, 1, 2, 1, 1, 1]
        # Ids are dense: readings first, then the events.
        assert [one.first_id for one in results] == [1, 2, 3, 4, 6, 7, 8]
        assert [one.is_event for one in results] == [False] * 4 + [True] * 3

    kit = run(case)
    assert kit.readings() == [
        ("P-1", "pressure", NOW_S, 101_325.0, 0),
        ("P-1", "pressure", NOW_S, 1.0, 0),
        ("G-2", "gas:NO2", NOW_S, 1.5, 0),
        ("G-1", "gas:CO2", NOW_S - 2, 3.0, 0),
        ("G-1", "gas:CO2", NOW_S - 2, 20_000.0, 1),
    ]
    events = kit.buffer.intakes[1].events
    assert events is not None
    assert b'{"$bytes":"ff"}' in events.payload[2]


def test_a_repeat_of_a_stored_frame_is_a_duplicate_and_counted_first() -> None:
    async def case(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure(), pressure(), pressure("P-2")) == [
            "stored", "duplicate", "stored",
        ]  # fmt: skip
        assert await kit.outcomes(pressure()) == ["duplicate"]

    kit = run(case)
    assert len(kit.readings()) == 2
    assert kit.buffer.counted == [{"P-1": 1}, {"P-1": 1}]
    assert kit.metrics.value("ocean_telemetry_duplicate_total") == 2
    assert not kit.quarantine.frames


def test_a_repeat_waits_for_the_first_and_shares_its_fate() -> None:
    async def case(kit: FrameKit) -> None:
        kit.buffer.gate.clear()
        first = asyncio.ensure_future(kit.take(pressure()))
        await kit.settle()
        second = asyncio.ensure_future(kit.take(pressure()))
        await kit.settle()
        assert not second.done()
        kit.buffer.failure = lambda: DiskFullError("no space", retry_after_s=5)
        kit.buffer.gate.set()
        assert (await first)[0][:1] == ("OC-4001",)
        again = (await second)[0]
        assert (again.outcome, again.may_retry) == ("OC-3002", True)
        kit.buffer.failure = None
        assert await kit.outcomes(pressure(), pressure()) == ["stored", "duplicate"]

    assert len(run(case).readings()) == 1


def test_what_a_frame_holds_is_refused_once_and_replays_after_that() -> None:
    bad = encode(GAS, 1, b"\x01", level=1, timestamp=NOW_S, secret=SECRET)

    async def case(kit: FrameKit) -> None:
        assert await kit.outcomes(bad, bad, pressure()) == ["E_PAYLOAD", "E_REPLAY", "stored"]
        assert await kit.outcomes(bad, transport="retry") == ["E_PAYLOAD"]

    kit = run(case)
    assert [one.outcome for one in kit.quarantine.frames] == ["E_PAYLOAD", "E_REPLAY"]
    assert kit.quarantine.frames[0].frame == bad
    assert kit.metrics.value(
        "ocean_nanogridata_frames_total", "http", "0x20", "E_PAYLOAD"
    ) == 1  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "outcome"),
    [
        (b"", "E_SHORT"),
        (pressure()[:-1], "E_SHORT"),
        (pressure() + b"x", "E_TRAILING"),
        (pressure()[:-1] + b"\0", "E_MAC"),
        (pressure(at=NOW_S + 61), "E_FUTURE"),
        (pressure(at=NOW_S - 3601), "E_STALE"),
        (pressure("bell\x07"), "OC-2002"),
    ],
)
def test_each_refusal_costs_nobody_else_anything(frame: bytes, outcome: str) -> None:
    async def case(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure("P-8"), frame, pressure("P-9")) == [
            "stored", outcome, "stored",
        ]  # fmt: skip

    kit = run(case)
    assert [one.outcome for one in kit.quarantine.frames] == [outcome]
    assert not kit.quarantine.frames[0].is_early


def test_a_wrong_time_is_early_while_the_own_clock_is_not_trusted() -> None:
    async def case(kit: FrameKit) -> None:
        kit.clock.is_synchronised = False
        await kit.take(pressure(at=NOW_S + 61), pressure()[:-1] + b"\0")

    kit = run(case)
    assert [one.is_early for one in kit.quarantine.frames] == [True, False]


def test_time_is_judged_as_of_the_arrival() -> None:
    async def case(kit: FrameKit) -> None:
        late = pressure(at=NOW_S - 9000)
        assert await kit.outcomes(late) == ["E_STALE"]
        arrived = (NOW_S - 8000) * 1_000_000
        assert await kit.outcomes(late, transport="retry", arrival_us=arrived) == ["stored"]

    run(case)


def test_a_marker_stores_once_however_late() -> None:
    async def case(kit: FrameKit) -> None:
        old = pressure(at=NOW_S - 9000)
        arrived = (NOW_S - 9000) * 1_000_000
        more = {"transport": "retry", "arrival_us": arrived, "marker": "m1"}
        assert await kit.outcomes(old, **more) == ["stored"]
        # The memory of frames has let go of it long since.
        kit.memory.expire(NOW_S)
        assert await kit.outcomes(old, **more) == ["duplicate"]

    assert len(run(case).readings()) == 1


def test_what_was_stored_before_a_restart_is_known_after_it() -> None:
    async def first(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure(), pressure("P-2")) == ["stored", "stored"]

    before = run(first)
    after = FrameKit()
    after.buffer.notes = [intake.frames for intake in before.buffer.intakes]

    async def second(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure("P-2"), pressure("P-3")) == ["duplicate", "stored"]

    run(second, after)


def test_nothing_is_taken_before_it_is_known_what_came() -> None:
    kit = FrameKit()

    async def case() -> None:
        (result,) = await kit.take(pressure())
        assert (result.outcome, result.may_retry) == ("OC-3002", True)

    asyncio.run(case())
    # Whoever is told to send it again need not be kept.
    assert not kit.quarantine.frames


def test_a_key_is_for_its_sensors_alone_and_counts_for_its_user() -> None:
    payer = Principal("key", "k2", scopes=frozenset({Scope.INGEST}), user_id="u")

    async def case(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure(), pressure("X-1"), principal=KEY) == [
            "stored", "OC-6006",
        ]  # fmt: skip
        assert await kit.outcomes(pressure("X-2"), principal=payer) == ["stored"]

    kit = run(case)
    owner = kit.buffer.inner.owners[-1]  # type: ignore[attr-defined]
    assert owner is not None
    assert owner.user_id == "u"


def test_a_group_secret_speaks_for_its_devices_only() -> None:
    group = HmacSecret(bytes(range(50, 90)), "0x10/line-3", "line-3-*")
    kit = FrameKit(group, HmacSecret(SECRET, "0x10"))

    async def case(kit: FrameKit) -> None:
        mine = pressure("line-3-7", secret=bytes(range(50, 90)))
        foreign = pressure("line-4-7", secret=bytes(range(50, 90)))
        assert await kit.outcomes(mine, foreign, pressure("line-4-7")) == [
            "stored", "E_MAC", "stored",
        ]  # fmt: skip
        # Also in the quick way, and although the device itself is known by now.
        for pa in range(3):
            frames = (
                pressure("line-3-7", pa, secret=bytes(range(50, 90))),
                pressure("line-4-7", pa, secret=bytes(range(50, 90))),
                pressure("line-4-7", pa),
            )
            results = await kit.stream(b"".join(frames))
            # A frame that is not its signer's to send is refused after it was proven.
            assert [one.outcome for one in results] == ["stored", "E_MAC", "stored"]

    run(case, kit)


def test_changed_secrets_count_at_once() -> None:
    async def case(kit: FrameKit) -> None:
        for pa in range(3):
            assert [one.outcome for one in await kit.stream(pressure(pa=pa))] == ["stored"]
        assert kit.service.names.kinds
        kit.keys.secrets, kit.keys.version = (HmacSecret(bytes(32), "new"),), 2
        kit.service.follow_keys()
        found = [one.outcome for one in await kit.stream(pressure(pa=9))]
        assert found[0] == "E_MAC"

    run(case)


def test_trying_again_looks_for_new_secrets_first() -> None:
    async def case(kit: FrameKit) -> None:
        await kit.take(pressure())
        assert kit.keys.reloads == 0
        await kit.take(pressure(), transport="retry")
        assert kit.keys.reloads == 1

    run(case)


def test_a_quota_names_itself() -> None:
    async def case(kit: FrameKit) -> None:
        gases = [
            encode(GAS, 1, gas_payload("G", f"g{n}", NOW_S, 1), level=0, timestamp=NOW_S)
            for n in range(4)
        ]
        for frame in gases[:3]:
            assert await kit.outcomes(frame) == ["stored"]
        (result,) = await kit.take(gases[3])
        assert result.outcome == "OC-2007"
        assert "more than 3 metrics" in result.detail

    run(case)


def test_a_quota_counts_frames_that_come_together() -> None:
    def gas(device: str, number: int) -> bytes:
        payload = gas_payload(device, f"g{number}", NOW_S, 1)
        return encode(GAS, 1, payload, level=0, timestamp=NOW_S)

    async def case(kit: FrameKit) -> None:
        found = await kit.outcomes(*(gas("G", number % 50) for number in range(50)))
        assert found == ["stored"] * 3 + ["OC-2007"] * 47
        found = [one.outcome for one in await kit.stream(b"".join(gas("H", n) for n in range(50)))]
        assert found == ["stored"] * 3 + ["OC-2007"] * 47
        assert len(kit.quota) == 6

    run(case)


def test_what_could_not_be_stored_takes_no_place_of_the_quota() -> None:
    async def case(kit: FrameKit) -> None:
        def gas(number: int) -> bytes:
            payload = gas_payload("G", f"g{number}", NOW_S, 1)
            return encode(GAS, 1, payload, level=0, timestamp=NOW_S)

        kit.buffer.failure = lambda: DiskFullError("the disk is full")
        assert set(await kit.outcomes(*map(gas, range(3)))) == {DiskFullError.code}
        kit.buffer.failure = None
        assert await kit.outcomes(*map(gas, range(3, 7))) == ["stored"] * 3 + ["OC-2007"]

    run(case)


def test_frames_of_senders_that_cannot_be_told_are_tried_again() -> None:
    from ocean_core.service.frames.parcel import Parcel
    from ocean_core.service.frames.stream import FrameStream

    async def case(kit: FrameKit) -> None:
        kit.buffer.failure = lambda: BufferUnavailableError("the disk is away")
        done = asyncio.Event()
        parcel = Parcel(done.set)
        kit.feed(FrameStream(kit.service), pressure(), parcel)
        parcel.close()
        kit.service.store.send()
        await kit.settle()
        assert not done.is_set()
        kit.buffer.failure = None
        await asyncio.wait_for(done.wait(), 5)
        assert len(kit.readings()) == 1

    run(case)


def test_a_repeat_is_answered_although_it_cannot_be_counted() -> None:
    async def case(kit: FrameKit) -> None:
        await kit.take(pressure())

        async def broken(_: object) -> None:
            raise BufferUnavailableError("closed")

        kit.buffer.count_repeats = broken  # type: ignore[assignment, method-assign]
        assert await kit.outcomes(pressure()) == ["duplicate"]
        assert "duplicates" in kit.log.getvalue()

    run(case)


def test_a_policy_counts_for_plain_frames_too() -> None:
    async def case(kit: FrameKit) -> None:
        for pa in range(3):
            results = await kit.stream(pressure(pa=pa, level=0), pressure(pa=pa))
            assert [one.outcome for one in results] == ["E_POLICY", "E_MAGIC", "stored"]

    run(case, FrameKit(settings=NanogridataSettings(min_level=1)))
