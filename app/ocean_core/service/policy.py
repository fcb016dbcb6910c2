"""What a sender of readings may do: which sensors, how fast, on whose account, how much at once.

Every transport that brings readings in asks here, after decoding and before anything is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.errors import BufferFullError, FieldProblem, ForbiddenError, RateLimitError
from ocean_core.model.receipt import Intake, Owner
from ocean_core.obs.clock import Clock
from ocean_core.service.rates import FairShare, RateBook

_ROW_BYTES: Final = 32


class Credits(Protocol):
    """Knows what is left on users' accounts."""

    @property
    def enforced(self) -> bool:
        """Whether readings cost credits."""
        ...

    def reserve(self, user_id: str, readings: int) -> None:
        """Set credits aside. Raises CreditsError if there are not enough."""
        ...

    def release(self, user_id: str, readings: int) -> None:
        """End a reservation: what was stored is charged by now."""
        ...


class IngestPolicy:
    """Lets the rows of a request in, or says why not."""

    def __init__(
        self,
        clock: Clock,
        credit: Credits,
        *,
        waiting_bytes_max: int = limits.JOURNAL_QUEUE_BYTES_MAX,
    ) -> None:
        self._rates = RateBook(clock, limits.KEYS_MAX * 2)
        self._credit = credit
        self._waiting = FairShare(waiting_bytes_max)

    @contextmanager
    def admit(self, principal: Principal, intake: Intake) -> Iterator[Owner | None]:
        """Hold what a request takes while it is stored; gives the account it counts for.

        Raises ForbiddenError (a sensor the key is not for), CreditsError, RateLimitError, or
        BufferFullError (others are waiting too).
        """
        _check_sensors(principal, intake)
        # One sensor's flood must not fill the queue for the others; all programs on this machine
        # have one address, so there the sensor is what tells them apart.
        source = principal.actor if principal.kind == "key" else _first_sensor(intake)
        size = _ROW_BYTES * intake.rows
        if not self._waiting.reserve(source, size):
            raise BufferFullError(
                f"{source} has as much waiting for the disk as it may while others wait too",
                retry_after_s=1,
            )
        try:
            with self._charged(principal, intake.rows) as owner:
                # Last, because what was refused for another reason should not count.
                self._check_rate(principal, intake.rows)
                yield owner
        finally:
            self._waiting.release(source, size)

    @contextmanager
    def _charged(self, principal: Principal, rows: int) -> Iterator[Owner | None]:
        user_id = principal.user_id
        if user_id is None:
            yield None
            return
        self._credit.reserve(user_id, rows)
        try:
            yield Owner(user_id, charged=self._credit.enforced)
        finally:
            self._credit.release(user_id, rows)

    def _check_rate(self, principal: Principal, rows: int) -> None:
        if principal.rate is None:
            return
        wait_s = self._rates.take(principal.id, principal.rate, rows)
        if wait_s:
            raise RateLimitError(
                f"{principal.told} may store {principal.rate} readings per second",
                retry_after_s=wait_s,
            )


def _check_sensors(principal: Principal, intake: Intake) -> None:
    if not principal.sensors:
        return
    for rows in (intake.readings, intake.events):
        for sensor_id, _ in rows.series if rows is not None else ():
            if not principal.may_touch(sensor_id):
                raise ForbiddenError(
                    f"{principal.told} is only for sensors like {principal.sensors!r}",
                    fields=(FieldProblem("sensor_id", sensor_id, f"like {principal.sensors}"),),
                )


def _first_sensor(intake: Intake) -> str:
    for rows in (intake.readings, intake.events):
        if rows is not None and rows.series:
            return rows.series[0][0]
    return ""
