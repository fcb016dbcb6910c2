"""A small box for frames over TCP, with the acknowledgement protocol: for clients of it."""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from typing import Self

from ocean_core.protocol.nanogridata.check import check_time, frame_id
from ocean_core.protocol.nanogridata.content import open_payload
from ocean_core.protocol.nanogridata.decoder import FixedKeys, FixedPolicy
from ocean_core.protocol.nanogridata.frame import (
    FrameRefusedError,
    Measurement,
    Options,
    Outcome,
)
from ocean_core.protocol.nanogridata.header import check_bytes
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.protocol.nanogridata.stream import Proven, StreamReader, Suspect

ASK = b"\xc1ACK"
STORED, DUPLICATE, REFUSED, LATER = range(4)
LOSE, LOSE_AFTER = "lose", "lose after it was stored"

Decide = Callable[[int], object]
"""Gets the number of a proven frame, from 0; returns None, LATER, LOSE or LOSE_AFTER."""


def record(status: int, error: int, frame: bytes, check_at: int, wait_s: int = 0) -> bytes:
    echo = frame[8:12] + frame[check_at : check_at + 2].ljust(2, b"\0")
    return struct.pack(">2sBB6sH", b"\xc1A", status, error, echo, wait_s)


class FrameBox:
    """Stores frames once; ``decide`` may do otherwise. For one thread at a time."""

    def __init__(
        self, now_s: Callable[[], int], secret: bytes, decide: Decide = lambda _: None
    ) -> None:
        self._now_s = now_s
        self._decide = decide
        self._lock = threading.Lock()
        self.policy = FixedPolicy(Options())
        self.keys = FixedKeys({}, [HmacSecret(secret, "test")])
        self.stored: dict[bytes, list[tuple[str, Measurement]]] = {}
        self.duplicates = self.suspects = self.frames = self.connections = 0
        self.refused: list[Outcome] = []

    def connect(self) -> "Visit":
        self.connections += 1
        return Visit(self)

    def readings(self) -> list[tuple[str, str, float, float]]:
        """Return (device, metric, seconds, value) of everything stored."""
        return [
            (device, one.metric, float(one.ts), float(one.value))
            for several in self.stored.values()
            for device, one in several
        ]

    def take(self, found: Proven) -> tuple[bytes, bool]:
        """Return the record about a frame, and whether the connection ends instead of it."""
        with self._lock:
            return self._take(found)

    def _take(self, found: Proven) -> tuple[bytes, bool]:
        frame, header, proof = found
        number, self.frames = self.frames, self.frames + 1
        check_at = len(frame) - check_bytes(header.level, Options())
        what = self._decide(number)
        if what == LOSE:
            return b"", True
        if what == LATER:
            return record(LATER, 255, frame, check_at, 1), False
        identity = frame_id(frame, header)
        if identity in self.stored:
            self.duplicates += 1
            return record(DUPLICATE, 0, frame, check_at), False
        try:
            check_time(header, Options(), self._now_s())
            content = open_payload(frame, header, proof, self.policy)
        except FrameRefusedError as error:
            self.refused.append(error.outcome)
            return record(REFUSED, error.outcome.number, frame, check_at), False
        device = str(content.decoded["device_id"])
        self.stored[identity] = [(device, one) for one in content.measurements]
        return record(STORED, 0, frame, check_at), what == LOSE_AFTER


class Visit:
    """One connection to the box."""

    def __init__(self, box: FrameBox) -> None:
        self._box = box
        self._reader = StreamReader(box.policy, box.keys)
        self._begin = b""
        self._asked: bool | None = None
        self._is_over = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is answered, and whether the connection ends behind it."""
        if self._is_over:
            return b"", True
        if self._asked is None:
            self._begin += data
            if len(self._begin) < len(ASK):
                return b"", False
            data = self._begin
            self._asked = data.startswith(ASK)
        answers: list[bytes] = []
        for found in self._reader.feed(data):
            if isinstance(found, Proven):
                answer, ends = self._box.take(found)
                if ends:
                    self._is_over = True
                    return b"".join(answers), True
                answers.append(answer)
            elif isinstance(found, Suspect):
                self._box.suspects += 1
                frame = found.frame
                check_at = 14 + int.from_bytes(frame[6:8])
                answers.append(record(REFUSED, found.error.outcome.number, frame, check_at))
        return b"".join(answers) if self._asked else b"", False


class FrameServer:
    """The box on a real port."""

    def __init__(self, box: FrameBox) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                visit, connection = box.connect(), self.request
                assert isinstance(connection, socket.socket)
                connection.settimeout(60)
                with contextlib.suppress(OSError):
                    while data := connection.recv(65536):
                        answer, ends = visit.feed(data)
                        connection.sendall(answer)
                        if ends:
                            return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 1024
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
