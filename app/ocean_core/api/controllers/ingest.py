"""Readings in: single items and batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Controller, post
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of
from ocean_core.api.answer import raw_answer
from ocean_core.api.body import whole_body
from ocean_core.api.ingest_schemas import BATCH_OPERATION, INGEST_PROBLEMS, SINGLE_OPERATION
from ocean_core.api.openapi import answers
from ocean_core.api.paging import query_texts
from ocean_core.api.services import AnyRequest, parse_flag, services_of
from ocean_core.model.access import Principal
from ocean_core.protocol.media import READINGS, SINGLES, Media, encoding_of, media_of
from ocean_core.service.ingest_answers import BatchAnswer, ColumnsAnswer, SingleAnswer
from ocean_core.service.ingest_body import Sent


async def _take(
    request: AnyRequest,
    store: Callable[[bytes, Sent, Principal, str], Awaitable[bytes]],
    allowed: frozenset[Media],
) -> ASGIApp:
    """Read the body, store it, answer. What is refused is counted in ``api.problems``."""
    services = services_of(request)
    headers = request.headers
    sent = Sent(
        media=media_of(headers.get("content-type"), allowed),
        encoding=encoding_of(headers.get("content-encoding")),
        idempotency_key=headers.get("idempotency-key"),
    )
    origin = origin_of(request)
    async with whole_body(request, services, services.server.body_bytes_max) as body:
        answer = await store(body, sent, origin.principal, origin.address)
    return raw_answer(answer)


class IngestController(Controller):
    """POST routes of /api/ocean/telemetry."""

    path = "/api/ocean/telemetry"
    tags = ("Telemetry",)

    @post(
        "/ingest",
        status_code=200,
        operation_class=SINGLE_OPERATION,
        opt={"access": "ingest"},
        responses=answers(SingleAnswer, *INGEST_PROBLEMS),
        summary="Store one item",
    )
    async def ingest(self, request: AnyRequest) -> ASGIApp:
        """Answer after the item is durable."""
        return await _take(request, services_of(request).ingest.ingest_single, SINGLES)

    @post(
        "/batch",
        status_code=200,
        operation_class=BATCH_OPERATION,
        opt={"access": "ingest"},
        responses=answers(BatchAnswer | ColumnsAnswer, *INGEST_PROBLEMS),
        summary="Store many items",
    )
    async def batch(self, request: AnyRequest) -> ASGIApp:
        """Answer after all items are durable; one bad item refuses the batch unless partial.

        Nanogridata frames count each by itself.
        """
        ingest = services_of(request).ingest
        partial = parse_flag("partial", query_texts(request, "partial").get("partial"))
        store = ingest.ingest_partial if partial else ingest.ingest_batch
        return await _take(request, store, READINGS)
