"""Sends pressure readings to an Ocean Core box as Nanogridata frames, and loses none.

For MicroPython (ESP32 and others); runs under CPython, too. Copy it to the device and use it there:

    from nanogridata_client import Client, Device
    device = Device("press-07", "lab-1", secret)       # 32 bytes or more; None: level 0
    client = Client("192.168.1.20", 5678)
    while True:
        client.put(device.pressure_frame(read_sensor_in_pascal()))
        time.sleep(1)

`put` keeps a frame until the box has acknowledged it. After a lost connection the same bytes are sent
again: the box knows frames that it has, and answers "duplicate", which is as good as "stored".

The device needs the right time before the first frame, for example from `ntptime.settime()`: a box
refuses frames that are more than an hour old, or more than a minute ahead.

From a command line: nanogridata_client.py HOST PORT DEVICE-ID SECRET-FILE|- READINGS
"""

import binascii
import hashlib
import socket
import struct
import sys
import time

MODEL_PRESSURE = 0x10
MODEL_GAS = 0x20
TELEMETRY = 1

ASK = b"\xc1ACK"
USAGE = "usage: nanogridata_client.py HOST PORT DEVICE-ID SECRET-FILE|- READINGS"

RECORD_BYTES = 12
STORED, DUPLICATE, REFUSED, LATER = 0, 1, 2, 3

WINDOW = 32  # frames under way; each takes about 80 bytes of memory
ANSWER_WITHIN_S = 15
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 2.0

# MicroPython counts seconds from 2000 on some boards, everybody else from 1970.
EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0


def now_s() -> int:
    """Seconds since 1970 UTC."""
    return int(time.time()) + EPOCH_S


class Device:
    """Makes the frames of one device."""

    def __init__(self, device_id: str, lab_id: str = "", secret: bytes | None = None) -> None:
        """Without a secret frames go at level 0: a checksum, no protection against forgery."""
        if not 1 <= len(device_id.encode()) <= 64 or len(lab_id.encode()) > 64:
            raise ValueError("a device id has 1 to 64 bytes, a lab id 0 to 64")
        if secret is not None and len(secret) < 32:
            raise ValueError("a secret has 32 bytes or more")
        self.device_id = device_id
        self.lab_id = lab_id
        self.secret = secret

    def pressure_frame(self, pascal: int, measured_s: int | None = None) -> bytes:
        """Return the frame of one reading, measured now unless told.

        Two frames that are equal in every byte count as one, sent twice. So a device that measures
        more than once a second must make them differ, for example by sending CBOR with several
        entries.
        """
        measured = now_s() if measured_s is None else measured_s
        payload = _text(self.device_id) + _text(self.lab_id) + struct.pack(">II", measured, pascal)
        return self.frame(MODEL_PRESSURE, payload)

    def gas_frame(self, gas: str, ppm: float, measured_s: int | None = None) -> bytes:
        """Return the frame of one reading of a gas, such as CO2."""
        measured = now_s() if measured_s is None else measured_s
        payload = _text(self.device_id) + _text(gas) + struct.pack(">If", measured, ppm)
        return self.frame(MODEL_GAS, payload)

    def frame(self, model: int, payload: bytes) -> bytes:
        """Return header, payload and check value."""
        level = 0 if self.secret is None else 1
        head = struct.pack(
            ">HBBBBHIH", 0xC153, 1, model, TELEMETRY, level, len(payload), now_s(), 0
        )
        data = head + payload
        if self.secret is None:
            # CRC-16/IBM-3740; under CPython binascii.crc_hqx(data, 0xFFFF) is the same.
            return data + struct.pack(">H", crc16(data))
        return data + hmac_sha256(self.secret, data)[:16]


class Client:
    """Keeps frames until the box has acknowledged them."""

    def __init__(self, host: str, port: int = 5678) -> None:
        self.host = host
        self.port = port
        self.waiting = []  # frames under way, the oldest first
        self.stored = self.duplicates = self.refused = self.connections = 0
        self.last_error = 0  # number of the error, see section 7 of nanogridata.md
        self._socket = None
        self._received = b""
        self._pause_s = PAUSE_FIRST_S
        self._told = False

    def put(self, frame: bytes) -> None:
        """Send a frame. Waits only if too many are not acknowledged yet."""
        self.waiting.append(frame)
        if self._socket is not None:
            try:
                self._socket.sendall(frame)
            except OSError:
                self._lose()
        while len(self.waiting) >= WINDOW:
            self._exchange()

    def flush(self) -> None:
        """Wait until everything is answered."""
        while self.waiting:
            self._exchange()

    def close(self) -> None:
        """Close the connection; what is not acknowledged stays in `waiting`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self) -> None:
        """Connect if need be, and take the answers that come next."""
        try:
            if self._socket is None:
                self._connect_or_tell()
            data = self._socket.recv(WINDOW * RECORD_BYTES)
        except OSError:  # lost, or no answer in time
            data = b""
        if not data:
            self._lose()
            return
        self._pause_s = PAUSE_FIRST_S
        self._received += data
        while len(self._received) >= RECORD_BYTES:
            record = self._received[:RECORD_BYTES]
            self._received = self._received[RECORD_BYTES:]
            if not self._take(record):
                return

    def _connect_or_tell(self) -> None:
        """Connect; tell once, for whoever looks, that nobody listens."""
        try:
            self._connect()
        except OSError:
            if not self._told:
                print("waiting for %s:%d" % (self.host, self.port), file=sys.stderr)
                self._told = True
            raise
        self._told = False

    def _connect(self) -> None:
        """Connect, ask for acknowledgements, and send again what was not answered."""
        found = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM)[0]
        self._socket = socket.socket(found[0], socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_WITHIN_S)
        self._received = b""
        self._socket.connect(found[-1])
        self.connections += 1
        self._socket.sendall(ASK + b"".join(self.waiting))

    def _lose(self) -> None:
        """Close, and pause for a while that grows, so that a box that starts is not swamped."""
        self.close()
        time.sleep(self._pause_s)
        self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)

    def _take(self, record: bytes) -> bool:
        """Take one acknowledgement; return whether the connection is still good.

        C1 41, status, error, header time of the frame (4), first 2 of its check value, wait (2)
        """
        if record[:2] != b"\xc1\x41":
            self._lose()
            return False
        oldest = self.waiting[0] if self.waiting else b""
        check_at = 14 + struct.unpack(">H", oldest[6:8])[0] if oldest else 0
        if not oldest or record[4:10] != oldest[8:12] + oldest[check_at : check_at + 2]:
            return True  # about bytes in between, not about a frame
        status = record[2]
        if status == LATER:
            # All that is behind it is sent again with it, so that the order stays.
            self.close()
            time.sleep(max(1, struct.unpack(">H", record[10:])[0]))
            return False
        if status == STORED:
            self.stored += 1
        elif status == DUPLICATE:
            self.duplicates += 1
        else:
            self.refused += 1  # sent again unchanged it would be refused again
            self.last_error = record[3]
        self.waiting.pop(0)
        return True


def hmac_sha256(secret: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256, 32 bytes. MicroPython has no module for it."""
    if len(secret) > 64:
        secret = hashlib.sha256(secret).digest()
    block = secret + bytes(64 - len(secret))
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    inner.update(data)
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
    outer.update(inner.digest())
    return outer.digest()


def crc16(data: bytes) -> int:
    """Return CRC-16/IBM-3740, also called CCITT-FALSE."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def read_secret(path: str) -> bytes:
    """Return the secret in a file, hex or raw, as the C client reads it."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        # Some MicroPython ports have no words for it.
        words = getattr(error, "strerror", None) or "it cannot be read (error %s)" % error.args[0]
        raise ValueError("%s: %s" % (path, words)) from error
    digits = b"".join(data.split())
    if digits and all(byte in b"0123456789abcdefABCDEF" for byte in digits):
        if len(digits) % 2:
            raise ValueError("%s: %d hex digits, an odd number" % (path, len(digits)))
        data = binascii.unhexlify(digits)
    if len(data) < 32:
        raise ValueError("%s: no secret of 32 bytes or more, hex or raw" % path)
    return data


def main(arguments: list[str]) -> int:
    """Send so many readings, one for each of the last seconds; return the exit code."""
    if len(arguments) != 5:
        print(USAGE, file=sys.stderr)
        return 2
    host, port, device_id, secret_file, readings = arguments
    if not port.isdigit() or not readings.isdigit():
        print("PORT and READINGS are numbers;", USAGE, file=sys.stderr)
        return 2
    try:
        secret = None if secret_file == "-" else read_secret(secret_file)
        device = Device(device_id, "lab-1", secret)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    client = Client(host, int(port))
    first_s = now_s() - int(readings)
    for number in range(int(readings)):
        client.put(device.pressure_frame(101325 + number * 37 % 1000, first_s + number))
    client.flush()
    client.close()
    print(
        client.stored, "stored,", client.duplicates, "duplicates,", client.refused, "refused,",
        client.connections, "connections",
    )  # fmt: skip
    if client.refused:
        print("last error: number", client.last_error, "of the table in nanogridata.md, section 7")
    return 1 if client.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
