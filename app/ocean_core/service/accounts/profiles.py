"""Profiles: what somebody stored about a sensor's make or calibration, under an id."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.model.errors import FieldProblem
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.protocol.readings.timestamps import TimestampError, timestamp_us
from ocean_core.protocol.readings.wording import found_json
from ocean_core.service.accounts.checks import (
    check_name,
    check_text,
    compact_json,
    invalid,
    refused,
)
from ocean_core.storage.operational import profiles
from ocean_core.storage.operational.profiles import ProfileRow
from ocean_core.storage.operational.store import OperationalStore

_TIMESTAMP_LETTERS_MAX: Final = 64


class NewProfile(msgspec.Struct, forbid_unknown_fields=True):
    """The original's body. ``metadata`` is a JSON object."""

    profile_id: str
    sensor_id: str
    timestamp: str | int | float | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class ProfileStored(msgspec.Struct):
    """The original's answer."""

    profile_id: str
    stored: bool


class Profile(msgspec.Struct):
    """A profile as it was stored; ``metadata`` is an object."""

    profile_id: str
    sensor_id: str
    timestamp: str
    metadata: dict[str, Any]


class ProfileList(msgspec.Struct):
    """A page; ``next`` is what to send as ``after`` for the following one, null at the end."""

    profiles: list[Profile]
    next: str | None


class ProfileDeleted(msgspec.Struct):
    """The answer to a profile that was deleted."""

    profile_id: str
    deleted: bool


class ProfileService:
    """What the profile routes call.

    ``current_name`` returns the name of today for a sensor that was renamed.
    """

    def __init__(
        self,
        store: OperationalStore,
        clock: Clock,
        current_name: Callable[[str], str] = lambda sensor_id: sensor_id,
    ) -> None:
        self._store = store
        self._clock = clock
        self._current_name = current_name

    async def put(self, new: NewProfile) -> ProfileStored:
        """Store a profile in place of one of the same id.

        Raises InvalidInputError, RecordsFullError and the errors of the store.
        """
        check_text("profile_id", new.profile_id, limits.PROFILE_ID_BYTES_MAX, bytes_min=1)
        check_name("sensor_id", new.sensor_id, limits.SENSOR_ID_BYTES_MAX)
        if not bytes(new.metadata).lstrip().startswith(b"{"):
            raise refused(FieldProblem("metadata", found_json(new.metadata), "a JSON object"))
        now_us = self._clock.now_us()
        row = ProfileRow(
            new.profile_id,
            self._current_name(new.sensor_id),
            _moment(new.timestamp, now_us),
            compact_json("metadata", new.metadata, limits.PROFILE_BYTES_MAX),
            now_us,
        )
        await self._store.write(partial(profiles.put, row=row))
        return ProfileStored(new.profile_id, stored=True)

    async def get(self, profile_id: str) -> Profile:
        """Return a profile. Raises UnknownRecordError."""
        return _profile(await self._store.read(partial(profiles.get, profile_id=profile_id)))

    async def page(self, sensor_id: str | None, after: str, limit: int) -> ProfileList:
        """Return profiles by id behind ``after``, of one sensor or of all."""
        name = None if sensor_id is None else self._current_name(sensor_id)
        rows, more = await self._store.read(
            partial(profiles.page, sensor_id=name, after=after, limit=limit)
        )
        return ProfileList([_profile(row) for row in rows], rows[-1].profile_id if more else None)

    async def delete(self, profile_id: str, origin: Origin) -> ProfileDeleted:
        """Delete a profile. Raises UnknownRecordError."""
        now_us = self._clock.now_us()
        await self._store.write(
            partial(profiles.delete, profile_id=profile_id, now_us=now_us, origin=origin)
        )
        return ProfileDeleted(profile_id, deleted=True)


def _moment(given: str | float | None, now_us: int) -> str:
    """Return the text as given if it is a moment, and ISO 8601 for a number or nothing."""
    if given is None:
        return iso_utc(now_us)
    if isinstance(given, str) and len(given) > _TIMESTAMP_LETTERS_MAX:
        raise invalid("timestamp", given, f"at most {_TIMESTAMP_LETTERS_MAX} characters")
    try:
        moment_us = timestamp_us(given)
    except TimestampError as error:
        raise invalid("timestamp", given, str(error)) from error
    return given if isinstance(given, str) else iso_utc(moment_us)


def _profile(row: ProfileRow) -> Profile:
    # The text goes into the answer as it is: numbers keep their digits.
    metadata: Any = msgspec.Raw(row.metadata.encode())
    return Profile(row.profile_id, row.sensor_id, row.timestamp, metadata)
