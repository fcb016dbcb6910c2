"""Readings in: single items and batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Controller, post
from litestar.types import ASGIApp

from ocean_core.api.access import principal_of
from ocean_core.api.answer import raw_answer
from ocean_core.api.body import json_body
from ocean_core.api.openapi import BATCH_OPERATION, INGEST_PROBLEMS, SINGLE_OPERATION, answers
from ocean_core.api.services import AnyRequest, parse_flag, services_of
from ocean_core.model.access import Principal
from ocean_core.model.errors import OceanError
from ocean_core.service.ingest import BatchAnswer, SingleAnswer


async def _take(
    request: AnyRequest, store: Callable[[bytes, str | None, Principal], Awaitable[bytes]]
) -> ASGIApp:
    """Read the body, store it, answer; count what is refused, whatever the reason."""
    services = services_of(request)
    try:
        async with json_body(request, services, services.server.body_bytes_max) as body:
            answer = await store(
                body, request.headers.get("idempotency-key"), principal_of(request)
            )
    except OceanError as error:
        services.ingest.count_refused(error)
        raise
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
        return await _take(request, services_of(request).ingest.ingest_single)

    @post(
        "/batch",
        status_code=200,
        operation_class=BATCH_OPERATION,
        opt={"access": "ingest"},
        responses=answers(BatchAnswer, *INGEST_PROBLEMS),
        summary="Store many items",
    )
    async def batch(self, request: AnyRequest) -> ASGIApp:
        """Answer after all items are durable; one bad item refuses the batch unless partial."""
        ingest = services_of(request).ingest
        partial = parse_flag("partial", request.query_params.get("partial"))
        return await _take(request, ingest.ingest_partial if partial else ingest.ingest_batch)
