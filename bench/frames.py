"""Sends Nanogridata frames over TCP as many devices would; prints what came of it as one line of JSON.

All frames are made before the first is sent, so that little of the machine is spent on sending. Each
connection asks for acknowledgements and has at most a window of frames under way; what is measured
is the time from the first frame to the last acknowledgement.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field

from ocean_core.protocol.nanogridata.encode import encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import PRESSURE
from ocean_core.protocol.nanogridata.secret import HmacSecret

DEVICES = 500
ACK_BYTES = 12
SEND_BYTES = 65_536
TIMEOUT_S = 120.0


@dataclass
class Device:
    """One connection: what it sends, how far it is, and what it was told."""

    sock: socket.socket
    data: bytes
    size: int
    window: int
    sent: int = 0
    acknowledged: int = 0
    rest: bytes = b""
    statuses: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    @property
    def is_done(self) -> bool:
        return self.acknowledged * self.size >= len(self.data)

    @property
    def may_send(self) -> int:
        """How many bytes may go now."""
        until = min(len(self.data), (self.acknowledged + self.window) * self.size)
        return until - self.sent

    def send(self) -> None:
        try:
            self.sent += self.sock.send(
                memoryview(self.data)[self.sent : self.sent + min(self.may_send, SEND_BYTES)]
            )
        except BlockingIOError:
            return

    def receive(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        data = self.rest + data
        count = len(data) // ACK_BYTES
        self.rest = data[count * ACK_BYTES :]
        told = data[2 : count * ACK_BYTES : ACK_BYTES]
        for status in range(4):
            self.statuses[status] += told.count(status)
        self.acknowledged += count


def frames_of(connection: int, given: argparse.Namespace) -> tuple[bytes, int]:
    """Return the frames of one connection, and the length of each."""
    secret = HmacSecret(bytes.fromhex(given.secret), "bench") if given.level else None
    names = [f"bench-{n:04}" for n in range(connection, DEVICES, given.connections)]
    made: list[bytes] = []
    for number in range(given.frames):
        # Frames must differ, and lie within the hour that is accepted.
        name = names[number % len(names)] if names else f"bench-{connection:04}"
        turn = number // max(1, len(names))
        iv = struct.pack(">III", given.salt, connection, number) if given.level > 1 else None
        payload = pressure_payload(name, "LAB-1", given.now - turn % 600, given.salt + turn // 600)
        made.append(
            encode(
                PRESSURE, 1, payload, level=given.level, timestamp=given.now - number // 2_000 % 60,
                secret=secret, iv=iv,
            )
        )  # fmt: skip
    return b"".join(made), len(made[0])


def run(given: argparse.Namespace) -> dict[str, object]:
    made = [frames_of(connection, given) for connection in range(given.connections)]
    devices: list[Device] = []
    waiting = selectors.DefaultSelector()
    for data, size in made:
        sock = socket.create_connection(("127.0.0.1", given.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"\xc1ACK")
        sock.setblocking(False)
        device = Device(sock, data, size, given.window)
        devices.append(device)
        waiting.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, device)
    begun = time.perf_counter()
    left = len(devices)
    while left:
        if time.perf_counter() - begun > TIMEOUT_S:
            raise TimeoutError
        for key, events in waiting.select(1.0):
            device = key.data
            if events & selectors.EVENT_READ:
                device.receive()
            if device.may_send > 0:
                device.send()
            if device.is_done:
                waiting.unregister(device.sock)
                left -= 1
                continue
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if device.may_send > 0 else 0)
            if wanted != key.events:
                waiting.modify(device.sock, wanted, device)
    seconds = time.perf_counter() - begun
    for device in devices:
        device.sock.close()
    statuses = [sum(device.statuses[n] for device in devices) for n in range(4)]
    return {
        "frames": given.connections * given.frames,
        "seconds": seconds,
        "frame_bytes": made[0][1],
        "stored": statuses[0],
        "duplicate": statuses[1],
        "refused": statuses[2],
        "later": statuses[3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20_000, help="of each connection")
    parser.add_argument("--window", type=int, default=1_000, help="frames under way")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--secret", default="00" * 32)
    parser.add_argument("--salt", type=int, default=0, help="makes the frames of a run its own")
    parser.add_argument("--now", type=int, default=int(time.time()))
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
