"""Ten thousand malformed requests between good ones: every good one is acknowledged, stored once."""

import random
import re
import socket
import threading
from pathlib import Path

import pytest

from support.appliance import Appliance
from support.web import BATCH, INGEST, sensor_path

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("malformed"), pytest.mark.timeout(120)]

CLIENTS = 6
GOOD_EACH = 150
ANSWER = re.compile(
    rb"HTTP/1\.1 (\d{3}) .*?\r\ncontent-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL | re.IGNORECASE
)


def good(sensor: str, value: int, chance: random.Random) -> bytes:
    """One reading, in one of the forms that the server takes."""
    item = f'{{"sensor_id":"{sensor}","value":{value}}}'
    path, body, more = chance.choice(
        [(INGEST, item, ""), (INGEST, item, ""), (BATCH, f"[{item}]", ""),
         (INGEST, item, f"Idempotency-Key: {sensor}-{value}\r\n")]
    )  # fmt: skip
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def malformed(sensor: str, chance: random.Random) -> bytes:
    """Something that is no good request, whatever it looks like; nothing of it may be stored."""
    # A value that no good request has: if it were stored, the sums would tell.
    raw = bytearray(good(sensor, 10**9, chance))
    head = raw.index(b"\r\n\r\n")
    kind = chance.randrange(8)
    if kind == 0:
        return bytes(chance.randrange(256) for _ in range(chance.randint(1, 200))) + b"\r\n\r\n"
    if kind == 1:
        # A body that is no item: the value ends it too early.
        place = raw.rindex(b"1000000000")
        raw[place : place + 1] = chance.choice([b"x", b"-", b"[", b"{", b'"', b"\xff", b"N"])
    elif kind == 2:
        raw[0:4] = chance.choice([b"post", b"PO\0T", b"\xff\xff\xff\xff", b"P ST", b"GETT"])
    elif kind == 3:
        raw[head:head] = chance.choice(
            [b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked", b"\r\nX: a\nb", b"\r\n: x",
             b"\r\n folded", b"\r\nHost: evil.example", b"\r\nX\0: y", b"\r\nX : y"]
        )  # fmt: skip
    elif kind == 4:
        place = raw.index(b"Content-Length: ") + 16
        raw[place:place] = chance.choice([b"-", b"+", b"x", b"5, ", b"99999999999999999999"])
    elif kind == 5:
        raw = raw.replace(b"application/json", chance.choice([b"text/csv", b"a", b"image/png"]))
    elif kind == 6:
        raw = raw.replace(b'"value"', chance.choice([b'"vaxue"', b'"valu\\"', b'"value ']))
        raw = raw.replace(b"Content-Length: ", b"Content-Length: 0")
    else:
        # Cut off; whoever sends it leaves.
        del raw[chance.randrange(head + 4, len(raw)) :]
    return bytes(raw)


class Client:
    """Sends good and malformed requests on its own connections; notes what was acknowledged."""

    def __init__(self, port: int, number: int, rude: int) -> None:
        self.rude = rude
        self.port = port
        self.sensor = f"flood-{number}"
        self.chance = random.Random(number)
        self.acknowledged: list[int] = []
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._play()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failure = error

    def _play(self) -> None:
        rest = self.rude // CLIENTS + 1
        steady = self._connect()
        for value in range(GOOD_EACH):
            count = rest // (GOOD_EACH - value)
            rest -= count
            for _ in range(count):
                self._be_rude()
            # The steady connection also sends what can be refused without an end of it.
            if self.chance.random() < 0.3:
                steady.sendall(
                    good(self.sensor, value, self.chance).replace(b'"sensor', b'"s3nsor')
                )
                assert self._answer(steady) >= 400
            steady.sendall(good(self.sensor, value, self.chance))
            assert self._answer(steady) == 200
            self.acknowledged.append(value)
        steady.close()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _be_rude(self) -> None:
        with self._connect() as rude:
            raw = malformed(self.sensor, self.chance)
            try:
                if self.chance.random() < 0.2:
                    # In two pieces.
                    place = self.chance.randrange(1, len(raw) + 1)
                    rude.sendall(raw[:place])
                    rude.sendall(raw[place:])
                else:
                    rude.sendall(raw)
                if self.chance.random() < 0.1:
                    rude.settimeout(0.05)
                    rude.recv(65_536)
            except OSError:
                # The server has hung up, or has nothing to say.
                return

    def _answer(self, sock: socket.socket) -> int:
        received = b""
        while True:
            found = ANSWER.match(received)
            if found is not None and len(received) >= found.end() + int(found[2]):
                assert len(received) == found.end() + int(found[2]), "an answer too many"
                return int(found[1])
            data = sock.recv(65_536)
            assert data, f"no answer: {received!r}"
            received += data


@pytest.mark.parametrize(("fast_path", "rude"), [("true", 10_000), ("false", 1_000)])
def test_every_good_request_between_malformed_ones_is_stored_once(
    tmp_path: Path, fast_path: str, rude: int
) -> None:
    settings = {"OCEAN_SERVER__FAST_PATH": fast_path}
    with Appliance(tmp_path / "data", settings=settings) as box:
        box.start()
        port = int(box.url.rpartition(":")[2])
        clients = [Client(port, number, rude) for number in range(CLIENTS)]
        for client in clients:
            client.thread.start()
        for client in clients:
            client.thread.join(90)
            assert not client.thread.is_alive(), "it hangs"
            if client.failure is not None:
                raise client.failure
            assert client.acknowledged == list(range(GOOD_EACH))
        for client in clients:
            found = box.http().get(sensor_path(client.sensor, "stats"), wait="true").good()
            assert (found["count"], found["min_value"], found["max_value"]) == (
                GOOD_EACH,
                0,
                GOOD_EACH - 1,
            )
            assert found["avg_value"] * GOOD_EACH == pytest.approx(sum(range(GOOD_EACH)))
        status = box.status()
        assert status["buffer"]["head_id"] == CLIENTS * GOOD_EACH
        assert "api.internal_error" not in box.log()
        assert "Traceback" not in box.log()
        assert box.stop() == 0
