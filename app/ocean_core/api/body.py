"""Reads request bodies within limits of size, time, type, and of all of them together."""

from __future__ import annotations

import asyncio
import contextlib

from ocean_core.api.access import origin_of
from ocean_core.api.services import AnyRequest, Services
from ocean_core.model import limits
from ocean_core.model.access import WHOLE_KEY
from ocean_core.model.errors import (
    BodyTooLargeError,
    BufferFullError,
    FieldProblem,
    RequestError,
    RequestTimeoutError,
)
from ocean_core.protocol.media import encoding_of, media_of


class whole_body:  # noqa: N801 - used like a function
    """Give the body as it came, whatever it is.

    Its share of the common budget is held until the request is answered. Raises BodyTooLargeError,
    BufferFullError, RequestTimeoutError or RequestError (the client hung up).
    """

    __slots__ = ("_most", "_reading", "_request", "_services")

    def __init__(
        self,
        request: AnyRequest,
        services: Services,
        most: int = limits.RECORD_BODY_BYTES_MAX,
    ) -> None:
        """Take bodies of up to ``most`` bytes, or of ``server.body_bytes_max`` if that is less."""
        self._request = request
        self._services = services
        self._most = most

    async def __aenter__(self) -> bytes:
        """Read the body."""
        self._reading = _Reading(self._request, self._services, self._most)
        declared = self._request.headers.get("content-length")
        try:
            return await self._reading.whole(
                int(declared) if declared and declared.isdigit() else None
            )
        except BaseException:
            self._reading.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Give its share of the budget back."""
        self._reading.release()


class json_body(whole_body):  # noqa: N801 - used like a function
    """Give a body of uncompressed JSON. Raises ContentTypeError if it says that it is another."""

    __slots__ = ()

    async def __aenter__(self) -> bytes:
        """Read the body."""
        headers = self._request.headers
        media_of(headers.get("content-type"))
        encoding_of(headers.get("content-encoding"), compressed=False)
        return await super().__aenter__()


class _Reading:
    """One body on its way in."""

    def __init__(self, request: AnyRequest, services: Services, most: int) -> None:
        self._request = request
        self._limit = min(most, services.server.body_bytes_max)
        self._timeout_s = services.server.request_timeout_s
        self._budget = services.bodies
        origin = origin_of(request)
        self._source = origin.principal.id or origin.address
        self._size = 0
        self._reserved = 0

    async def whole(self, declared: int | None) -> bytes:
        """Return the body; ``declared`` is the size the client has announced."""
        chunks: list[bytes] = []
        if declared is not None and declared > self._limit:
            await self._discard(declared)
            raise self._too_large(f"{declared} bytes")
        self._reserve(declared or 0)
        more = True
        if WHOLE_KEY in self._request.scope and (declared or 0) <= limits.BODY_BYTES_COUNTED_FROM:
            # The usual small request: nothing to wait for, so no timer is needed either.
            chunk, more = await self._next()
            if not more and self._size <= self._limit:
                return chunk
            chunks.append(chunk)
        try:
            async with asyncio.timeout(self._timeout_s):
                while more and self._size <= self._limit:
                    chunk, more = await self._next()
                    self._reserve(min(self._size, self._limit))
                    chunks.append(chunk)
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"{self._size} bytes came within {self._timeout_s} s, then nothing more"
            ) from error
        if self._size > self._limit:
            chunks.clear()
            if more:
                await self._discard(self._limit)
            raise self._too_large(f"more than {self._limit} bytes")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            raise RequestError(f"the client hung up after {self._size} bytes of the body")
        assert message["type"] == "http.request"
        chunk = message["body"]
        self._size += len(chunk)
        return chunk, message["more_body"]

    async def _discard(self, expected: int) -> None:
        """Let a client finish sending what is too large: most read no answer before.

        One that asks first (Expect: 100-continue), that pauses, or would send for ever, is
        answered at once.
        """
        if "expect" in self._request.headers or expected > limits.BODY_DISCARD_BYTES_MAX:
            return
        more = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.BODY_DISCARD_S):
                while more and self._size <= limits.BODY_DISCARD_BYTES_MAX:
                    async with asyncio.timeout(limits.BODY_DISCARD_PAUSE_S):
                        _, more = await self._next()

    def _too_large(self, found: str) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"the body has {found}, the limit is {self._limit} bytes",
            fields=(FieldProblem("body", found, f"at most {self._limit} bytes"),),
        )

    def _reserve(self, size: int) -> None:
        if size > limits.BODY_BYTES_COUNTED_FROM and size > self._reserved:
            if not self._budget.reserve(self._source, size - self._reserved):
                raise BufferFullError(
                    "the request bodies being read hold as much memory as they may",
                    retry_after_s=1,
                )
            self._reserved = size

    def release(self) -> None:
        """Give back the share of the common budget."""
        if self._reserved:
            self._budget.release(self._source, self._reserved)
