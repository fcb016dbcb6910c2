"""Takes a request body to a durable receipt: decode, check quotas, append, answer.

Every transport that carries readings ends here, so that limits, counters and answers are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from typing import Final

import msgspec

from ocean_core.buffer.port import IngestBuffer
from ocean_core.config.settings import IngestSettings
from ocean_core.model import limits
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.block import EVENT_METRIC, Quality, SeriesName
from ocean_core.model.errors import (
    FieldProblem,
    IdempotencyKeyError,
    OceanError,
    RateLimitError,
    SeriesQuotaError,
)
from ocean_core.model.receipt import IdempotencyKey, Intake, Receipt
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_quickly,
    decode_single,
    rejected_items,
)
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.policy import IngestPolicy

CLOCK_QUIET_S: Final = 600.0


class _Form(StrEnum):
    """What a body is to hold; part of what an idempotency key stands for."""

    SINGLE = "ingest"
    BATCH = "batch"
    PARTIAL = "batch-partial"


LOCAL_SCOPE: Final = "local"
"""Whose idempotency keys those of requests without an access key are."""


class SingleAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to one item, with the original's fields."""

    id: int
    sensor_id: str
    buffered: bool
    timestamp: str
    count: int = 1
    kind: str = "reading"
    quality: int = 0
    duplicate: bool = False


class BatchAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to a batch: one id per accepted item, in order."""

    count: int
    ids: list[int]
    buffered: bool
    timestamp: str
    duplicate: bool = False
    rejected_count: int = 0
    rejected: tuple[FieldProblem, ...] = ()


class SeriesQuota:
    """Knows every series, and refuses new ones beyond the quota, naming the sensor.

    ``shown`` returns the name of today for a sensor that was renamed.
    """

    def __init__(
        self, settings: IngestSettings, shown: Callable[[str], str] = lambda sensor_id: sensor_id
    ) -> None:
        self._settings = settings
        self._shown = shown
        self._known: set[SeriesName] = set()
        self._per_sensor: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, names: Iterable[SeriesName]) -> None:
        """Take over series that are stored already; no quota applies to them."""
        for name in names:
            if name not in self._known:
                self._known.add(name)
                self._per_sensor[name[0]] = self._per_sensor.get(name[0], 0) + 1

    def check(self, names: Iterable[SeriesName]) -> list[SeriesName]:
        """Return those of ``names`` that are new, or raise SeriesQuotaError. Changes nothing."""
        known, shown = self._known, self._shown
        new = [name for name in names if name not in known]
        if not new:
            return new
        # Only here, because hardly a request gets as far.
        present = dict.fromkeys((shown(sensor_id), metric) for sensor_id, metric in new)
        new = [name for name in present if name not in known]
        settings = self._settings
        if len(self._known) + len(new) > settings.series_total_max:
            raise SeriesQuotaError(
                f"sensor {new[0][0]!r} would bring the box above "
                f"{settings.series_total_max} series (sensors times metrics)"
            )
        added: dict[str, int] = {}
        for sensor_id, _ in new:
            added[sensor_id] = added.get(sensor_id, 0) + 1
            if self._per_sensor.get(sensor_id, 0) + added[sensor_id] > (
                settings.series_per_sensor_max
            ):
                raise SeriesQuotaError(
                    f"sensor {sensor_id!r} would have more than "
                    f"{settings.series_per_sensor_max} metrics"
                )
        return new


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
    ) -> None:
        self._buffer = buffer
        self._clock = clock
        self._metrics = metrics
        self._alarms = alarms
        self._quota = quota
        self._policy = policy
        self._decoders = decoders
        self._body_bytes_max = body_bytes_max
        self._clock_alarm_at = float("-inf")

    async def ingest_single(
        self, body: bytes, idempotency_key: str | None = None, principal: Principal = LOCAL
    ) -> bytes:
        """Store one item and return the answer's JSON.

        Raises the input, access, buffer and store errors of ``model.errors``; then nothing was
        stored.
        """
        idempotency = _idempotency(_Form.SINGLE, body, idempotency_key, principal)
        intake, receipt = await self._store(_Form.SINGLE, body, idempotency, principal)
        sensor_id = _sensor_of(body) if intake is None else _series_of(intake)[0][0]
        is_event = receipt.first_reading_id == 0
        return msgspec.json.encode(
            SingleAnswer(
                id=receipt.item_ids()[0],
                sensor_id=sensor_id,
                buffered=True,
                timestamp=iso_utc(receipt.timestamp_us),
                count=1 if is_event or receipt.layout is None else receipt.layout[0],
                kind="event" if is_event else "reading",
                quality=0 if receipt.duplicate else _quality_of(intake),
                duplicate=receipt.duplicate,
            )
        )

    async def ingest_batch(
        self, body: bytes, idempotency_key: str | None = None, principal: Principal = LOCAL
    ) -> bytes:
        """Store a batch, all of it or nothing, and return the answer's JSON."""
        return await self._ingest_items(_Form.BATCH, body, idempotency_key, principal)

    async def ingest_partial(
        self, body: bytes, idempotency_key: str | None = None, principal: Principal = LOCAL
    ) -> bytes:
        """Store the good items of a batch and return the answer's JSON, which has the others."""
        return await self._ingest_items(_Form.PARTIAL, body, idempotency_key, principal)

    def count_refused(self, error: OceanError) -> None:
        """Count a request that was refused whole."""
        self._metrics.add("ocean_telemetry_refused_total", 1, error.code)

    def clear_quiet_alarms(self) -> None:
        """Clear the alarms of clocks when nothing came up again for a while."""
        if self._clock.monotonic() - self._clock_alarm_at > CLOCK_QUIET_S:
            self._alarms.clear_alarm("clock.untrusted")
            self._alarms.clear_alarm("sensor.clock")

    async def _ingest_items(
        self, form: _Form, body: bytes, idempotency_key: str | None, principal: Principal
    ) -> bytes:
        idempotency = _idempotency(form, body, idempotency_key, principal)
        _, receipt = await self._store(form, body, idempotency, principal)
        return msgspec.json.encode(
            BatchAnswer(
                count=receipt.items,
                ids=receipt.item_ids(),
                buffered=True,
                timestamp=iso_utc(receipt.arrival_us),
                duplicate=receipt.duplicate,
                rejected_count=rejected_items(receipt.rejects),
                rejected=receipt.rejects,
            )
        )

    async def _store(
        self, form: _Form, body: bytes, idempotency: IdempotencyKey | None, principal: Principal
    ) -> tuple[Intake | None, Receipt]:
        with ExitStack() as held:
            try:
                intake = await self._decode(form, body)
                new_series = self._quota.check(_series_of(intake))
                owner = held.enter_context(self._policy.admit(principal, intake))
            except RateLimitError:
                raise
            except OceanError:
                # A repeat of a request that was stored is answered, even if it would be refused
                # now (the clock may have been set, a quota lowered, credits used up).
                known = await self._buffer.lookup(idempotency) if idempotency is not None else None
                if known is None:
                    raise
                return None, self._counted(known)
            receipt = await self._buffer.append(intake, idempotency, owner)
        if receipt.duplicate:
            return intake, self._counted(receipt)
        self._quota.learn(new_series)
        self._metrics.add("ocean_telemetry_ingested_total", intake.rows)
        if intake.rejects:
            refused = rejected_items(intake.rejects)
            self._metrics.add("ocean_telemetry_refused_total", refused, "OC-2002")
        return intake, receipt

    def _counted(self, receipt: Receipt) -> Receipt:
        rows = receipt.items if receipt.layout is None else sum(n or 1 for n in receipt.layout)
        self._metrics.add("ocean_telemetry_duplicate_total", rows)
        return receipt

    async def _decode(self, form: _Form, body: bytes) -> Intake:
        now_us = self._clock.now_us()
        trusted = self._clock.synchronised() and now_us >= self._buffer.newest_arrival_us
        context = DecodeContext(
            arrival_us=now_us, clock_trusted=trusted, body_bytes_max=self._body_bytes_max
        )
        size = len(body)
        intake: Intake | None = None
        if size <= limits.DECODE_SLOWLY_INLINE_BYTES_MAX:
            intake = _decode(form, body, context)
        elif size <= limits.DECODE_INLINE_BYTES_MAX and form is not _Form.SINGLE:
            intake = decode_batch_quickly(body, context)
        if intake is None:
            loop = asyncio.get_running_loop()
            intake = await loop.run_in_executor(self._decoders, _decode, form, body, context)
        if intake.untrusted_clock:
            self._raise_clock_alarm(intake)
        return intake

    def _raise_clock_alarm(self, intake: Intake) -> None:
        sensor_id, timestamp_us = _first_untrusted(intake)
        self._clock_alarm_at = self._clock.monotonic()
        detail = f"for example {iso_utc(timestamp_us)} from sensor {sensor_id!r}"
        if timestamp_us < limits.TIMESTAMP_PLAUSIBLE_US_MIN:
            self._alarms.raise_alarm("sensor.clock", detail)
        else:
            self._alarms.raise_alarm("clock.untrusted", detail)


def _idempotency(
    form: _Form, body: bytes, key: str | None, principal: Principal
) -> IdempotencyKey | None:
    if key is None:
        return None
    if (
        not key
        or len(key) > limits.IDEMPOTENCY_KEY_BYTES_MAX
        or not all(" " <= letter <= "~" for letter in key)
    ):
        raise IdempotencyKeyError(
            "the Idempotency-Key header is empty, too long, or has other than printable ASCII",
            fields=(
                FieldProblem(
                    "Idempotency-Key",
                    ascii(key[:80]),
                    f"1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters",
                ),
            ),
        )
    digest = hashlib.sha256(form.encode() + b"\0")
    digest.update(body)
    scope = principal.actor if principal.kind == "key" else LOCAL_SCOPE
    return IdempotencyKey(scope, key, digest.digest())


def _decode(form: _Form, body: bytes, context: DecodeContext) -> Intake:
    if form is _Form.SINGLE:
        return decode_single(body, context)
    return decode_batch(body, context, partial=form is _Form.PARTIAL)


def _quality_of(intake: Intake | None) -> int:
    return Quality.UNTRUSTED_CLOCK if intake is not None and intake.untrusted_clock else 0


def _first_untrusted(intake: Intake) -> tuple[str, int]:
    """Return sensor and timestamp of the first row whose time cannot be confirmed."""
    for rows in (intake.readings, intake.events):
        if rows is not None and Quality.UNTRUSTED_CLOCK in rows.quality:
            row = list(rows.quality).index(Quality.UNTRUSTED_CLOCK)
            return rows.series[int(rows.series_index[row])][0], int(rows.timestamp_us[row])
    raise AssertionError("called only if there is one")


def _series_of(intake: Intake) -> list[SeriesName]:
    names: list[SeriesName] = []
    if intake.readings is not None:
        names.extend(intake.readings.series)
    if intake.events is not None:
        names.extend((sensor_id, EVENT_METRIC) for sensor_id, _ in intake.events.series)
    return names


def _sensor_of(body: bytes) -> str:
    """Return the sensor of a body that was stored before, though it would be refused now."""
    return str(msgspec.json.decode(body)["sensor_id"])
