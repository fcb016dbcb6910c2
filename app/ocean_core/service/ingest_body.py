"""Opens the body of a request: expands it, takes its digest, decodes it.

Nothing here waits or is shared, so that small bodies can be opened on the event loop and large ones
on another thread. The expanded bytes live no longer than that: whatever a client has compressed
into a small body, it does not occupy memory while the request waits for the disk.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.errors import (
    BodyTooLargeError,
    FieldProblem,
    IdempotencyKeyError,
    OceanError,
)
from ocean_core.model.receipt import IdempotencyKey, Intake
from ocean_core.protocol.compression import expand
from ocean_core.protocol.media import Encoding, Media
from ocean_core.protocol.readings import (
    DecodeContext,
    decode_batch,
    decode_batch_quickly,
    decode_single,
)
from ocean_core.protocol.readings.attribution import sensors_in

LOCAL_SCOPE: Final = "local"
"""Whose idempotency keys those of requests without an access key are."""


class Form(StrEnum):
    """What a body is to hold; part of what an idempotency key stands for."""

    SINGLE = "ingest"
    BATCH = "batch"
    PARTIAL = "batch-partial"


class Sent(msgspec.Struct, frozen=True):
    """What a request's headers say about its body."""

    media: Media = Media.JSON
    encoding: Encoding = Encoding.IDENTITY
    idempotency_key: str | None = None


PLAIN: Final = Sent()
"""Uncompressed JSON without an Idempotency-Key."""


class _Named(msgspec.Struct):
    sensor_id: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


class Opening:
    """One body on its way to an Intake.

    Also when it is refused, ``idempotency`` and ``sensor_id`` tell what it was, if that much could
    be found out: it may be a repeat of what was stored before, when it was not to be refused yet.
    """

    __slots__ = ("_context", "_digest", "_form", "_intake", "_seems", "_sent", "sensor_id")

    def __init__(self, form: Form, sent: Sent, context: DecodeContext) -> None:
        """Raise IdempotencyKeyError if the request's key is not valid."""
        if sent.idempotency_key is not None:
            check_key(sent.idempotency_key)
        self._form = form
        self._sent = sent
        self._context = context
        self._digest: bytes | None = None
        self._intake: Intake | None = None
        self._seems: dict[str, int] | None = None
        self.sensor_id = ""

    @property
    def arrival_us(self) -> int:
        """When the request came, microseconds since 1970 UTC."""
        return self._context.arrival_us

    @property
    def sensors(self) -> dict[str, int] | None:
        """How many readings of which sensors it holds; items, as it seems, if it is not valid."""
        return self._seems if self._intake is None else self._intake.rows_by_sensor()

    def let_go_of_rows(self) -> dict[str, int] | None:
        """Forget the Intake, but not what it held; return how many rows of which sensors, if known.

        A small body may hold many rows: one that is refused must not keep them while it waits.
        """
        if self._intake is None:
            return None
        rows = self._seems = self._intake.rows_by_sensor()
        self.sensor_id = next(iter(rows), "")
        self._intake = None
        return rows

    def quickly(self, body: bytes) -> Intake | None:
        """Return the Intake if that takes about a millisecond at most, else None: ``wholly`` then.

        Raises what ``wholly`` raises, except that a large body is refused there alone: to find out
        what it seems to hold takes longer.
        """
        context = self._context
        if self._sent.encoding is not Encoding.IDENTITY:
            if len(body) > limits.EXPAND_INLINE_BYTES_MAX:
                return None
            most = min(limits.DECODE_INLINE_BYTES_MAX, context.body_bytes_max)
            try:
                body = expand(body, self._sent.encoding, most)
            except BodyTooLargeError:
                return None
        size = len(body)
        if size <= limits.DECODE_SLOWLY_INLINE_BYTES_MAX:
            return self._decode(body)
        if size > limits.DECODE_INLINE_BYTES_MAX or self._form is Form.SINGLE:
            return None
        self._take_digest(body)
        try:
            self._intake = decode_batch_quickly(body, context, self._sent.media)
        except OceanError:
            return None
        return self._intake

    def wholly(self, body: bytes) -> Intake:
        """Return the Intake, however long it takes.

        Raises MalformedBodyError, InvalidReadingError or BodyTooLargeError.
        """
        if self._sent.encoding is not Encoding.IDENTITY:
            body = expand(body, self._sent.encoding, self._context.body_bytes_max)
        return self._decode(body)

    def idempotency(self, principal: Principal) -> IdempotencyKey | None:
        """Return what marks the request, None without a key or if it could not be expanded."""
        key = self._sent.idempotency_key
        if key is None or self._digest is None:
            return None
        scope = principal.actor if principal.kind == "key" else LOCAL_SCOPE
        return IdempotencyKey(scope, key, self._digest)

    def _decode(self, body: bytes) -> Intake:
        self._take_digest(body)
        form, media = self._form, self._sent.media
        try:
            if form is Form.SINGLE:
                self._intake = decode_single(body, self._context)
            else:
                self._intake = decode_batch(
                    body, self._context, partial=form is Form.PARTIAL, media=media
                )
        except OceanError:
            self._seems = sensors_in(body, media)
            if form is Form.SINGLE and self._digest is not None:
                self.sensor_id = _sensor_of(body)
            raise
        return self._intake

    def _take_digest(self, body: bytes) -> None:
        """Take the digest of what was meant: a repeat may be compressed to other bytes.

        That of a JSON body must stay what it is: digests of earlier versions are in the journal.
        """
        if self._sent.idempotency_key is None or self._digest is not None:
            return
        media = self._sent.media
        what = self._form if media is Media.JSON else f"{self._form}+{media}"
        digest = hashlib.sha256(what.encode() + b"\0")
        digest.update(body)
        self._digest = digest.digest()


def check_key(key: str) -> None:
    """Raise IdempotencyKeyError if this cannot be one."""
    if (
        key
        and len(key) <= limits.IDEMPOTENCY_KEY_BYTES_MAX
        and all(" " <= letter <= "~" for letter in key)
    ):
        return
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


def _sensor_of(body: bytes) -> str:
    """Return the sensor of a body that may have been stored before, though it is refused now."""
    try:
        return _NAMED.decode(body).sensor_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
