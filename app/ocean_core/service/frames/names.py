"""Which devices' frames are plain, so that they can be read many at a time.

Learned from frames that were decoded with care and stored: their series exists, no quota concerns
it, and who signed them may speak for the device. A place is a number for one series of one device.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import SeriesName
from ocean_core.protocol.nanogridata.bulk import PREFIX_BYTES, Kind, Signed
from ocean_core.protocol.nanogridata.frame import GAS, HEADER_BYTES, PRESSURE, Header, Options
from ocean_core.protocol.nanogridata.secret import HmacSecret

PLACES_MAX: Final = 50_000
KINDS_MAX: Final = 4_096
_TAIL_BYTES: Final = 8
_CAPACITY_FIRST: Final = 256
_PLAIN_LEVEL_MAX: Final = 1


class Place(NamedTuple):
    """What is known of a series whose frames are plain; the range is that of good values."""

    series: SeriesName
    model_id: int
    low: float
    high: float


class PlainNames:
    """The kinds of plain frames, and the places of their series. For the event loop alone."""

    def __init__(self) -> None:
        self.kinds: dict[bytes, Kind] = {}
        self.sensors: list[str] = []
        self.series: list[SeriesName] = []
        self._names: dict[tuple[int, str], dict[bytes, int]] = {}
        self._places: dict[tuple[SeriesName, int], int] = {}
        self._models: npt.NDArray[np.uint8] = np.zeros(_CAPACITY_FIRST, dtype=np.uint8)
        self._low: npt.NDArray[np.float64] = np.zeros(_CAPACITY_FIRST)
        self._high: npt.NDArray[np.float64] = np.zeros(_CAPACITY_FIRST)

    def forget(self) -> None:
        """Forget which frames are plain: the secrets have changed. Places stay what they are."""
        self.kinds.clear()
        self._names.clear()

    def learn(self, frame: bytes, header: Header, secret: HmacSecret | None, place: Place) -> None:
        """Take frames like this one, a binary telemetry frame of level 0 or 1, for plain."""
        if len(self.series) >= PLACES_MAX or len(self.kinds) >= KINDS_MAX:
            # What is known already stays fast, all others go the careful way.
            return
        names = self._names.setdefault((header.model_id, "" if secret is None else secret.name), {})
        block = frame[HEADER_BYTES : HEADER_BYTES + header.length - _TAIL_BYTES]
        if block not in names:
            names[block] = self._place_of(place)
        prefix = frame[:PREFIX_BYTES]
        kind = self.kinds.get(prefix)
        if secret is None:
            if kind is None:
                self.kinds[prefix] = Kind(len(frame), 0, names)
            return
        signed = Signed(secret.inner, secret.outer, names)
        if kind is None:
            self.kinds[prefix] = Kind(len(frame), header.level, names, (signed,))
        elif all(one.names is not names for one in kind.signed):
            self.kinds[prefix] = kind._replace(signed=(*kind.signed, signed))

    def _place_of(self, place: Place) -> int:
        known = self._places.get((place.series, place.model_id))
        if known is not None:
            return known
        number = self._places[place.series, place.model_id] = len(self.series)
        if number >= len(self._models):
            size = 2 * number
            self._models = np.resize(self._models, size)
            self._low, self._high = np.resize(self._low, size), np.resize(self._high, size)
        self.series.append(place.series)
        self.sensors.append(place.series[0])
        self._models[number] = place.model_id
        self._low[number], self._high[number] = place.low, place.high
        return number

    def models(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the model of each place."""
        return self._models[places]

    def out_of_range(
        self, places: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """Tell which values lie outside the range of their place."""
        outside: npt.NDArray[np.bool_] = values < self._low[places]
        return outside | (values > self._high[places])


def is_plain(header: Header, options: Options, encoding: str, rows: int) -> bool:
    """Whether frames like a decoded one can be read many at a time."""
    return (
        header.payload_type == 1
        and header.model_id in {PRESSURE, GAS}
        and encoding == "binary"
        and rows == 1
        and (
            header.level == _PLAIN_LEVEL_MAX
            or (header.level == 0 and options.crc_variants[0] == "ccitt")
        )
    )
