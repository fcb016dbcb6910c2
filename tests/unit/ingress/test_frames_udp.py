"""Datagrams: one frame each, bounded, counted when they cannot be taken."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ocean_core.config.settings import NanogridataSettings
from ocean_core.ingress.frames_udp import FrameDatagrams
from ocean_core.model.errors import DiskFullError
from support.frame_kit import FrameKit, pressure

ONE, OTHER = ("127.0.0.1", 4001), ("127.0.0.1", 4002)


class Box:
    def __init__(self, **settings: Any) -> None:
        self.kit = FrameKit(settings=NanogridataSettings(**settings))
        self.datagrams = FrameDatagrams(
            self.kit.service, self.kit.settings, self.kit.clock, self.kit.metrics
        )

    async def send(self, *frames: bytes, address: tuple[str, int] = ONE) -> None:
        for frame in frames:
            self.datagrams.datagram_received(frame, address)
        await self.kit.settle()

    def count(self, outcome: str, model: str = "0x10") -> float:
        return self.kit.metrics.value("ocean_nanogridata_frames_total", "udp", model, outcome)


def run(case: Callable[[Box], Awaitable[None]], *, is_open: bool = True, **settings: Any) -> Box:
    box = Box(**settings)

    async def whole() -> None:
        if is_open:
            await box.kit.opened()
        await asyncio.wait_for(case(box), 20)

    asyncio.run(whole())
    return box


def test_known_and_unknown_devices_good_and_bad_come_out_alike() -> None:
    async def case(box: Box) -> None:
        for turn in range(3):
            await box.send(
                pressure("P-1", turn),
                pressure("P-1", turn),
                pressure("P-2", turn)[:-1] + b"\0",
                pressure("P-2", turn, level=0),
                pressure("P-3", turn) + b"x",
                b"",
                pressure("P-1", turn + 100),
            )
        assert sorted(row[0] for row in box.kit.readings()) == ["P-1"] * 6 + ["P-2"] * 3
        assert box.count("stored") == 9
        assert box.count("duplicate") == 3
        assert box.count("E_MAC") == 3
        assert box.count("E_TRAILING") == 3
        assert box.count("E_SHORT", "none") == 3

    box = run(case)
    assert len(box.kit.quarantine.frames) == 9
    assert box.kit.quarantine.frames[0].source.address == "127.0.0.1:4001"


def test_a_flood_of_one_sender_costs_the_others_nothing() -> None:
    async def case(box: Box) -> None:
        await box.send(*(pressure("P-1", n) for n in range(50)))
        await box.send(pressure("P-2"), address=OTHER)
        taken = [row[0] for row in box.kit.readings()]
        assert taken.count("P-1") < 50
        assert taken.count("P-2") == 1
        assert box.count("OC-6007", "none") == 50 - taken.count("P-1")

    box = run(case, frames_per_second_max=10)
    assert box.kit.refusals.take()[("", "refused OC-6007")] > 0


def test_what_comes_too_early_is_refused_and_counted() -> None:
    async def case(box: Box) -> None:
        await box.send(pressure())
        assert box.count("OC-3002", "none") == 1

    assert run(case, is_open=False).kit.refusals.take() == {("", "refused OC-3002"): 1}


def test_what_cannot_be_stored_now_is_stored_later() -> None:
    async def case(box: Box) -> None:
        box.kit.buffer.failure = lambda: DiskFullError("no space")
        await box.send(pressure())
        assert box.kit.readings() == []
        box.kit.buffer.failure = None
        await box.kit.service.close()
        assert len(box.kit.readings()) == 1

    run(case)
