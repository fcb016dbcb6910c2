"""A world for the simulator's sender in virtual time: connections, and a server a test scripts."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ocean_core.client.connection import Target
from ocean_core.obs.clock import ManualClock
from ocean_core.simulator.channel import Channel

LATENCY_S = 0.001


@dataclass
class Request:
    """What the server got."""

    at_s: float
    connection: int
    head: dict[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.head.get("idempotency-key")


@dataclass
class Reply:
    """What the script answers. ``lost``: the connection ends instead of, or ``late``, after it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"buffered":true}'
    lost: bool = False
    silent: bool = False
    raw: bytes | None = None
    pieces: int = 1

    def wire(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} X", f"content-length: {len(self.body)}"]
        lines += [f"{name}: {text}" for name, text in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


LOST = Reply(lost=True)
SILENT = Reply(silent=True)
REPEATED = Reply(body=b'{"buffered":true,"duplicate":true}')


class ScriptedServer:
    """Stores what it acknowledges, once for each key; ``decide`` may answer otherwise first."""

    def __init__(self, decide: Callable[[Request], Reply | None] = lambda _: None) -> None:
        self._decide = decide
        self.requests: list[Request] = []
        self.stored: list[bytes] = []
        self._keys: set[str] = set()

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        reply = self._decide(request)
        if reply is not None:
            return reply
        return self.store(request)

    def store(self, request: Request) -> Reply:
        if request.key is not None:
            if request.key in self._keys:
                return REPEATED
            self._keys.add(request.key)
        self.stored.append(request.body)
        return Reply()


class ScriptedRim:
    """Virtual time: what is to happen happens in the order of its time when ``run`` is called."""

    def __init__(self, server: ScriptedServer, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        self.target = Target("http://127.0.0.1:8030", "first-key")
        self.is_up: Callable[[], bool] = lambda: True
        self.connects: list[float] = []
        self.transports: list[FakeTransport] = []
        self._todo: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    @property
    def now_s(self) -> float:
        return self.clock.monotonic()

    def later(self, delay_s: float, callback: Callable[[], object]) -> object:
        assert delay_s >= 0
        heapq.heappush(self._todo, (self.now_s + delay_s, next(self._order), callback))
        return None

    def connect(self, channel: Channel) -> None:
        self.connects.append(self.now_s)

        def connected() -> None:
            if not self.is_up():
                channel.not_connected()
                return
            transport = FakeTransport(self, channel, len(self.transports))
            self.transports.append(transport)
            channel.greet(self.target)
            channel.connection_made(transport)  # type: ignore[arg-type]

        self.later(LATENCY_S, connected)

    def run(self, until: Callable[[], bool], *, within_s: float = 600.0) -> None:
        """Let time pass until the condition holds; fail if it does not in virtual time."""
        deadline = self.now_s + within_s
        while not until():
            assert self._todo, "nothing is left to happen"
            at, _, callback = heapq.heappop(self._todo)
            assert at <= deadline, "it takes too long"
            self.clock.advance(max(0.0, at - self.now_s))
            callback()

    def break_all(self) -> None:
        """End every connection."""
        for transport in self.transports:
            transport.abort()


class FakeTransport:
    """One connection to the scripted server."""

    def __init__(self, rim: ScriptedRim, channel: Channel, number: int) -> None:
        self._rim = rim
        self._channel: Any = channel
        self._number = number
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        head, _, body = data.partition(b"\r\n\r\n")
        _, *lines = head.decode("ascii").split("\r\n")
        fields = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
        assert int(fields["content-length"]) == len(body)
        fields[":request"] = head.decode("ascii").split("\r\n")[0]
        request = Request(self._rim.now_s, self._number, fields, body)
        reply = self._rim.server.answer(request)
        if reply.silent:
            return
        self._rim.later(LATENCY_S, lambda: self._answer(reply))

    def _answer(self, reply: Reply) -> None:
        if self.is_closed:
            return
        if reply.lost:
            self.abort()
            return
        wire = reply.wire()
        size = -(-len(wire) // reply.pieces)
        for start in range(0, len(wire), size):
            self._channel.data_received(wire[start : start + size])

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._rim.later(0.0, lambda: self._channel.connection_lost(None))

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed
