"""Digests of readings that do not depend on their order.

Whoever sent readings and whoever stored them compute the same number, each from its own columns,
and compare. A reading's digest mixes its timestamp with the bits of its value; that of many is the
sum modulo 2^64, so that parts can be added up and a reading stored twice shows as well as one that
is missing or changed. This finds accidents; it is no defence against whoever wants to deceive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ocean_core.model.block import Float64Column, Int64Column

DIGEST_MODULUS: Final = 1 << 64

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def reading_digests(
    timestamp_us: Int64Column | Sequence[int], value: Float64Column | Sequence[float]
) -> npt.NDArray[np.uint64]:
    """Return the digest of each reading.

    The mixing function is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    moments = np.ascontiguousarray(timestamp_us, dtype=np.int64).view(np.uint64)
    bits = np.ascontiguousarray(value, dtype=np.float64).view(np.uint64)
    return mixed(mixed(moments) ^ bits)


def digest_of(
    timestamp_us: Int64Column | Sequence[int], value: Float64Column | Sequence[float]
) -> int:
    """Return the digest of all these readings together, 0 to 2^64 - 1."""
    return int(reading_digests(timestamp_us, value).sum(dtype=np.uint64))


def add_digests(first: int, second: int) -> int:
    """Return the digest of two sets of readings together."""
    return (first + second) % DIGEST_MODULUS


def digest_text(digest: int) -> str:
    """Return a digest as it is shown: 16 hexadecimal digits."""
    return f"{digest:016x}"


def mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return numbers that look random, the same for the same ones."""
    found = numbers + _GOLDEN
    found = (found ^ (found >> np.uint64(30))) * _FIRST
    found = (found ^ (found >> np.uint64(27))) * _SECOND
    return found ^ (found >> np.uint64(31))
