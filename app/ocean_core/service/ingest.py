"""Takes a request body to a durable receipt: decode, check quotas, append, answer.

Every transport that carries readings ends here, so that limits, counters and answers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, NamedTuple

import numpy as np

from ocean_core.buffer.port import IngestBuffer
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.block import Quality
from ocean_core.model.errors import (
    ContentTypeError,
    InvalidReadingError,
    OceanError,
    RateLimitError,
)
from ocean_core.model.receipt import Intake, Receipt
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings import DecodeContext, rejected_items
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.frames.http_answers import (
    COUNTED_ELSEWHERE,
    answer_to_frame,
    answer_to_mixed,
    error_of,
    judged_of,
    later_error,
    repeated_results,
    with_refused,
)
from ocean_core.service.frames.over_http import FramesOverHttp
from ocean_core.service.frames.terms import FrameResult, FrameTaker
from ocean_core.service.ingest_answers import answer_to_many, answer_to_single, series_of
from ocean_core.service.ingest_body import PLAIN, Form, Opening, Sent
from ocean_core.service.ledger import RefusalBook
from ocean_core.service.pace import NO_PACE, Pace
from ocean_core.service.policy import IngestPolicy
from ocean_core.service.series_quota import SeriesQuota

__all__ = ["CLOCK_QUIET_S", "PLAIN", "IngestService", "Sent"]

CLOCK_QUIET_S: Final = 600.0
_ONE_UNKNOWN: Final[Mapping[str, int]] = {"": 1}


class _Stored(NamedTuple):
    """A request that is durable; no Intake for a repeat that would be refused now.

    ``frames`` tells what became of those that the Intake carries.
    """

    intake: Intake | None
    receipt: Receipt
    frames: list[FrameResult]


class IngestService:
    """What the ingest routes call."""

    def __init__(
        self,
        buffer: IngestBuffer,
        clock: Clock,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        quota: SeriesQuota,
        policy: IngestPolicy,
        decoders: ThreadPoolExecutor,
        *,
        body_bytes_max: int = limits.BODY_BYTES_MAX,
        refusals: RefusalBook | None = None,
        pace: Pace = NO_PACE,
        frames: FrameTaker | None = None,
    ) -> None:
        """``frames`` takes Nanogridata; without it a frame in JSON is a text like any other."""
        self._buffer = buffer
        self._clock = clock
        self._metrics = metrics
        self._alarms = alarms
        self._quota = quota
        self._policy = policy
        self._decoders = decoders
        self._body_bytes_max = body_bytes_max
        self._refusals = refusals or RefusalBook()
        self._pace = pace
        self._clock_alarm_at = float("-inf")
        self._frames: FramesOverHttp | None = None
        if frames is not None:
            self._frames = FramesOverHttp(
                frames, clock, decoders, body_bytes_max=body_bytes_max, pace=pace
            )

    async def ingest_single(
        self, body: bytes, sent: Sent = PLAIN, principal: Principal = LOCAL, address: str = ""
    ) -> bytes:
        """Store one item, or one frame, and return the answer's JSON.

        Raises the input, access, buffer and store errors of ``model.errors``; then nothing was
        stored. ``address`` is told of frames that go into quarantine.
        """
        if sent.media is Media.FRAMES:
            return await self._framed.single(body, sent, principal, address)
        opening = self._opening(Form.SINGLE, sent)
        intake, receipt, frames = await self._store(opening, body, principal, address)
        if frames:
            assert intake is not None
            carried = intake.carried[0]
            return answer_to_frame(carried.frame, carried.given, frames[0])
        return answer_to_single(receipt, intake, opening.sensor_id)

    async def ingest_batch(
        self, body: bytes, sent: Sent = PLAIN, principal: Principal = LOCAL, address: str = ""
    ) -> bytes:
        """Store a batch and return the answer's JSON: all items or nothing, but each frame alone.

        If what is no frame is refused, no frame is taken either. A frame that cannot be taken now
        refuses the batch, which can be repeated as it is.
        """
        return await self._ingest_items(Form.BATCH, body, sent, principal, address)

    async def ingest_partial(
        self, body: bytes, sent: Sent = PLAIN, principal: Principal = LOCAL, address: str = ""
    ) -> bytes:
        """Store the good items of a batch and return the answer's JSON, which has the others."""
        return await self._ingest_items(Form.PARTIAL, body, sent, principal, address)

    def count_refused(self, error: OceanError, sensors: Mapping[str, int] | None = None) -> None:
        """Count a request that was refused whole; every transport calls this, once for each.

        The ledger counts what the request held: ``sensors`` (how many readings or items of which),
        else what the error knows, else one item of a sensor that is not known.
        """
        if error.refused is COUNTED_ELSEWHERE:
            return
        self._metrics.add("ocean_telemetry_refused_total", 1, error.code)
        self._note_refused(error.code, sensors or error.refused or _ONE_UNKNOWN)

    def clear_quiet_alarms(self) -> None:
        """Clear the alarms of clocks when nothing came up again for a while."""
        if self._clock.monotonic() - self._clock_alarm_at > CLOCK_QUIET_S:
            self._alarms.clear_alarm("clock.untrusted")
            self._alarms.clear_alarm("sensor.clock")

    async def _ingest_items(
        self, form: Form, body: bytes, sent: Sent, principal: Principal, address: str
    ) -> bytes:
        if sent.media is Media.FRAMES:
            return await self._framed.batch(body, sent, principal, address)
        opening = self._opening(form, sent)
        intake, receipt, frames = await self._store(opening, body, principal, address)
        await self._pace.keep(receipt.rows + sum(result.rows for result in frames))
        if frames:
            assert intake is not None
            return answer_to_mixed(receipt, intake.carried, frames)
        return answer_to_many(receipt)

    @property
    def _framed(self) -> FramesOverHttp:
        """Raise ContentTypeError if nobody takes frames here."""
        if self._frames is None:
            raise ContentTypeError("Nanogridata frames are not taken here")
        return self._frames

    def _opening(self, form: Form, sent: Sent) -> Opening:
        now_us = self._clock.now_us()
        trusted = self._clock.synchronised() and now_us >= self._buffer.newest_arrival_us
        context = DecodeContext(
            arrival_us=now_us,
            clock_trusted=trusted,
            body_bytes_max=self._body_bytes_max,
            frames=self._frames is not None,
        )
        return Opening(form, sent, context)

    async def _store(
        self, opening: Opening, body: bytes, principal: Principal, address: str
    ) -> _Stored:
        try:
            return await self._store_or_repeat(opening, body, principal, address)
        except OceanError as error:
            if error.refused is None:
                error.refused = opening.sensors
            raise

    async def _store_or_repeat(
        self, opening: Opening, body: bytes, principal: Principal, address: str
    ) -> _Stored:
        intake: Intake | None = None
        with ExitStack() as held:
            try:
                intake = await self._open(opening, body)
                new_series = self._quota.check(series_of(intake))
                owner = None
                if intake.items:
                    owner = held.enter_context(self._policy.admit(principal, intake))
            except RateLimitError:
                raise
            except OceanError as error:
                # A repeat of a request that was stored is answered, even if it would be refused
                # now (the clock may have been set, a quota lowered, credits used up).
                idempotency = opening.idempotency(principal)
                if idempotency is None:
                    raise
                _forget_frames(error)
                intake = None
                known = await self._buffer.lookup(idempotency, opening.let_go_of_rows())
                if known is None:
                    raise
                return _Stored(None, self._counted(known), [])
            frames: list[FrameResult] = []
            if intake.carried:
                key = opening.idempotency(principal)
                if key is not None:
                    repeated = await self._buffer.lookup(key, intake.rows_by_sensor())
                    told = None
                    if repeated is not None:
                        told = repeated_results(repeated, intake.carried)
                    if repeated is not None and told is not None:
                        return _Stored(intake, self._counted(repeated), told)
                frames = await self._take_carried(intake, principal, address)
            kept = with_refused(intake, frames) if frames else intake
            if intake.items:
                receipt = await self._buffer.append(kept, opening.idempotency(principal), owner)
            else:
                receipt = Receipt(0, 0, opening.arrival_us, 0, rejects=kept.rejects)
        if receipt.duplicate:
            return _Stored(intake, self._counted(receipt), frames)
        self._quota.learn(new_series)
        self._metrics.add("ocean_telemetry_ingested_total", intake.rows)
        if intake.rejects:
            refused = rejected_items(intake.rejects)
            code = InvalidReadingError.code
            self._metrics.add("ocean_telemetry_refused_total", refused, code)
            self._note_refused(code, intake.refused or {"": refused})
        return _Stored(intake, receipt, frames)

    async def _take_carried(
        self, intake: Intake, principal: Principal, address: str
    ) -> list[FrameResult]:
        """Take the frames of a request, before its other items.

        A repeat of the request does no harm to frames, but might store the other items twice: so
        these wait until the frames are settled. Raises what refuses the request as a whole.
        """
        results = await self._framed.carried(intake.carried, principal, address)
        judged = judged_of(intake.carried, results)
        error = later_error(judged)
        if error is None and not intake.items and not any(result.is_good for result in results):
            error = error_of(judged, intake.rejects)
        if error is not None:
            if intake.items or intake.rejects:
                # The frames are counted; what came with them is not.
                error.refused = intake.rows_by_sensor() or intake.refused
            raise error
        return results

    def _note_refused(self, code: str, sensors: Mapping[str, int]) -> None:
        # By name only those that have been stored: a stranger must not fill the ledger with names.
        self._refusals.refused(code, self._quota.by_known_sensor(sensors))

    def _counted(self, receipt: Receipt) -> Receipt:
        self._metrics.add("ocean_telemetry_duplicate_total", receipt.rows)
        return receipt

    async def _open(self, opening: Opening, body: bytes) -> Intake:
        intake = opening.quickly(body)
        if intake is None:
            # From the bytes as they came: expanded, they would not be counted while they wait.
            loop = asyncio.get_running_loop()
            intake = await loop.run_in_executor(self._decoders, opening.wholly, body)
        if intake.untrusted_clock:
            self._raise_clock_alarm(intake, opening.arrival_us)
        return intake

    def _raise_clock_alarm(self, intake: Intake, arrival_us: int) -> None:
        found = _first_untrusted(intake, arrival_us)
        if found is None:
            return
        sensor_id, timestamp_us = found
        self._clock_alarm_at = self._clock.monotonic()
        detail = f"for example {iso_utc(timestamp_us)} from sensor {sensor_id!r}"
        if timestamp_us < limits.TIMESTAMP_PLAUSIBLE_US_MIN:
            self._alarms.raise_alarm("sensor.clock", detail)
        else:
            self._alarms.raise_alarm("clock.untrusted", detail)


def _forget_frames(error: OceanError) -> None:
    """Let go of the functions that failed, and so of the expanded body, before a wait."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _first_untrusted(intake: Intake, arrival_us: int) -> tuple[str, int] | None:
    """Return sensor and timestamp of the first row whose time cannot be confirmed.

    None if there is none: a sender may have said so of a time that is plausible.
    """
    for rows in (intake.readings, intake.events):
        if rows is None:
            continue
        moments = np.asarray(rows.timestamp_us, dtype=np.int64)
        doubtful = (np.asarray(rows.quality) == Quality.UNTRUSTED_CLOCK) & (
            (moments < limits.TIMESTAMP_PLAUSIBLE_US_MIN)
            | (moments > arrival_us + limits.FUTURE_TOLERANCE_US)
        )
        if doubtful.any():
            row = int(doubtful.argmax())
            return rows.series[int(rows.series_index[row])][0], int(moments[row])
    return None
