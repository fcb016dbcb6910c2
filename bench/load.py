"""The load generator where there is no C compiler: closed loop, n connections, one process.

Takes the same arguments as load.c, sends the same requests and prints the same figures, but costs
several times the CPU: above some 15,000 requests a second it measures itself.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from traffic import Stamper, read

GRACE_S: Final = 60.0


@dataclass(frozen=True)
class Order:
    """What to do, in the order of the arguments."""

    port: int
    connections: int
    seconds: float
    warm_s: float
    per_second: float
    requests_max: int


class Run:
    """What all connections share."""

    def __init__(self, order: Order, make: Callable[[], bytes]) -> None:
        self.make = make
        self.left = order.requests_max
        self.pace = self._paced(order.per_second)
        self.latencies: list[float] = []
        self.failed = 0
        self.first_failure = ""
        self.counting_from = 0.0
        self.over = False
        self.last = 0.0
        self.done = asyncio.Event()
        self.busy = 0

    @staticmethod
    def _paced(per_second: float) -> Iterator[float] | None:
        return itertools.count(time.perf_counter(), 1 / per_second) if per_second else None

    def fail(self, why: bytes) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or why[:500].decode(errors="replace")


class Client(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends the next."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._received = b""
        self._due = 0.0
        self._transport: Any = None
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        run = self._run
        now = time.perf_counter()
        # A request counts from the moment it was due, whether or not it could be sent then.
        due = now if run.pace is None else next(run.pace)
        if due > now:
            asyncio.get_running_loop().call_later(due - now, self.send, due)
        else:
            self.send(due)

    def send(self, due: float) -> None:
        run = self._run
        if run.over or run.left <= 0 or self._transport.is_closing():
            self._leave()
            return
        run.left -= 1
        self._waits = True
        self._due = due
        self._transport.write(run.make())

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        split = data.find(b"\r\n\r\n")
        if split < 0 or len(data) < split + 4 + self._body_length(data, split):
            self._received = data
            return
        self._received = b""
        self._waits = False
        now = time.perf_counter()
        run = self._run
        if data[9:10] != b"2":
            run.fail(data)
        elif now >= run.counting_from and not run.over:
            run.latencies.append(now - self._due)
            run.last = now
        self.begin()

    @staticmethod
    def _body_length(data: bytes, split: int) -> int:
        if data[9:12] == b"204":
            return 0
        at = data.find(b"ontent-", 0, split)
        while at >= 0 and data[at + 7 : at + 14].lower() != b"length:":
            at = data.find(b"ontent-", at + 7, split)
        return int(data[at + 14 : data.find(b"\r", at)])

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._waits:
            self._run.fail(b"the connection was closed before the answer came")
            self._leave()

    def _leave(self) -> None:
        self._waits = False
        self._run.busy -= 1
        if self._run.busy == 0:
            self._run.done.set()


async def load(order: Order, make: Callable[[], bytes]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    run = Run(order, make)
    clients = []
    for _ in range(order.connections):
        _, client = await loop.create_connection(lambda: Client(run), "127.0.0.1", order.port)
        clients.append(client)
    begun = run.counting_from = run.last = time.perf_counter() + order.warm_s
    run.pace = run._paced(order.per_second)  # from now on, not from before connecting
    run.busy = len(clients)
    for client in clients:
        client.begin()
    try:
        async with asyncio.timeout(order.warm_s + order.seconds):
            await run.done.wait()
        ended = run.last
    except TimeoutError:
        ended = time.perf_counter()
        run.over = True
        async with asyncio.timeout(GRACE_S):
            await run.done.wait()
    latencies = sorted(run.latencies) or [0.0]
    return {
        "requests": len(run.latencies),
        "sent": order.requests_max - run.left,
        "seconds": max(ended - begun, 1e-9),
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "max_ms": 1000 * latencies[-1],
        "failed": run.failed,
        "first_failure": run.first_failure,
    }


def main() -> None:
    file, port, connections, seconds, warm_s, per_second, requests_max, first_s = sys.argv[1:]
    order = Order(
        int(port), int(connections), float(seconds), float(warm_s), float(per_second),
        int(requests_max),
    )  # fmt: skip
    make = Stamper(read(Path(file)), int(first_s), lambda: time.time_ns() // 1000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(load(order, make)), sys.stdout)


main()
