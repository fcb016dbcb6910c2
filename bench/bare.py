"""Baselines that listen: the least that the same stack can do. Prints its port, then serves.

``asgi``: uvicorn, uvloop and httptools with an application that reads the body and answers at once
with as many bytes as ours; nothing is parsed, nothing stored. ``litestar``: an empty Litestar app.
``records``: counts Nanogridata frames by their bytes, and answers a record for each.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import uvicorn
import uvloop

ANSWER = (
    b'{"id":1234567,"sensor_id":"sensor-001","buffered":true,'
    b'"timestamp":"2026-01-17T12:00:00.123456Z"}'
)
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
]
Message = MutableMapping[str, Any]


async def answer_at_once(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def litestar_app() -> Any:
    from litestar import Litestar, post

    @post("/api/ocean/telemetry/ingest", status_code=200)
    async def ingest(data: dict[str, Any]) -> dict[str, Any]:
        return {"id": 1234567, "sensor_id": data["sensor_id"], "buffered": True}

    return Litestar([ingest], openapi_config=None)


class Counting(asyncio.Protocol):
    """Takes the first frame's length for that of all, and answers each with a record of zeros."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.held = b""
        self.size = 0
        self.left = 0

    def data_received(self, data: bytes) -> None:
        if not self.size:
            data = self.held = self.held + data
            if len(data) < 4 + 14:
                return
            data = data[4:]
            self.size = 14 + int.from_bytes(data[6:8], "big") + (2, 16, 32, 32)[data[5]]
        count, self.left = divmod(self.left + len(data), self.size)
        if count:
            self.transport.write(bytes(12 * count))


async def count_frames(listening: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Counting, sock=listening)
    await server.serve_forever()


def main() -> None:
    app = litestar_app() if sys.argv[1] == "litestar" else answer_at_once
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    if sys.argv[1] == "records":
        uvloop.run(count_frames(listening))
        return
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
    )
    uvicorn.Server(config).run(sockets=[listening])


main()
