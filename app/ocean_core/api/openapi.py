"""What the OpenAPI document says beyond what the signatures of the handlers tell."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final

from litestar import Controller
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from ocean_core.model import limits
from ocean_core.service.problems import PROBLEM_TYPE, Problem


def json_request_body(schema: Schema, examples: dict[str, Example | Reference]) -> RequestBody:
    """Return the declaration of a body of JSON, which is required."""
    return RequestBody(
        required=True,
        content={"application/json": OpenAPIMediaType(schema=schema, examples=examples)},
    )


def query_parameter(name: str, description: str, example: str | None = None) -> Parameter:
    """Return the declaration of an optional parameter in the address, given as text."""
    return Parameter(
        name=name,
        param_in="query",
        required=False,
        description=description,
        schema=Schema(type=OpenAPIType.STRING, examples=None if example is None else [example]),
    )


def operation(*parameters: Parameter, body: RequestBody | None = None) -> type[Operation]:
    """Return an operation class that declares what its handler reads from the raw request."""

    @dataclass
    class DeclaredOperation(Operation):
        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or []), *parameters] or None
            if body is not None:
                self.request_body = body

    return DeclaredOperation


WAIT: Final = query_parameter(
    "wait", "true: answer only after everything acknowledged so far is visible.", "true"
)
_MOMENT: Final = Schema(type=[OpenAPIType.STRING, OpenAPIType.NUMBER, OpenAPIType.NULL])
COMPARE_OPERATION: Final = operation(
    WAIT,
    body=json_request_body(
        Schema(
            type=OpenAPIType.OBJECT,
            required=["sensor_ids"],
            additional_properties=False,
            properties={
                "sensor_ids": Schema(
                    type=OpenAPIType.ARRAY,
                    items=Schema(type=OpenAPIType.STRING, min_length=1),
                    min_items=1,
                    max_items=limits.COMPARE_SENSORS_MAX,
                ),
                "start_time": _MOMENT,
                "end_time": _MOMENT,
                "metric": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
                "sensor_id": Schema(
                    type=[OpenAPIType.STRING, OpenAPIType.NULL], description="Taken, not used."
                ),
                "aggregation": Schema(
                    type=[OpenAPIType.STRING, OpenAPIType.NULL], description="Taken, not used."
                ),
            },
        ),
        {"two": Example(value={"sensor_ids": ["press-01", "press-02"]})},
    ),
)


_WHY: Final = {
    400: "The request is not valid.",
    401: "No valid key or session was given.",
    402: "There are not enough credits.",
    403: "The key does not allow this, or a page of another site asks.",
    404: "There is nothing of this name.",
    405: "The method is not allowed here.",
    408: "The body came too slowly.",
    409: "It exists already.",
    413: "The body is too large.",
    415: "The content type is not supported.",
    422: "A field is not valid, or the Idempotency-Key was used for another body.",
    429: "Too much is waiting; Retry-After says when to come again.",
    500: "A fault of our own.",
    503: "Not possible at the moment; Retry-After says when to come again.",
    504: "The query took too long.",
    507: "The disk is full (Retry-After says when to come again), or there are too many of these.",
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Return response declarations for problem documents."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            description=_WHY[status],
            media_type=PROBLEM_TYPE,
            generate_examples=False,
        )
        for status in statuses
    }


def answers(container: type[Any] | UnionType, *statuses: int) -> dict[int, ResponseSpec]:
    """Return the declaration of the good answer together with those of problems."""
    good = ResponseSpec(data_container=container, description="Done.", generate_examples=False)
    return {200: good, **problems(*sorted({403, *statuses}))}


_NEEDS: Final = {
    "public": "",
    "self": "Needs a session, for what belongs to its user, or a key.",
    "ingest": "Needs a key with the scope `ingest`.",
    "read": "Needs a key with the scope `read`, or a session.",
    "admin": "Needs a key with the scope `admin`.",
}


def declare_access(controllers: Iterable[type[Controller]]) -> None:
    """Let the document say of each route what its ``opt={"access": ...}`` demands.

    Security, the refusals for want of a key (401, 403) or for haste (429), and a sentence.
    """
    for controller in controllers:
        for handler in vars(controller).values():
            if not isinstance(handler, HTTPRouteHandler):
                continue
            access = handler.opt["access"]
            may_be = (401, 403, 429) if access != "public" else (401, 429)
            handler.responses = {**problems(*may_be), **(handler.responses or {})}
            handler.security = [{}] if access == "public" else [{"bearer": []}, {}]
            if _NEEDS[access]:
                told = inspect.cleandoc(handler.fn.__doc__ or "")
                handler.description = f"{told}\n\n{_NEEDS[access]}"


QUERY_PROBLEMS: Final = (400, 404, 429, 503, 504)
