"""Makes many frames at a time: templates filled by numpy, then a check value for each.

What never changes of a device's frames is written once. A made frame costs a few microseconds; most
of that is the check value.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.protocol.nanogridata.encryption import IV_BYTES, OVERHEAD_BYTES, encrypt
from ocean_core.protocol.nanogridata.frame import (
    GAS,
    HEADER_BYTES,
    PRESSURE,
    Header,
    Options,
    PayloadType,
)
from ocean_core.protocol.nanogridata.header import VERSION, check_bytes, pack_header
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.simulator.devices import BINARY_GAS, CBOR_PRESSURE, SECOND_US, Devices
from ocean_core.simulator.fleet import Columns

LAB: Final = b"SIM"
MODELS: Final = (PRESSURE, GAS)

_TIME_AT: Final = 8
_TAIL_BYTES: Final = 8
# {"ts": uint32, "value": float64}
_ENTRY: Final = np.frombuffer(b"\xa2\x62ts\x1a----\x65value\xfb--------", dtype=np.uint8)
_ENTRY_TIME: Final = slice(5, 9)
_ENTRY_VALUE: Final = slice(16, 24)

Words = npt.NDArray[np.uint8]
Finish = Callable[[list[bytes]], list[bytes]]
"""From header and payload in plain, of many frames, to whole frames."""


class FrameMaker:
    """Makes the frames of a fleet at one security level."""

    def __init__(
        self,
        devices: Devices,
        *,
        level: int,
        secrets: Mapping[int, bytes],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """``secrets`` by model; from level 1 on each model needs one."""
        self._devices = devices
        self._finish = {
            model: finisher(level, secrets.get(model, b""), random_bytes) for model in MODELS
        }
        # As they are on the wire, so that the header is right before the payload is encrypted.
        self._extra = OVERHEAD_BYTES if level >= 2 else 0
        self._level = level
        beginnings = [self._beginning(place) for place in range(len(devices.names))]
        self._beginnings = beginnings
        # Devices whose frames are equally long share a table of templates.
        self._length: npt.NDArray[np.int64] = np.array(
            [len(text) + _TAIL_BYTES for text in beginnings]
        )
        self._row = np.zeros(len(beginnings), dtype=np.int64)
        self._tables: dict[tuple[int, int], Words] = {}
        for length in np.unique(self._length).tolist():
            for model in MODELS:
                places = [
                    place for place in np.flatnonzero(self._length == length).tolist()
                    if devices.models[place] == model and devices.kinds[place] != CBOR_PRESSURE
                ]  # fmt: skip
                if not places:
                    continue
                rows = b"".join(beginnings[place] + bytes(_TAIL_BYTES) for place in places)
                table = np.frombuffer(rows, dtype=np.uint8).reshape(len(places), length)
                self._tables[length, model] = table
                self._row[places] = np.arange(len(places))

    def frames(
        self, columns: Columns, starts: npt.NDArray[np.intp], header_s: npt.NDArray[np.int64]
    ) -> list[bytes]:
        """Return a frame for each of ``starts``: the rows up to the next one.

        ``header_s`` is the header time of each frame, in seconds.
        """
        made: list[bytes] = [b""] * len(starts)
        places = columns.index[starts].astype(np.int64)
        kinds = self._devices.kinds[places]
        models = np.where(kinds == BINARY_GAS, GAS, PRESSURE)
        lengths = self._length[places]
        for (length, model), table in self._tables.items():
            which = np.flatnonzero(
                (kinds != CBOR_PRESSURE) & (models == model) & (lengths == length)
            )
            if not len(which):
                continue
            rows = table[self._row[places[which]]]
            at = starts[which]
            rows[:, _TIME_AT : _TIME_AT + 4] = _big_endian(header_s[which])
            rows[:, -8:-4] = _big_endian(columns.timestamp_us[at] // SECOND_US)
            value = columns.value[at]
            bits = value.astype(">f4").view(np.uint8).reshape(-1, 4)
            rows[:, -4:] = bits if model == GAS else _big_endian(value.astype(np.int64))
            _put(made, which, self._finish[model](_cut(rows)))
        which = np.flatnonzero(kinds == CBOR_PRESSURE)
        if len(which):
            _put(
                made,
                which,
                self._finish[PRESSURE](self._collected(columns, starts, which, header_s)),
            )
        return made

    def _beginning(self, place: int) -> bytes:
        """Return header and payload up to what changes; the header's time is not in it yet."""
        devices = self._devices
        name, kind = devices.names[place].encode(), devices.kinds[place]
        if kind == CBOR_PRESSURE:
            return b"\xa3" + b"".join(
                _cbor_text(text) for text in (b"device_id", name, b"lab_id", LAB, b"entries")
            )
        other = devices.gases[place].encode() if kind == BINARY_GAS else LAB
        payload = b"%c%b%c%b" % (len(name), name, len(other), other)
        return self._header(devices.models[place], len(payload) + _TAIL_BYTES, 0) + payload

    def _header(self, model: int, length: int, header_s: int) -> bytes:
        length += self._extra
        return pack_header(
            Header(VERSION, model, PayloadType.TELEMETRY, self._level, length, header_s, 0)
        )

    def _collected(
        self,
        columns: Columns,
        starts: npt.NDArray[np.intp],
        which: npt.NDArray[np.intp],
        header_s: npt.NDArray[np.int64],
    ) -> list[bytes]:
        """Return header and payload of frames with several readings."""
        ends = np.append(starts[1:], len(columns.index))
        made: list[bytes] = []
        first, last = int(starts[which[0]]), int(ends[which[-1]])
        entries = np.tile(_ENTRY, (last - first, 1))
        entries[:, _ENTRY_TIME] = _big_endian(columns.timestamp_us[first:last] // SECOND_US)
        entries[:, _ENTRY_VALUE] = (
            columns.value[first:last].astype(">f8").view(np.uint8).reshape(-1, 8)
        )
        for number in which.tolist():
            start, stop = int(starts[number]), int(ends[number])
            payload = b"%b%c%b" % (
                self._beginnings[columns.index[start]], 0x80 + stop - start,
                entries[start - first : stop - first].tobytes(),
            )  # fmt: skip
            made.append(self._header(PRESSURE, len(payload), int(header_s[number])) + payload)
        return made


def finisher(level: int, secret: bytes, random_bytes: Callable[[int], bytes]) -> Finish:
    """Return what encrypts (levels 2 and 3) and adds check values."""
    if level == 0:
        return lambda plain: [
            data + binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big") for data in plain
        ]
    signer = HmacSecret(secret, "simulated")
    inner, outer = signer.inner, signer.outer
    size = check_bytes(level, Options())
    encrypt_all = _encrypter(signer, random_bytes) if level >= 2 else None

    def finish(plain: list[bytes]) -> list[bytes]:
        made: list[bytes] = []
        for data in plain if encrypt_all is None else encrypt_all(plain):
            first, second = inner.copy(), outer.copy()
            first.update(data)
            second.update(first.digest())
            made.append(data + second.digest()[:size])
        return made

    return finish


def _encrypter(signer: HmacSecret, random_bytes: Callable[[int], bytes]) -> Finish:
    key = signer.encryption_key()

    def encrypt_all(plain: list[bytes]) -> list[bytes]:
        made: list[bytes] = []
        chance = random_bytes(IV_BYTES * len(plain))
        for number, data in enumerate(plain):
            header = data[:HEADER_BYTES]
            iv = chance[IV_BYTES * number : IV_BYTES * (number + 1)]
            made.append(header + encrypt(header, data[HEADER_BYTES:], key, iv))
        return made

    return encrypt_all


def _cbor_text(text: bytes) -> bytes:
    return (bytes([0x60 + len(text)]) if len(text) < 24 else bytes([0x78, len(text)])) + text


def _big_endian(numbers: npt.NDArray[np.int64]) -> Words:
    return numbers.astype(">u4").view(np.uint8).reshape(-1, 4)


def _cut(rows: Words) -> list[bytes]:
    length = rows.shape[1]
    whole = rows.tobytes()
    return [whole[at : at + length] for at in range(0, len(whole), length)]


def _put(made: list[bytes], which: npt.NDArray[np.intp], frames: Sequence[bytes]) -> None:
    for number, frame in zip(which.tolist(), frames, strict=True):
        made[number] = frame
