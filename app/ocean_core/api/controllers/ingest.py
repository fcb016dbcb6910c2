"""Readings in: single items and batches."""

from __future__ import annotations

from litestar import Controller, Response, post

from ocean_core.api.body import read_json_body
from ocean_core.api.openapi import BATCH_OPERATION, INGEST_PROBLEMS, SINGLE_OPERATION, answers
from ocean_core.api.services import AnyRequest, parse_flag, services_of
from ocean_core.service.ingest import BatchAnswer, SingleAnswer


class IngestController(Controller):
    """POST routes of /api/ocean/telemetry."""

    path = "/api/ocean/telemetry"
    tags = ("Telemetry",)

    @post(
        "/ingest",
        status_code=200,
        operation_class=SINGLE_OPERATION,
        responses=answers(SingleAnswer, *INGEST_PROBLEMS),
        summary="Store one item",
    )
    async def ingest(self, request: AnyRequest) -> Response[bytes]:
        """Answer after the item is durable."""
        services = services_of(request)
        body = await read_json_body(request, services.server)
        answer = await services.ingest.ingest_single(body, request.headers.get("idempotency-key"))
        return Response(answer, media_type="application/json")

    @post(
        "/batch",
        status_code=200,
        operation_class=BATCH_OPERATION,
        responses=answers(BatchAnswer, *INGEST_PROBLEMS),
        summary="Store many items",
    )
    async def batch(self, request: AnyRequest) -> Response[bytes]:
        """Answer after all items are durable; one bad item refuses the batch unless partial."""
        services = services_of(request)
        take_good = parse_flag("partial", request.query_params.get("partial"))
        body = await read_json_body(request, services.server)
        answer = await services.ingest.ingest_batch(
            body, request.headers.get("idempotency-key"), partial=take_good
        )
        return Response(answer, media_type="application/json")
