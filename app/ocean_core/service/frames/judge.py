"""The careful way of one frame: from proven bytes to rows for the journal, or to a refusal."""

from __future__ import annotations

from typing import NamedTuple

from ocean_core.model.access import Principal
from ocean_core.model.block import EVENT_METRIC, Events, Readings, SeriesName
from ocean_core.model.errors import ForbiddenError, OceanError
from ocean_core.pipeline.routing import route
from ocean_core.protocol.nanogridata.check import check_time
from ocean_core.protocol.nanogridata.content import open_payload
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    Content,
    FrameRefusedError,
    Header,
    Outcome,
    Proof,
)
from ocean_core.service.frames.cargo import event_of
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.terms import STORED, FrameResult
from ocean_core.service.series_quota import SeriesQuota


class Arrival(NamedTuple):
    """When frames came, by this box's clock, and whether that clock is to be believed."""

    now_us: int
    clock_trusted: bool

    @property
    def now_s(self) -> int:
        """The same in whole seconds, as the wire format counts."""
        return self.now_us // 1_000_000


class Opened(NamedTuple):
    """What a frame becomes: readings, or one event."""

    readings: Readings | None
    event: Events | None
    result: FrameResult
    new_series: list[SeriesName]
    content: Content
    lab_id: str
    units: dict[str, str]


class Judge:
    """Decides about proven frames. Holds no state of its own."""

    def __init__(self, models: Models, quota: SeriesQuota) -> None:
        self._models = models
        self._quota = quota

    def check_time(self, header: Header, arrival: Arrival) -> None:
        """Raise FrameRefusedError for a frame of another time."""
        check_time(header, self._models.options(header.model_id), arrival.now_s)

    def sensor_of(self, frame: bytes, header: Header, proof: Proof) -> str:
        """Return whose a proven frame is that is refused, empty if it does not tell."""
        try:
            content = open_payload(frame, header, proof, self._models)
            profile = self._models.profile(header.model_id)
            routed = route(header, content, profile, arrival_us=0, clock_trusted=True)
            _check_signer(header, proof, routed.sensor_id)
        except (FrameRefusedError, OceanError):
            return ""
        return routed.sensor_id

    def open(
        self,
        frame: bytes,
        header: Header,
        proof: Proof,
        arrival: Arrival,
        principal: Principal,
        given: str,
    ) -> Opened:
        """Return what a frame that is new and of the right time becomes.

        Raises FrameRefusedError for what it holds; ForbiddenError, InvalidReadingError or
        SeriesQuotaError for what it would become here.
        """
        content = open_payload(frame, header, proof, self._models)
        profile = self._models.profile(header.model_id)
        routed = route(
            header,
            content,
            profile,
            arrival_us=arrival.now_us,
            clock_trusted=arrival.clock_trusted,
            # Whoever signs with the secret of a group must not choose in whose name it speaks.
            given="" if proof.secret is not None and proof.secret.sensors else given,
        )
        sensor_id = routed.sensor_id
        _check_signer(header, proof, sensor_id)
        if principal.sensors and not principal.may_touch(sensor_id):
            raise ForbiddenError(
                f"{principal.told} is only for sensors like {principal.sensors!r}, "
                f"the frame is of {sensor_id!r}"
            )
        readings, event = routed.readings, None
        if readings is None:
            assert routed.event is not None
            event = event_of(sensor_id, routed.timestamp_us, routed.quality, routed.event)
        series = [(sensor_id, EVENT_METRIC)] if readings is None else list(readings.series)
        result = FrameResult(
            STORED,
            sensor_id=sensor_id,
            rows=1 if readings is None else len(readings),
            is_event=readings is None,
            timestamp_us=routed.timestamp_us,
            quality=routed.quality,
        )
        new_series = self._quota.check(series)
        return Opened(
            readings, event, result, new_series, content, routed.lab_id, dict(routed.units)
        )


def _check_signer(header: Header, proof: Proof, sensor_id: str) -> None:
    """Refuse a device that signs with the secret of a group it does not belong to."""
    secret = proof.secret
    if secret is None or not secret.sensors:
        return
    signer = Principal("key", sensors=secret.sensors)
    if not signer.may_touch(sensor_id):
        raise FrameRefusedError(
            Outcome.MAC,
            HEADER_BYTES + header.length,
            f"signed with the secret {secret.name}, which is for devices like "
            f"{secret.sensors!r}, not for {sensor_id!r}",
        )


def refused(error: FrameRefusedError | OceanError) -> FrameResult:
    """Return what is told of a frame that is not taken."""
    if isinstance(error, FrameRefusedError):
        return FrameResult(str(error.outcome), error.detail, error.offset)
    return FrameResult(error.code, error.detail, may_retry=error.transient)
