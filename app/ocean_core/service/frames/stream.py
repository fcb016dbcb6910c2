"""Frames out of a stream of bytes (section 9): plain runs the short way, all else with care."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ocean_core.protocol.nanogridata.bulk import Kind, Run, read_run
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    MAGIC,
    FrameRefusedError,
)
from ocean_core.protocol.nanogridata.header import frame_bytes, read_header
from ocean_core.protocol.nanogridata.stream import Proven, Skipped, StreamReader, Suspect
from ocean_core.service.frames.delivery import Delivery

if TYPE_CHECKING:
    from ocean_core.service.frames.intake import FrameService

RUN_FRAMES_MAX: Final = 8_192
CAREFUL_FRAMES_MAX: Final = 64
"""How many frames are judged one by one at a time: some milliseconds of work."""

_STEP_BYTES: Final = 128
_NOTHING: Final[dict[bytes, Kind]] = {}


class FrameStream:
    """One sender's bytes in order.

    ``has_more`` tells that looking at the rest was put off, so that others get their turn: feed
    nothing to go on.
    """

    def __init__(self, service: FrameService) -> None:
        self._service = service
        self._reader = StreamReader(service.parts.models, service.parts.keys)
        self._tail = b""
        self._judged = 0
        self._skipped = 0
        self.has_more = False

    @property
    def garbage(self) -> int:
        """How many bytes were skipped since the last good frame."""
        return self._skipped + self._reader.skipping

    @property
    def is_hopeless(self) -> bool:
        """Whether what comes was made to cost work; nothing more is looked at."""
        return self._reader.is_hopeless

    @property
    def held(self) -> int:
        """How many bytes are here that were not looked at, or are of an unfinished frame."""
        return len(self._tail) + self._reader.pending

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left of an unfinished frame."""
        return not self.held

    @property
    def has_news(self) -> bool:
        """Whether ``end`` has something to tell: of an unfinished frame, or of skipped bytes."""
        return bool(self.held or self._reader.skipping)

    def feed(self, data: bytes, way: Delivery) -> None:
        """Take the next bytes."""
        if self._tail:
            data, self._tail = self._tail + data, b""
        # A secret that was taken away must not count for what was learned with it.
        self._service.follow_keys()
        # A sender that may not speak for all devices needs a look at each.
        quick = self._service.is_open and not way.principal.sensors
        kinds = self._service.names.kinds if quick else _NOTHING
        at, end = 0, len(data)
        self._judged, self.has_more = 0, False
        while at < end:
            if self._judged >= CAREFUL_FRAMES_MAX:
                self._tail, self.has_more = data[at:], True
                return
            if not self._reader.pending:
                run = read_run(data, at, kinds, RUN_FRAMES_MAX)
                if run.starts:
                    self._take_run(run, way)
                    at = run.stop
                    continue
                if run.is_partial:
                    self._tail = data[at:]
                    return
            step = _STEP_BYTES if self._reader.pending else self._step(data, at)
            self._carefully(data[at : at + step], way)
            at += step

    def _take_run(self, run: Run, way: Delivery) -> None:
        if self._reader.skipping:
            # The bytes before belong to no frame: that is known only now.
            self._note(self._reader.end(), way)
        way.cargo.add_run(run, way)
        self._skipped = 0

    def end(self, way: Delivery) -> None:
        """Take what is left as all there will be, after the end or a long silence."""
        while self.has_more:
            self.feed(b"", way)
        tail, self._tail = self._tail, b""
        self._carefully(tail, way)
        self._note(self._reader.end(), way)

    def _step(self, data: bytes, at: int) -> int:
        """Return how many bytes to look at with care: one frame, or up to where one may begin."""
        models = self._service.parts.models
        try:
            if len(data) - at < HEADER_BYTES and data.startswith(MAGIC[: len(data) - at], at):
                return len(data) - at
            header = read_header(data, models, at)
            return frame_bytes(header, models.options(header.model_id))
        except FrameRefusedError:
            following = data.find(MAGIC, at + 1)
            return (len(data) if following < 0 else following) - at

    def _carefully(self, data: bytes, way: Delivery) -> None:
        if data:
            self._note(self._reader.feed(data), way)

    def _note(self, found: list[Proven | Suspect | Skipped], way: Delivery) -> None:
        service = self._service
        self._judged += len(found)
        for one in found:
            if isinstance(one, Proven):
                self._skipped = 0
                service.take_proven(one.frame, one.header, one.proof, way)
            elif isinstance(one, Suspect):
                header = read_header(one.frame, service.parts.models)
                service.refuse(one.frame, header, one.error, way)
            else:
                self._skipped += one.count
                service.skipped(one.count, one.first_error, way)
