"""Frames in a stream: the quick way of plain ones tells the same as the careful one."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.protocol.nanogridata.encode import encode, gas_payload
from ocean_core.protocol.nanogridata.frame import GAS
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.frames.stream import CAREFUL_FRAMES_MAX
from support.frame_kit import NOW_S, SECRET, FrameKit, pressure
from support.nanogrid import golden

BAD_MAC = pressure("P-2", 7)[:-1] + b"\0"
GOOD = [
    pressure("P-1", 1),
    pressure("P-1", 2),
    pressure("P-2", 300_000),
    pressure("P-22", 3, lab=""),
    pressure("P-1", 4, level=0),
    pressure("P-1", 5, level=2),
    pressure("P-1", 6, at=NOW_S + 3000, header_at=NOW_S),
    pressure("P-1", 7, at=5, header_at=NOW_S - 3600),
    encode(GAS, 1, gas_payload("G-1", "CO2", NOW_S, -4.5), level=1, timestamp=NOW_S, secret=SECRET),
    encode(GAS, 1, gas_payload("G-1", "CO2", NOW_S, 9e9), level=0, timestamp=NOW_S),
]
OTHER = [
    BAD_MAC,
    pressure("P-1", 8, at=NOW_S + 61),
    pressure("P-1", 9, at=NOW_S - 3601),
    pressure("P-2", 10, kind=3),
    b"noise",
    b"\xc1",
    b"\xc1\x53",
    pressure("P-1", 11)[:20],
    GOOD[0][:12] + b"\x01\x00" + GOOD[0][14:],
    encode(
        GAS, 1, gas_payload("G-1", "CO2", NOW_S, 1)[:-4] + b"\x7f\x80\0\0",
        level=1, timestamp=NOW_S, secret=SECRET,
    ),
]  # fmt: skip


def reserved_set() -> bytes:
    """Return a frame with a reserved byte set, rightly signed: only the byte itself is wrong."""
    covered = GOOD[0][:12] + b"\x01\x00" + GOOD[0][14:-16]
    return covered + HmacSecret(SECRET, "test").mac(covered)[:16]


OTHER.append(reserved_set())


def teach(kit: FrameKit) -> list[bytes]:
    """Return frames after which all the devices above are known."""
    del kit
    return [
        *(pressure(name, 50 + n, lab=lab) for name, lab in
          (("P-1", "LAB"), ("P-2", "LAB"), ("P-22", "")) for n in range(2)),
        *(pressure(name, 60 + n, level=0) for name in ("P-1", "P-2") for n in range(2)),
        *(encode(GAS, 1, gas_payload("G-1", "CO2", NOW_S, 60 + n), level=level, timestamp=NOW_S,
                 secret=SECRET if level else None) for level in (0, 1) for n in range(2)),
    ]  # fmt: skip


async def results(kit: FrameKit, chunks: Sequence[bytes], *, quickly: bool) -> object:
    await kit.opened()
    for frame in teach(kit):
        await kit.stream(frame)
    assert len(kit.service.names.kinds) >= 5
    if not quickly:
        kit.service.names.learn = lambda *_: None  # type: ignore[method-assign]
        kit.service.names.kinds.clear()
    found = await kit.stream(*chunks)
    told: list[tuple[object, ...]] = [(one.outcome, one.detail, one.offset) for one in found]
    held = sorted((one.frame, one.outcome, one.is_early) for one in kit.quarantine.frames)
    counted: dict[str, int] = {}
    for counts in kit.buffer.counted:
        for sensor_id, count in counts.items():
            counted[sensor_id] = counted.get(sensor_id, 0) + count
    outcomes = sorted(str(one[0]) for one in told)
    # Which of two equal frames came first is all the same.
    same = {"stored": "good", "duplicate": "good", "E_PROFILE": "bad", "E_REPLAY": "bad"}
    good = [(same[str(one[0])],) if one[0] in same else one for one in told]
    return sorted(kit.readings()), outcomes, good, held, counted


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([*GOOD, *GOOD, *OTHER]), max_size=30),
    st.lists(st.integers(1, 400), max_size=8),
)
def test_both_ways_tell_the_same(parts: list[bytes], cuts: list[int]) -> None:
    whole, chunks = b"".join(parts), []
    for cut in cuts:
        chunks.append(whole[:cut])
        whole = whole[cut:]
    chunks.append(whole)
    quick = asyncio.run(results(FrameKit(), chunks, quickly=True))
    careful = asyncio.run(results(FrameKit(), [b"".join(chunks)], quickly=False))
    assert quick == careful


@pytest.mark.parametrize("case", golden()["streams"], ids=lambda case: case["id"])
def test_golden_streams_come_out_the_same_through_the_service(case: dict[str, object]) -> None:
    from support.nanogrid import keys_of

    kit = FrameKit(HmacSecret(bytes(32), "unused"))
    kit.keys = keys_of(case)  # type: ignore[assignment]
    kit.service.parts.__dict__["keys"] = kit.keys
    kit.keys.version = 1

    async def whole() -> list[str]:
        await kit.opened()
        kit.clock.set_wall(int(case["now"]) * 1_000_000)  # type: ignore[call-overload]
        chunks = [bytes.fromhex(chunk) for chunk in case["chunks"]]  # type: ignore[attr-defined]
        return [one.outcome for one in await kit.stream(*chunks)]

    found = asyncio.run(whole())
    accepted = len(case["accepted"])  # type: ignore[arg-type]
    replayed = sum(one["outcome"] == "E_REPLAY" for one in case["rejected"])  # type: ignore[attr-defined]
    # A repeat of a stored frame is a duplicate here, where the description alone says E_REPLAY.
    assert found.count("stored") == accepted
    assert found.count("duplicate") == replayed
    for one in case["rejected"]:  # type: ignore[attr-defined]
        assert one["outcome"] == "E_REPLAY" or one["outcome"] in found
    skipped = kit.metrics.value("ocean_nanogridata_skipped_bytes_total", "tcp")
    assert skipped == case["skipped_bytes"]


def test_a_reserved_byte_is_refused_though_signed() -> None:
    async def case() -> list[str]:
        kit = await FrameKit().opened()
        for frame in teach(kit):
            await kit.stream(frame)
        return [one.outcome for one in await kit.stream(reserved_set(), pressure("P-1", 999))]

    assert asyncio.run(case()) == ["E_MAGIC", "stored"]


def test_long_work_is_put_off_so_that_others_get_their_turn() -> None:
    from ocean_core.service.frames.parcel import ResultParcel
    from ocean_core.service.frames.stream import FrameStream

    async def case() -> None:
        kit = await FrameKit().opened()
        frames = [pressure(f"P-{n}", 1, level=2) for n in range(3 * CAREFUL_FRAMES_MAX)]
        stream, parcel = FrameStream(kit.service), ResultParcel()
        kit.feed(stream, b"".join(frames), parcel)
        turns = 1
        while stream.has_more:
            assert parcel.frames == turns * CAREFUL_FRAMES_MAX
            kit.feed(stream, b"", parcel)
            turns += 1
        assert parcel.frames == len(frames)
        assert turns >= 3

    asyncio.run(case())


def test_known_devices_go_the_quick_way() -> None:
    async def case() -> None:
        kit = await FrameKit().opened()
        for frame in teach(kit):
            await kit.stream(frame)

        def never(*_: object) -> None:
            raise AssertionError("with care")

        kit.service.take_proven = never  # type: ignore[assignment, method-assign]
        many = [pressure("P-1", 1000 + n) for n in range(300)]
        found = await kit.stream(b"".join(many))
        taught = len(teach(kit))
        assert [one.first_id for one in found] == list(range(taught + 1, taught + 301))
        assert {one.outcome for one in found} == {"stored"}

    asyncio.run(case())
