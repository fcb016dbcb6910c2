"""The load generator: closed loop, n connections, one process.

Reads an order (JSON) from standard input, writes what it saw (JSON) to standard output. Kinds:
``single`` (one reading with the time of its sending), ``batch`` (1000 readings of 100 sensors) and
``requests`` (a given list of addresses, in turn). With ``per_second`` it keeps to that rate.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import uvloop

SERIES: Final = 100
ROWS: Final = 1000
HOST: Final = b"Host: 127.0.0.1\r\n"
JSON_TYPE: Final = b"Content-Type: application/json\r\n"
TEMPLATES: Final = 64
GRACE_S: Final = 60.0

Make = Callable[[], bytes]


def post(path: bytes, length: int) -> bytes:
    return b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n" % (path, HOST, JSON_TYPE, length)


def singles() -> Make:
    """One reading: 73 bytes of JSON, time in microseconds."""
    heads = []
    for number in range(1000):
        value = 20 + 5 * math.sin(number / 17)
        body = b'{"sensor_id":"sensor-%03d","value":%.3f,"timestamp":' % (number % SERIES, value)
        heads.append(post(b"/api/ocean/telemetry/ingest", len(body) + 17) + body)
    turn = itertools.cycle(heads)
    return lambda: next(turn) + b"%d}" % (time.time_ns() // 1000)


def batches(first_s: int, step_s: float) -> Make:
    """Batches as a gateway sends them: 10 moments of 100 sensors, time moving on.

    Values scatter around 20 with a deviation of 2; one in 500 lies far outside. They repeat after
    64 batches; only the seconds change from one batch to the next, so that making it costs little.
    """
    random = Random(7)
    spread = step_s < 1
    steps = ROWS // SERIES
    templates = []
    for _ in range(TEMPLATES):
        rows = []
        for step, number in itertools.product(range(steps), range(SERIES)):
            value = random.gauss(20, 2) + (40 if random.random() < 1 / 500 else 0)
            moment = b"@@@@@@@@@@.%06d" % round(1e6 * step * step_s)
            stamp = moment if spread else b"@@@@@@@@@%d" % step
            rows.append(
                b'{"sensor_id":"sensor-%03d","timestamp":%s,"value":%.3f}' % (number, stamp, value)
            )
        body = b"[" + b",".join(rows) + b"]"
        templates.append(post(b"/api/ocean/telemetry/batch", len(body)) + body)
    turn = itertools.cycle(templates)
    count = itertools.count()
    if spread:
        return lambda: next(turn).replace(b"@@@@@@@@@@", b"%d" % (first_s + next(count)))
    # Whole seconds: each moment of a batch has a placeholder of its own.
    return lambda: _stretched(next(turn), first_s, next(count), int(step_s), steps)


def _stretched(template: bytes, first_s: int, number: int, step_s: int, steps: int) -> bytes:
    begin = first_s + number * steps * step_s
    for step in range(steps):
        template = template.replace(b"@@@@@@@@@%d" % step, b"%d" % (begin + step * step_s))
    return template


def addresses(paths: list[str], bodies: list[str]) -> Make:
    made = []
    for path, body in itertools.zip_longest(paths, bodies, fillvalue=""):
        if body:
            made.append(post(path.encode(), len(body)) + body.encode())
        else:
            made.append(b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), HOST))
    turn = itertools.cycle(made)
    return lambda: next(turn)


class Run:
    """What all connections share."""

    def __init__(self, order: dict[str, Any], make: Make) -> None:
        self.make = make
        self.left = order["requests_max"]
        self.pace = self._paced(order["per_second"])
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
        self._sent_at = 0.0
        self._transport: Any = None
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def begin(self) -> None:
        run = self._run
        if run.pace is not None:
            wait = next(run.pace) - time.perf_counter()
            if wait > 0:
                asyncio.get_running_loop().call_later(wait, self.send)
                return
        self.send()

    def send(self) -> None:
        run = self._run
        if run.over or run.left <= 0 or self._transport.is_closing():
            self._leave()
            return
        run.left -= 1
        request = run.make()
        self._waits = True
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        split = data.find(b"\r\n\r\n")
        if split < 0:
            self._received = data
            return
        at = data.find(b"ontent-", 0, split)
        while at >= 0 and data[at + 7 : at + 14].lower() != b"length:":
            at = data.find(b"ontent-", at + 7, split)
        length = int(data[at + 14 : data.find(b"\r", at)])
        if len(data) < split + 4 + length:
            self._received = data
            return
        self._received = b""
        self._waits = False
        now = time.perf_counter()
        run = self._run
        if data[9:10] != b"2":
            run.fail(data)
        elif now >= run.counting_from and not run.over:
            run.latencies.append(now - self._sent_at)
            run.last = now
        if run.pace is None:
            self.send()
        else:
            self.begin()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._waits:
            self._run.fail(b"the connection was closed before the answer came")
            self._leave()

    def _leave(self) -> None:
        self._waits = False
        self._run.busy -= 1
        if self._run.busy == 0:
            self._run.done.set()


async def load(order: dict[str, Any], make: Make) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    run = Run(order, make)
    clients = []
    for _ in range(order["connections"]):
        _, client = await loop.create_connection(lambda: Client(run), "127.0.0.1", order["port"])
        clients.append(client)
    begun = run.counting_from = run.last = time.perf_counter() + order["warm_s"]
    run.pace = run._paced(order["per_second"])  # from now on, not from before connecting
    run.busy = len(clients)
    for client in clients:
        client.begin()
    try:
        async with asyncio.timeout(order["warm_s"] + order["seconds"]):
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
        "sent": order["requests_max"] - run.left,
        "seconds": max(ended - begun, 1e-9),
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "max_ms": 1000 * latencies[-1],
        "failed": run.failed,
        "first_failure": run.first_failure,
    }


def main() -> None:
    order = json.load(sys.stdin)
    kind = order["kind"]
    if kind == "single":
        make = singles()
    elif kind == "batch":
        first_s = order.get("first_s", int(time.time()) - 5 * 86_400)
        make = batches(first_s, order.get("step_s", 0.1))
    else:
        make = addresses(order["paths"], order.get("bodies", []))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(load(order, make)), sys.stdout)


main()
