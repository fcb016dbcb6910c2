"""Frames out of a stream of bytes that may hold anything else (section 9).

Work and memory are bounded, whatever comes. Each place is judged once. Good headers can stand 14
bytes apart, or 7 if the first one's length and time hold the second one's beginning, which is of
level 0 then and claims 193 bytes; so garbage made for it costs at most 85 covered bytes per byte
received, for each secret or CRC form that is tried. Three of them are within
`VAIN_BYTES_PER_BYTE`; a stream that costs more than that, and `VAIN_BYTES_FREE`, is given up: it
`is_hopeless`, and what follows is skipped unseen.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ocean_core.protocol.nanogridata.check import Attempt, attempt_proof, explain
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    MAGIC,
    FrameRefusedError,
    Header,
    Keyring,
    Options,
    Outcome,
    Policy,
    Proof,
)
from ocean_core.protocol.nanogridata.header import frame_bytes, read_header

VAIN_BYTES_FREE: Final = 16 * 1024 * 1024
VAIN_BYTES_PER_BYTE: Final = 256
SUSPECT_BYTES_PER_BYTE: Final = 4
"""How often a byte is told of within suspects: more overlap than that only malice makes."""

# What can be a header, model and its limits aside: magic, version, model, type, flags, length,
# time, reserved.
_HEADER: Final = re.compile(
    rb"\xc1\x53\x01[\x00-\xff][\x01-\x05][\x00-\x03][\x00-\x04][\x00-\xff]{5}\x00\x00"
)


class Proven(NamedTuple):
    """A frame whose check value is right, whatever is wrong with its time and payload."""

    frame: bytes
    header: Header
    proof: Proof


class Suspect(NamedTuple):
    """What looked like a whole frame but failed checks 11 to 14.

    Its header was not proven, so its length is not trusted: its bytes are searched for frames, and
    those that belong to none are told as skipped as well.
    """

    frame: bytes
    error: FrameRefusedError


class Skipped(NamedTuple):
    """A run of bytes that belong to no proven frame, told once it is over.

    ``first_error`` says what was wrong with the first beginning of a frame in it, None if there is
    none.
    """

    count: int  # type: ignore[assignment]  # More telling here than the method of tuples.
    first_error: FrameRefusedError | None


Found = Proven | Suspect | Skipped


class Candidate(NamedTuple):
    """A whole frame that failed, with what `explain` needs to say why."""

    frame: bytes
    header: Header
    options: Options
    attempt: Attempt


class StreamReader:
    """Finds the frames in one connection's bytes. However they are cut, the result is the same."""

    def __init__(self, policy: Policy, keys: Keyring) -> None:
        self._policy = policy
        self._keys = keys
        self._held = bytearray()
        self._needed = 0
        # How many bytes came before those that are held.
        self._position = 0
        self._run_bytes = 0
        self._run_error: FrameRefusedError | None = None
        self._vain_bytes = 0
        self._suspect_bytes = 0
        self.is_hopeless = False

    @property
    def pending(self) -> int:
        """How many bytes are held: fewer than the largest frame has, once `feed` returned."""
        return len(self._held)

    @property
    def skipping(self) -> int:
        """How many of the last bytes belong to no frame, which nobody was told yet."""
        return self._run_bytes

    def feed(self, data: bytes) -> list[Found]:
        """Take more bytes; return what they complete, in the order of the stream."""
        if len(self._held) + len(data) < self._needed:
            self._held += data
            return []
        return self._search(bytes(self._held) + data if self._held else data, is_final=False)

    def end(self) -> list[Found]:
        """Take note that no more bytes come, or none for so long that what is held is no frame.

        Nothing is held afterwards. More may be fed: it begins anew.
        """
        found = self._search(bytes(self._held), is_final=True)
        self._end_run(found)
        return found

    def _search(self, data: bytes, *, is_final: bool) -> list[Found]:
        """Return what is found in ``data``; keep what may go on. Steps 1 to 5 of section 9."""
        found: list[Found] = []
        at = 0
        self._needed = 0
        while at < len(data) and not self.is_hopeless:
            start = find_header(data, at)
            is_header = start >= 0
            if not is_header:
                start = len(data) if is_final else _unfinished(data, at)
            self._skip(data, at, start)
            at = start
            if not is_header:
                self._needed = HEADER_BYTES if at < len(data) else 0
                break
            size = self._take(data, at, found, is_final=is_final)
            if not size:
                break
            at += size
        if self.is_hopeless:
            self._run_bytes += len(data) - at
            at = len(data)
        self._held = bytearray(data[at:])
        self._position += at
        return found

    def _take(self, data: bytes, at: int, found: list[Found], *, is_final: bool) -> int:
        """Judge what looks like a header; return how many bytes are done with, 0 to wait for more.

        A proven frame is taken whole. Otherwise one byte is skipped: a length that was not proven
        is not trusted.
        """
        try:
            header = read_header(data, self._policy, at)
        except FrameRefusedError as refusal:
            return self._skip_one(refusal)
        options = self._policy.options(header.model_id)
        size = frame_bytes(header, options)
        if at + size > len(data):
            if is_final:
                return self._skip_one(_unfinished_error(len(data) - at, size))
            self._needed = size
            return 0
        frame = data[at : at + size]
        attempt = attempt_proof(frame, header, options, self._policy, self._keys)
        if attempt.proof is None:
            # Up to here in the stream, whatever way it was cut.
            end = self._position + at + size
            error = self._suspect(Candidate(frame, header, options, attempt), end, found)
            return self._skip_one(error)
        self._end_run(found)
        found.append(Proven(frame, header, attempt.proof))
        return size

    def _suspect(
        self, candidate: Candidate, end: int, found: list[Found]
    ) -> FrameRefusedError | None:
        """Tell of what failed checks 11 to 14, count its cost; return its error if it is told."""
        size = len(candidate.frame)
        # Words cost more than the check did, and suspects memory: not all that overlap get them.
        is_told = self._suspect_bytes + size <= SUSPECT_BYTES_PER_BYTE * end
        error = None
        if is_told or self._run_error is None:
            error = explain(*candidate)
        if is_told and error is not None:
            self._suspect_bytes += size
            found.append(Suspect(candidate.frame, error))
        covered = HEADER_BYTES + candidate.header.length
        self._vain_bytes += candidate.attempt.tries * covered
        self.is_hopeless = self._vain_bytes > VAIN_BYTES_FREE + VAIN_BYTES_PER_BYTE * end
        return error

    def _skip_one(self, error: FrameRefusedError | None) -> int:
        self._run_bytes += 1
        self._run_error = self._run_error or error
        return 1

    def _skip(self, data: bytes, start: int, end: int) -> None:
        """Count bytes that are no header, and find out what is wrong with the first that tries."""
        if start == end:
            return
        self._run_bytes += end - start
        if self._run_error is None:
            at = data.find(MAGIC, start, end)
            if at >= 0:
                try:
                    read_header(data, self._policy, at)
                except FrameRefusedError as error:
                    self._run_error = error

    def _end_run(self, found: list[Found]) -> None:
        if self._run_bytes:
            found.append(Skipped(self._run_bytes, self._run_error))
        self._run_bytes = 0
        self._run_error = None


def find_header(data: bytes, at: int = 0) -> int:
    """Return where the next whole header begins that nothing speaks against but its model's limits.

    Returns -1 if there is none. Takes as good as no time for garbage, whatever it is.
    """
    match = _HEADER.search(data, at)
    return match.start() if match else -1


def _unfinished(data: bytes, at: int) -> int:
    """Return where the end of ``data`` may be the beginning of a header, else its length."""
    earliest = max(at, len(data) - HEADER_BYTES + 1)
    place = data.find(MAGIC, earliest)
    if place >= 0:
        return place
    return len(data) - 1 if data.endswith(MAGIC[:1], earliest) else len(data)


def _unfinished_error(found: int, needed: int) -> FrameRefusedError:
    return FrameRefusedError(
        Outcome.SHORT, found, f"{found} bytes found, {needed} needed when the stream ended"
    )
