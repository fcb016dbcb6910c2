"""What was acknowledged, per series: how many readings, and their digest. Bounded by the series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ocean_core.simulator.parcels import Lot

UNRESOLVED_REQUESTS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Share:
    """How many readings of one series, and their digest."""

    count: int = 0
    digest: int = 0


class Portion(Protocol):
    """What meets its fate as a whole, a request or a frame: readings ``start`` to ``stop`` of a lot."""

    @property
    def lot(self) -> Lot:
        """The readings that were made together."""
        ...

    @property
    def start(self) -> int:
        """Its first reading."""
        ...

    @property
    def stop(self) -> int:
        """The end of its readings."""
        ...

    @property
    def rows(self) -> int:
        """How many readings it has."""
        ...


class Tally:
    """Counts lots when all of their readings have met their fate, and requests nobody answered."""

    def __init__(self, series: int) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(series, dtype=np.int64)
        self.digests: npt.NDArray[np.uint64] = np.zeros(series, dtype=np.uint64)
        self._open: set[Lot] = set()
        self._unresolved: list[dict[int, Share]] = []
        self.unresolved_readings = 0

    def open(self, lot: Lot) -> None:
        """Take notice of readings that are about to be sent."""
        self._open.add(lot)

    def acknowledge(self, parcel: Portion, left_out: bytes | bytearray = b"") -> None:
        """Count a request that was answered positively, but for readings whose byte is 1."""
        lot, rows = parcel.lot, parcel.rows
        good = bytes(1 - byte for byte in left_out) if left_out else b"\1" * rows
        lot.acknowledged[parcel.start : parcel.stop] = good
        self._resolve(lot, rows)

    def drop(self, parcel: Portion) -> None:
        """Leave out a request that was refused: it is certainly not stored."""
        self._resolve(parcel.lot, parcel.rows)

    def leave_open(self, parcel: Portion) -> None:
        """Keep apart a request that was sent and never answered: nobody knows."""
        self.unresolved_readings += parcel.rows
        if len(self._unresolved) < UNRESOLVED_REQUESTS_MAX:
            self._unresolved.append(shares_of(parcel))
        self._resolve(parcel.lot, parcel.rows)

    def settle(self) -> None:
        """Count what is left, when nothing is sent any more."""
        for lot in self._open:
            self._count(lot)
        self._open.clear()

    def unresolved_of(self, place: int) -> list[Share]:
        """Return what a series has in each of the requests that were never answered."""
        return [shares[place] for shares in self._unresolved if place in shares]

    def share(self, place: int) -> Share:
        """Return what of a series was acknowledged."""
        return Share(int(self.counts[place]), int(self.digests[place]))

    def _resolve(self, lot: Lot, rows: int) -> None:
        lot.left -= rows
        if lot.left == 0:
            self._count(lot)
            self._open.discard(lot)

    def _count(self, lot: Lot) -> None:
        good = np.frombuffer(lot.acknowledged, dtype=np.bool_)
        places = lot.columns.index[good]
        # Not an array of all series: lots of frames are small and many.
        np.add.at(self.counts, places, 1)
        np.add.at(self.digests, places, lot.digests[good])


def shares_of(parcel: Portion) -> dict[int, Share]:
    """Return what each series has in a request."""
    rows = slice(parcel.start, parcel.stop)
    index, digests = parcel.lot.columns.index[rows], parcel.lot.digests[rows]
    places, inverse, counts = np.unique(index, return_inverse=True, return_counts=True)
    sums = np.zeros(len(places), dtype=np.uint64)
    np.add.at(sums, inverse, digests)
    return {
        place: Share(count, digest)
        for place, count, digest in zip(
            places.tolist(), counts.tolist(), sums.tolist(), strict=True
        )
    }
