"""Makes of an order what the run consists of: sensors or devices, and what makes their messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ocean_core.obs.clock import Clock
from ocean_core.simulator.audit import Name
from ocean_core.simulator.bursts import FRAMES_MAX, Bursts
from ocean_core.simulator.device_sender import DeviceRun
from ocean_core.simulator.devices import Devices
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.fleet import Fleet
from ocean_core.simulator.frames import FrameMaker
from ocean_core.simulator.parcels import Parcel, Parcels
from ocean_core.simulator.plan import Order, Transport, sensor_names, timing_of
from ocean_core.simulator.sender import Run
from ocean_core.simulator.tally import Tally

_IN_VAIN_MAX: Final = 10_000


def prepare(
    order: Order, prefix: str, run_id: str, *, clock: Clock, random_bytes: Callable[[int], bytes]
) -> tuple[list[Name], Run | DeviceRun]:
    """Return the series of a run, and the run."""
    now_us = clock.now_us()
    timing = timing_of(order, now_us)
    sensors = sensor_names(prefix, order.sensors)
    fleet = Fleet(
        sensors, order.metrics, seed=order.seed, faults=order.faults, timing=timing, now_us=now_us
    )
    if order.frames is None:
        names = list(zip(fleet.sensor_ids, fleet.metrics, strict=True))
        parcels = Parcels(order, fleet, timing)
        return names, Run(order, timing, run_id, parcels, Tally(len(names)), Figures())
    devices = Devices(sensors, seed=order.seed, timing=timing)
    maker = FrameMaker(
        devices, level=order.frames.level, secrets=order.frames.secrets, random_bytes=random_bytes
    )
    is_http = order.frames.transport is Transport.HTTP
    frames_max = order.rows_per_request() if is_http else (order.batch or FRAMES_MAX)
    if not is_http and (timing.paced or order.frames.transport is Transport.UDP):
        frames_max = 1
    bursts = Bursts(
        order, fleet, devices, maker, timing, clock,
        connections=1 if is_http else order.connections_used, frames_max=frames_max,
    )  # fmt: skip
    names = list(zip(sensors, devices.metrics, strict=True))
    tally, figures = Tally(len(names)), Figures()
    if is_http:
        return names, Run(order, timing, run_id, FrameParcels(bursts), tally, figures)
    return names, DeviceRun(order, timing, bursts, tally, figures)


class FrameParcels:
    """Requests of several frames, for the sender over HTTP."""

    def __init__(self, bursts: Bursts) -> None:
        self._turn = self._all(bursts)

    def next(self) -> Parcel | None:
        """Return the next request; None when ``count`` readings were made."""
        return next(self._turn, None)

    def is_repeated(self, parcel: Parcel) -> bool:  # noqa: ARG002 - none is
        """Return whether its sender sends it once more after it was answered."""
        return False

    def _all(self, bursts: Bursts) -> Iterator[Parcel]:
        number = in_vain = 0
        while True:
            if bursts.next_of(0) is None:
                if bursts.is_over or in_vain > _IN_VAIN_MAX:
                    return
                in_vain += 1
                bursts.make()
                continue
            in_vain = 0
            burst = bursts.take(0)
            body = b"".join(burst.frames)
            parcel = Parcel(burst.lot, 0, burst.rows, number, body, burst.due_us)
            parcel.bounds = burst.bounds
            yield parcel
            number += 1
