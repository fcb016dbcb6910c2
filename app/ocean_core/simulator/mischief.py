"""What goes wrong with a device's connection: how a burst is written instead of as it should be.

cut     the connection ends in the middle of a frame
noise   bytes that belong to no frame between two frames
torn    half of a frame, then the whole frame
slow    in small pieces, with pauses
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from ocean_core.protocol.nanogridata.frame import HEADER_BYTES
from ocean_core.simulator.plan import Faults

NOISE_BYTES_MAX: Final = 40
PIECES: Final = 6
GARBAGE_MAX: Final = 8
"""How often in a run bytes are sent that the box refuses, and keeps: cut, noise and torn together."""
# The byte that frames begin with: noise that has none of it makes no bytes wait behind it.
_BEGIN: Final = 0xC1
_LENGTH: Final = slice(6, 8)


@dataclass(frozen=True, slots=True)
class Odds:
    """How many bursts in a thousand are written so, and how many are sent once more later."""

    cut: int
    noise: int
    torn: int
    slow: int
    repeated: int


ODDS: Final = {
    Faults.NONE: Odds(0, 0, 0, 0, 0),
    Faults.FEW: Odds(cut=1, noise=3, torn=2, slow=2, repeated=10),
    Faults.MANY: Odds(cut=20, noise=30, torn=30, slow=20, repeated=100),
}


@dataclass(frozen=True, slots=True)
class Writing:
    """Pieces to be written one after the other with pauses; ``cuts``: then the connection ends."""

    pieces: tuple[bytes, ...]
    cuts: bool = False


class Mischief:
    """Decides how bursts are written."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._odds = ODDS[faults]
        self._random = random
        self._garbage_left = GARBAGE_MAX

    def is_repeated(self) -> bool:
        """Whether a frame of a burst is sent once more after it was acknowledged."""
        return self._falls(self._odds.repeated)

    def writing(self, frames: Sequence[bytes]) -> Writing:
        """Return how frames are written."""
        odds, random = self._odds, self._random
        if self._falls_to_garbage(odds.cut):
            chosen = random.randrange(len(frames))
            frame = frames[chosen]
            part = frame[: random.randrange(1, len(frame))]
            return Writing((b"".join(frames[:chosen]) + part,), cuts=True)
        if self._falls_to_garbage(odds.noise):
            noise = random.randbytes(random.randrange(1, NOISE_BYTES_MAX))
            return Writing((self._between(frames, noise.replace(bytes([_BEGIN]), b"\0")),))
        if self._falls_to_garbage(odds.torn):
            return Writing((self._torn(frames[0]) + b"".join(frames),))
        whole = b"".join(frames)
        if self._falls(odds.slow):
            size = len(whole) // PIECES + 1
            return Writing(tuple(whole[at : at + size] for at in range(0, len(whole), size)))
        return Writing((whole,))

    def _torn(self, frame: bytes) -> bytes:
        """Return the begin of a frame, to stand before it.

        With its whole header: as many bytes as that claims follow, so nothing is waited for. Without
        any of the check value, and not so that by accident the answer to it looks like one to the
        frame.
        """
        check_at = HEADER_BYTES + int.from_bytes(frame[_LENGTH])
        part = frame[: self._random.randrange(HEADER_BYTES, check_at + 1)]
        check = slice(check_at, check_at + 2)
        return part if (part + frame)[check] != frame[check] else b""

    def _between(self, frames: Sequence[bytes], noise: bytes) -> bytes:
        at = self._random.randrange(len(frames))
        return b"".join(frames[:at]) + noise + b"".join(frames[at:])

    def _falls_to_garbage(self, odds: int) -> bool:
        falls = self._garbage_left > 0 and self._falls(odds)
        self._garbage_left -= falls
        return falls

    def _falls(self, odds: int) -> bool:
        return odds > 0 and self._random.randrange(1000) < odds
