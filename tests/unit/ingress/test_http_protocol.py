"""Connections: the idle give way, the busy stay, the slow are sent away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ocean_core.config.settings import ServerSettings
from ocean_core.obs.clock import ManualClock
from ocean_core.runtime.http_server import HttpServer, bind_socket

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Rig:
    """A server whose application answers 200 when the test lets it."""

    def __init__(self, connections_max: int) -> None:
        self.settings = ServerSettings(port=0, connections_max=connections_max, request_timeout_s=1)
        self.clock = ManualClock()
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.sock = bind_socket(self.settings)
        self.port = self.sock.getsockname()[1]
        self.server = HttpServer(self.app, self.settings, self.clock, refusal=REFUSAL)

    async def app(self, _scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await self.open_gate.wait()
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def run(connections_max: int, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def whole() -> None:
        rig = Rig(connections_max)
        await rig.server.open(rig.sock)
        async with asyncio.timeout(30):
            await scenario(rig)
            rig.open_gate.set()
            await rig.server.close()

    asyncio.run(whole())


async def ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    reader, writer = connection
    writer.write(REQUEST)
    return (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]


async def hang_up(*connections: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()


def test_silent_connections_cannot_keep_a_working_one_out() -> None:
    async def scenario(rig: Rig) -> None:
        working = await rig.connect()
        assert await ask(working) == b"200"
        silent = []
        for _ in range(6):
            rig.clock.advance(1)
            assert await ask(working) == b"200"
            silent.append(await rig.connect())
        assert await ask(working) == b"200"
        # Of the silent ones the oldest had to go.
        assert await silent[0][0].read() == b""
        await hang_up(working, *silent)

    run(3, scenario)


def test_when_all_are_busy_the_new_one_is_refused_with_a_reason() -> None:
    async def scenario(rig: Rig) -> None:
        rig.open_gate.clear()
        busy = await rig.connect()
        busy[1].write(REQUEST)
        while not rig.server.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        late = await rig.connect()
        assert await late[0].read() == REFUSAL
        rig.open_gate.set()
        assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await hang_up(busy, late)

    run(1, scenario)


def test_one_that_never_asks_is_closed_and_one_that_asks_too_slowly_gets_408() -> None:
    async def scenario(rig: Rig) -> None:
        silent, slow = await rig.connect(), await rig.connect()
        slow[1].write(REQUEST[:10])
        assert await silent[0].read() == b""
        assert (await slow[0].read()).startswith(b"HTTP/1.1 408 ")
        await hang_up(silent, slow)

    run(9, scenario)


def test_a_header_in_pieces_is_fine_if_it_comes_in_time() -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for i in range(len(REQUEST)):
            writer.write(REQUEST[i : i + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await hang_up((reader, writer))

    run(9, scenario)
