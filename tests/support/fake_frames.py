"""A FrameTaker that judges frames by one byte, and remembers what it was asked."""

from collections.abc import Sequence

from ocean_core.model.access import LOCAL, Principal
from ocean_core.service.frames.terms import DUPLICATE, STORED, FrameResult, Source

BEGIN = b"\xc1\x53\x01"
TIME_S = 1_768_649_992


def frame(name: str, what: str = "good") -> bytes:
    """Return what begins like a frame: ``name`` sets it apart, ``what`` says what becomes of it."""
    payload = f"{what}:{name}".encode()
    head = BEGIN + b"\x10\x01\x00" + len(payload).to_bytes(2) + TIME_S.to_bytes(4) + b"\0\0"
    return head + payload + b"\x12\x34"


class FakeTaker:
    """Takes frames of ``frame``; anything else is E_MAGIC."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.asked: list[tuple[list[bytes], Source, Principal, str]] = []
        self.is_busy = False

    async def take(
        self,
        frames: Sequence[bytes],
        source: Source,
        principal: Principal = LOCAL,
        *,
        given: str = "",
        arrival_us: int | None = None,
        marker: str = "",
    ) -> list[FrameResult]:
        assert arrival_us is None
        assert not marker
        self.asked.append((list(frames), source, principal, given))
        return [self._one(one, given) for one in frames]

    async def take_stream(
        self, body: bytes, source: Source, principal: Principal = LOCAL
    ) -> list[FrameResult]:
        self.asked.append(([body], source, principal, ""))
        garbage, *rest = body.split(BEGIN)
        found = [self._one(garbage, "")] if garbage else []
        return found + [self._one(BEGIN + part, "") for part in rest]

    def _one(self, one: bytes, given: str) -> FrameResult:
        if not one.startswith(BEGIN):
            return FrameResult("E_MAGIC", "no frame begins like this", 0)
        what, _, name = one[14:-2].decode().partition(":")
        if one in self.stored:
            return FrameResult(DUPLICATE, sensor_id=name)
        if what == "busy" and self.is_busy:
            return FrameResult("OC-3001", "too much is waiting", may_retry=True)
        if what == "mac":
            return FrameResult("E_MAC", "the check value is 1234, not 5678", 30)
        if what == "early":
            return FrameResult("E_FUTURE", "too early", 8, may_retry=True)
        if what == "foreign":
            return FrameResult("OC-6006", "the key is not for this sensor")
        self.stored.append(one)
        event = what == "event"
        return FrameResult(
            STORED, sensor_id=given if event else name, first_id=1000 + len(self.stored),
            rows=2 if what == "two" else 1, is_event=event,
            timestamp_us=TIME_S * 1_000_000, quality=1 if what == "odd" else 0,
        )  # fmt: skip
