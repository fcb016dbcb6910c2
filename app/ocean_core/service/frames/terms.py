"""What transports, quarantine and the service of frames tell each other."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from ocean_core.model.access import LOCAL, Principal

STORED: Final = "stored"
DUPLICATE: Final = "duplicate"


class Source(NamedTuple):
    """Where a frame came from; ``address`` is text for people, such as ``127.0.0.1:40122``."""

    transport: Literal["tcp", "udp", "http", "json", "retry"]
    address: str = ""


class FrameResult(NamedTuple):
    """What became of one frame.

    ``outcome`` is ``stored``, ``duplicate`` (of a stored frame: as good as stored), an error of the
    wire format such as ``E_MAC``, or the code of an error of ours such as ``OC-3001``. The first
    two are durable. ``may_retry``: the same frame may be taken later. For stored frames the ids are
    dense from ``first_id`` on: ``rows`` readings, or one event if ``is_event``; a duplicate has no
    ids. ``offset`` is the byte of the frame at which a check failed, None if none did.
    """

    outcome: str
    detail: str = ""
    offset: int | None = None
    may_retry: bool = False
    sensor_id: str = ""
    first_id: int = 0
    rows: int = 0
    is_event: bool = False
    timestamp_us: int = 0
    quality: int = 0

    @property
    def is_good(self) -> bool:
        """Whether what the frame says is durable."""
        return self.outcome in {STORED, DUPLICATE}


class RefusedFrame(NamedTuple):
    """A frame on its way into quarantine.

    ``is_early``: it was refused for its time while this box's own clock was not trusted, so it is
    to be tried again once the clock is right. ``steady_s`` is ``clock.since_boot()`` at arrival.
    ``given`` is the sensor that somebody named beside the frame, for frames that name none.
    ``sender`` is who sent it: tried again, it counts for the same account.
    """

    frame: bytes
    source: Source
    arrival_us: int
    steady_s: float
    outcome: str
    detail: str = ""
    offset: int | None = None
    model_id: int | None = None
    sensor_id: str = ""
    is_early: bool = False
    given: str = ""
    sender: Principal = LOCAL


class QuarantineSink(Protocol):
    """Takes refused frames. Called from the event loop."""

    def keep(self, frame: RefusedFrame) -> None:
        """Take a frame; returns at once, never raises. What finds no room is counted."""
        ...

    async def settle(self) -> None:
        """Return once all that was taken before is durable, or known not to become so."""
        ...


class FrameTaker(Protocol):
    """Takes whole frames; the service of frames is one."""

    def take(
        self,
        frames: Sequence[bytes],
        source: Source,
        principal: Principal = LOCAL,
        *,
        given: str = "",
        arrival_us: int | None = None,
        marker: str = "",
    ) -> Awaitable[list[FrameResult]]:
        """Check each frame by itself (single mode), store the good ones, tell of each in order.

        What is refused goes into quarantine, unless ``source`` says that it comes from there; all
        of it is settled when this returns. ``arrival_us``: when the frames came, if not now: their
        time is judged as of then. ``marker``, for one frame alone: an Idempotency-Key of the scope
        ``quarantine``, kept in the transaction that stores the frame; a frame that was stored under
        it before is a duplicate, whatever its checks would say now. Raises nothing for a frame; OceanError only for what concerns the
        whole (the principal may not ingest).
        """
        ...

    def take_stream(
        self, body: bytes, source: Source, principal: Principal = LOCAL
    ) -> Awaitable[list[FrameResult]]:
        """The same for frames back to back; bytes between them become a refused result each run."""
        ...
