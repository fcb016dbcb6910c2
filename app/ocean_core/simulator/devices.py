"""Devices that speak Nanogridata: which kind each is, and what of a reading a frame can carry. Pure.

Seven in ten measure pressure, two gas, one collects pressure and sends several readings at a time as
CBOR. A frame carries whole seconds, pressure in whole Pa and gas in single precision; so readings
are made to fit first, and what is stored is exactly what was made.

Two equal frames are a replay. The time inside the payload grows with every reading of a device; where
a device makes several readings in a second, the lowest digits of their values tell them apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column
from ocean_core.model.digest import mixed
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE
from ocean_core.simulator.fleet import Columns
from ocean_core.simulator.plan import Timing

SECOND_US: Final = 1_000_000
ENTRIES_MAX: Final = 4
GASES: Final = ("CO2", "CH4", "CO", "NO2")

# Kinds, by how many in ten.
BINARY_PRESSURE, BINARY_GAS, CBOR_PRESSURE = 0, 1, 2
_KIND_OF: Final = np.array(
    [BINARY_PRESSURE] * 7 + [BINARY_GAS] * 2 + [CBOR_PRESSURE], dtype=np.int8
)
# Steps of values, as parts of one: each is exact in what carries it.
_STEPS: Final = np.array([1, 64, 8], dtype=np.int64)
_NORMAL_PA: Final = 100_000
_PA_PER_UNIT: Final = 100
_PPM_PER_UNIT: Final = 10

Flags = npt.NDArray[np.bool_]


class Devices:
    """What is fixed of each device, by its place in the fleet."""

    def __init__(self, names: list[str], *, seed: int, timing: Timing) -> None:
        chance = mixed(
            mixed(np.arange(len(names), dtype=np.uint64)) ^ np.uint64((seed ^ 0x4E47) & (2**63 - 1))
        )
        self.names = names
        self.kinds: npt.NDArray[np.int8] = _KIND_OF[chance % np.uint64(10)]
        gases = ((chance >> np.uint64(8)) % np.uint64(len(GASES))).tolist()
        self.gases = [GASES[gas] for gas in gases]
        self.metrics = [
            f"gas:{gas}" if kind == BINARY_GAS else "pressure"
            for kind, gas in zip(self.kinds.tolist(), self.gases, strict=True)
        ]
        self.models = [GAS if kind == BINARY_GAS else PRESSURE for kind in self.kinds.tolist()]
        # So many readings of a device may fall into one second.
        self._in_a_second = -(-SECOND_US // timing.interval_us)

    def fitted(self, columns: Columns) -> Columns:
        """Return readings as their frames can carry them; times in whole seconds."""
        kinds = self.kinds[columns.index]
        level = np.where(
            kinds == BINARY_GAS,
            np.abs(columns.value) * _PPM_PER_UNIT,
            _NORMAL_PA + columns.value * _PA_PER_UNIT,
        )
        steps = _STEPS[kinds]
        whole: Int64Column = np.maximum(0, np.rint(level * steps)).astype(np.int64)
        second, rest_us = np.divmod(columns.timestamp_us, SECOND_US)
        many = self._in_a_second
        whole += rest_us * many // SECOND_US - whole % many
        value: Float64Column = whole / steps
        return Columns(columns.index, second * SECOND_US, value)

    def begins_frame(self, columns: Columns) -> Flags:
        """Return which readings begin a frame; the columns are ordered by device."""
        index = columns.index
        rows = np.arange(len(index))
        is_first = np.ones(len(index), dtype=np.bool_)
        is_first[1:] = index[1:] != index[:-1]
        since = rows - np.maximum.accumulate(np.where(is_first, rows, 0))
        found: Flags = (self.kinds[index] != CBOR_PRESSURE) | (since % ENTRIES_MAX == 0)
        return found
