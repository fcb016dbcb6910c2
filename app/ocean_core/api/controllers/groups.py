"""Consumer groups: readings not yet processed, in the original's words the telemetry buffer."""

from __future__ import annotations

from typing import Annotated, Final, cast

import msgspec
from litestar import Controller, delete, get, post
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Parameter,
    RequestBody,
    Schema,
)
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, operation
from ocean_core.api.paging import query_problem, query_texts, whole_number
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.buffer.port import DEFAULT_GROUP
from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, ForbiddenError, InvalidInputError
from ocean_core.service.groups import (
    GroupForgotten,
    GroupList,
    MarkAnswer,
    UnprocessedAnswer,
)

_Ids = Annotated[
    list[Annotated[int, msgspec.Meta(ge=1, le=limits.READING_ID_MAX)]],
    msgspec.Meta(max_length=limits.MARK_IDS_MAX),
]


class MarkBody(msgspec.Struct, forbid_unknown_fields=True):
    """The form with a group; the original's is the bare array of ids."""

    ids: _Ids
    group: str | None = None


_MARKS: Final = cast("type[list[int] | MarkBody]", _Ids | MarkBody)

_NAME: Final = Schema(
    type=OpenAPIType.STRING,
    min_length=1,
    max_length=limits.GROUP_NAME_BYTES_MAX,
    description=f"Printable text of at most {limits.GROUP_NAME_BYTES_MAX} bytes.",
)
_GROUP: Final = Parameter(
    name="group",
    param_in="query",
    required=False,
    description=f"Whose marks count; absent: {DEFAULT_GROUP}. Each group has its own.",
    schema=Schema(
        type=OpenAPIType.STRING,
        min_length=1,
        max_length=limits.GROUP_NAME_BYTES_MAX,
        examples=["api"],
    ),
)
_LIMIT: Final = Parameter(
    name="limit",
    param_in="query",
    required=False,
    description="How many are listed at most; large ones make a page shorter.",
    schema=Schema(
        type=OpenAPIType.INTEGER,
        minimum=1,
        maximum=limits.UNPROCESSED_PAGE_MAX,
        default=limits.UNPROCESSED_PAGE_DEFAULT,
    ),
)
_IDS: Final = Schema(
    type=OpenAPIType.ARRAY,
    items=Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=limits.READING_ID_MAX),
    max_items=limits.MARK_IDS_MAX,
    description="Ids of readings and events that were given out, in any order.",
)
_MARK_BODY: Final = RequestBody(
    required=True,
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                any_of=[
                    _IDS,
                    Schema(
                        type=OpenAPIType.OBJECT,
                        required=["ids"],
                        additional_properties=False,
                        properties={
                            "ids": _IDS,
                            "group": Schema(any_of=[_NAME, Schema(type=OpenAPIType.NULL)]),
                        },
                    ),
                ]
            ),
            examples={
                "the original shape": Example(value=[1, 2, 3]),
                "for a group": Example(value={"group": "export", "ids": [1, 2, 3]}),
            },
        )
    },
)


def _require_all_sensors(request: AnyRequest) -> None:
    """Refuse a key for some sensors only: what a group reads and marks is of all sensors."""
    principal = principal_of(request)
    if principal.sensors:
        raise ForbiddenError(
            f"this is about all sensors; {principal.told} is only for those like "
            f"{principal.sensors!r}"
        )


def _page_limit(texts: dict[str, str]) -> int:
    text = texts.get("limit")
    if text is None:
        return limits.UNPROCESSED_PAGE_DEFAULT
    number = whole_number("limit", text)
    if not 1 <= number <= limits.UNPROCESSED_PAGE_MAX:
        expected = f"a whole number from 1 to {limits.UNPROCESSED_PAGE_MAX}"
        raise query_problem("limit", text, expected)
    return number


class GroupsController(Controller):
    """Routes of /api/ocean/telemetry about what was processed."""

    path = "/api/ocean/telemetry"
    tags = ("Telemetry",)

    @get(
        "/unprocessed",
        opt={"access": "read"},
        operation_class=operation(_GROUP, _LIMIT),
        responses=answers(UnprocessedAnswer, 400, 401, 422, 429, 503),
        summary="Readings that a group has not processed",
    )
    async def unprocessed(self, request: AnyRequest) -> ASGIApp:
        """Return the oldest readings and events that are not marked. Changes nothing."""
        _require_all_sensors(request)
        texts = query_texts(request, "group", "limit")
        groups = services_of(request).groups
        body = await groups.unprocessed(texts.get("group", DEFAULT_GROUP), _page_limit(texts))
        return answer(msgspec.Raw(body))

    @post(
        "/mark-processed",
        status_code=200,
        # A program with a key that may read may say what it has read; a user's session may not
        # take readings away from other programs.
        opt={"access": "read"},
        operation_class=operation(_GROUP, body=_MARK_BODY),
        responses=answers(MarkAnswer, 400, 401, 408, 413, 415, 422, 429, 503, 507),
        summary="Mark readings as processed by a group",
    )
    async def mark(self, request: AnyRequest) -> ASGIApp:
        """Answer when the marks are durable. A key with the scope read is enough, no session."""
        _require_all_sensors(request)
        if principal_of(request).kind == "session":
            raise ForbiddenError("marks are for programs: a session may look, a key is needed here")
        services = services_of(request)
        named = query_texts(request, "group").get("group")
        async with json_body(request, services, limits.MARK_BODY_BYTES_MAX) as raw:
            body: list[int] | MarkBody = decode_body(raw, _MARKS)
        ids = body.ids if isinstance(body, MarkBody) else body
        inside = body.group if isinstance(body, MarkBody) else None
        if named is not None and inside is not None and named != inside:
            raise InvalidInputError(
                "group is one in the address and another in the body",
                fields=(FieldProblem("group", inside[:80], f"{named[:80]}, or one of them only"),),
            )
        group = next((name for name in (named, inside) if name is not None), DEFAULT_GROUP)
        return answer(await services.groups.mark(group, ids))

    @get(
        "/groups",
        opt={"access": "read"},
        responses=answers(GroupList, 400, 401, 503),
        summary="Consumer groups",
    )
    async def groups(self, request: AnyRequest) -> ASGIApp:
        """Return every group: how far it is, and what it missed."""
        _require_all_sensors(request)
        query_texts(request)
        return answer(services_of(request).groups.groups())

    @delete(
        "/groups/{name:str}",
        status_code=200,
        opt={"access": "admin"},
        responses=answers(GroupForgotten, 400, 401, 404, 429, 503, 507),
        summary="Forget a group",
    )
    async def forget(self, request: AnyRequest, name: FromPath[str]) -> ASGIApp:
        """Delete a group and its marks; it no longer holds readings back."""
        _require_all_sensors(request)
        query_texts(request)
        groups = services_of(request).groups
        return answer(await groups.forget(path_text(name), origin_of(request)))
