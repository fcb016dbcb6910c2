"""JSON values under keys, some with an end: the box's small notice board."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Origin
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.service.accounts.checks import check_text, compact_json, invalid
from ocean_core.storage.operational import metadata
from ocean_core.storage.operational.metadata import MetadataRow
from ocean_core.storage.operational.store import OperationalStore


class MetadataSet(msgspec.Struct):
    """The original's answer to a value that was set."""

    key: str
    set: bool


class MetadataEntry(msgspec.Struct, omit_defaults=True):
    """A value exactly as it was given; ``expires_at`` only if it has an end."""

    key: str
    value: Any
    updated_at: str
    expires_at: str | None = None


class MetadataList(msgspec.Struct):
    """A page; ``next`` is what to send as ``after`` for the following one, null at the end."""

    metadata: list[MetadataEntry]
    next: str | None


class MetadataDeleted(msgspec.Struct):
    """The answer to a key that was deleted."""

    key: str
    deleted: bool


class MetadataService:
    """What the metadata routes call."""

    def __init__(self, store: OperationalStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def set(self, key: str, value: msgspec.Raw, ttl_s: float | None) -> MetadataSet:
        """Store a JSON value in place of what was there, end included; it ends after ``ttl_s``.

        Raises InvalidInputError, RecordsFullError and the errors of the store.
        """
        check_text("key", key, limits.METADATA_KEY_BYTES_MAX, bytes_min=1)
        text = compact_json("value", value, limits.METADATA_VALUE_BYTES_MAX)
        now_us = self._clock.now_us()
        row = MetadataRow(key, text, now_us, _end(now_us, ttl_s))
        await self._store.write(partial(metadata.put, row=row))
        return MetadataSet(key, set=True)

    async def get(self, key: str) -> MetadataEntry:
        """Return a value. Raises UnknownRecordError, also once its time has passed."""
        now_us = self._clock.now_us()
        return _entry(await self._store.read(partial(metadata.get, key=key, now_us=now_us)))

    async def page(self, prefix: str, after: str, limit: int) -> MetadataList:
        """Return keys by name (by code point) that begin with ``prefix``, behind ``after``."""
        rows, more = await self._store.read(
            partial(
                metadata.page,
                prefix=prefix, after=after, limit=limit, now_us=self._clock.now_us(),
            )
        )  # fmt: skip
        return MetadataList([_entry(row) for row in rows], rows[-1].key if more else None)

    async def delete(self, key: str, origin: Origin) -> MetadataDeleted:
        """Delete a key. Raises UnknownRecordError."""
        now_us = self._clock.now_us()
        await self._store.write(partial(metadata.delete, key=key, now_us=now_us, origin=origin))
        return MetadataDeleted(key, deleted=True)

    async def purge(self) -> int:
        """Delete some of what has ended (it is not shown anyway); return how much. Now and then."""
        now_us = self._clock.now_us()
        # A look costs nothing; a transaction for nothing would wear the card.
        if not await self._store.read(partial(metadata.any_expired, now_us=now_us)):
            return 0
        return await self._store.write(partial(metadata.purge, now_us=now_us))


def _end(now_us: int, ttl_s: float | None) -> int | None:
    if ttl_s is None:
        return None
    # Also not fulfilled by NaN.
    if not 0 < ttl_s <= limits.METADATA_TTL_S_MAX:
        raise invalid("ttl_s", ttl_s, f"seconds above 0, at most {limits.METADATA_TTL_S_MAX}")
    return now_us + math.ceil(ttl_s * 1e6)


def _entry(row: MetadataRow) -> MetadataEntry:
    return MetadataEntry(
        row.key,
        msgspec.Raw(row.value.encode()),
        iso_utc(row.updated_us),
        None if row.expires_us is None else iso_utc(row.expires_us),
    )
