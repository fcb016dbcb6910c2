"""Exactly once in hard cases: senders that leave, clocks that jump, too much, secrets taken away."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import DiskFullError
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.frames import repeats
from ocean_core.service.frames.parcel import Parcel
from ocean_core.service.frames.stream import FrameStream
from support.frame_kit import NOW_S, TCP, FrameKit, pressure

HOUR_US = 3_600_000_000


def run(case: Callable[[FrameKit], Awaitable[None]]) -> FrameKit:
    kit = FrameKit()

    async def whole() -> None:
        await kit.opened()
        await asyncio.wait_for(case(kit), 20)
        await asyncio.wait_for(kit.service.close(), 20)

    asyncio.run(whole())
    return kit


@pytest.mark.parametrize("as_stream", [False, True])
def test_a_frame_whose_sender_left_is_stored_and_its_repeat_is_answered(as_stream: bool) -> None:
    async def case(kit: FrameKit) -> None:
        kit.buffer.gate.clear()
        taken = kit.service.take_stream(pressure(), TCP) if as_stream else kit.take(pressure())
        first = asyncio.ensure_future(taken)
        await kit.settle()
        first.cancel()
        await kit.settle()
        kit.buffer.gate.set()
        await kit.settle()
        assert await kit.outcomes(pressure()) == ["duplicate"]

    assert len(run(case).readings()) == 1


def test_a_clock_that_is_ahead_for_a_moment_forgets_nothing() -> None:
    async def case(kit: FrameKit) -> None:
        assert await kit.outcomes(pressure()) == ["stored"]
        kit.clock.set_wall(NOW_S * 1_000_000 + 2 * HOUR_US)
        await kit.service.tick()
        kit.clock.advance(10)
        await kit.service.tick()
        kit.clock.set_wall(NOW_S * 1_000_000 + 20_000_000)
        await kit.service.tick()
        assert await kit.outcomes(pressure()) == ["duplicate"]
        # One that stays ahead is believed in the end.
        kit.clock.set_wall(NOW_S * 1_000_000 + 2 * HOUR_US)
        await kit.service.tick()
        kit.clock.advance(3_700)
        await kit.service.tick()
        assert not len(kit.memory)

    run(case)


def test_a_start_with_a_clock_that_is_ahead_learns_what_came_last() -> None:
    async def case() -> None:
        kit = FrameKit()
        asked: list[int] = []

        async def kept_frames(since_us: int, frames_max: int) -> list[bytes]:
            asked.append(since_us)
            assert frames_max
            return []

        kit.buffer.kept_frames = kept_frames  # type: ignore[method-assign]
        kit.buffer.inner.newest_arrival_us = NOW_S * 1_000_000  # type: ignore[misc]
        kit.clock.set_wall(NOW_S * 1_000_000 + 1_000 * HOUR_US)
        await kit.service.open()
        await kit.service.tick()
        assert asked == [(NOW_S - 3_661) * 1_000_000]

    asyncio.run(case())


def test_a_secret_that_was_taken_away_signs_no_body_of_frames() -> None:
    async def case(kit: FrameKit) -> None:
        for pa in range(3):
            await kit.outcomes(pressure(pa=pa))
        assert kit.service.names.kinds
        kit.keys.secrets, kit.keys.version = (HmacSecret(bytes(32), "new"),), 2
        results = await kit.service.take_stream(pressure(pa=9), TCP)
        assert results[0].outcome == "E_MAC"

    assert len(run(case).readings()) == 3


def test_what_is_tried_again_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_GROUP_ROWS_MAX", 50)

    async def case(kit: FrameKit) -> None:
        await kit.stream(pressure(pa=1))
        await kit.stream(pressure(pa=2))
        kit.buffer.failure = lambda: DiskFullError("no space")
        kit.feed(
            FrameStream(kit.service), b"".join(pressure(pa=9 + n) for n in range(60)), Parcel()
        )
        kit.service.store.send()
        await kit.settle()
        assert not kit.service.store.cargo.size
        assert kit.service.is_full
        kit.buffer.failure = None

    assert len(run(case).readings()) == 62


def test_repeats_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_HELD_MAX", 5)

    async def case(kit: FrameKit) -> None:
        kit.buffer.gate.clear()
        waiting = [asyncio.ensure_future(kit.take(pressure())) for _ in range(6)]
        await kit.settle()
        assert kit.service.is_full
        kit.buffer.gate.set()
        results = [(await one)[0].outcome for one in waiting]
        assert results == ["stored", *["duplicate"] * 5]
        assert not kit.service.is_full

    run(case)


def test_a_fault_beside_the_way_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(kit: FrameKit) -> None:
        def broken(*_: object) -> None:
            raise ValueError("broken")

        monkeypatch.setattr(kit.quota, "learn", broken)
        assert [one.outcome for one in await kit.stream(pressure())] == ["stored"]

    assert "broken" in run(case).log.getvalue()
