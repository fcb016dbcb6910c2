"""Refused Nanogridata frames: to be looked at, tried again, or deleted."""

from __future__ import annotations

from typing import Final

from litestar import Controller, delete, get, post
from litestar.openapi.spec import Example, OpenAPIType, Schema
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, json_request_body, operation, query_parameter
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_texts, whole_number
from ocean_core.api.record_schemas import READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, services_of
from ocean_core.model import limits
from ocean_core.model.errors import ForbiddenError, UnknownRecordError
from ocean_core.service.frames.quarantine_answers import (
    ForgetOrder,
    FrameForgotten,
    FramesForgotten,
    QuarantinedBytes,
    QuarantineList,
    Retried,
    RetryOrder,
)

_OUTCOME: Final = query_parameter("outcome", "Only frames refused for this.", "E_KEY")
_NULL: Final = OpenAPIType.NULL
_ID_DIGITS_MAX: Final = 18
_CHOICE: Final = {
    "ids": Schema(
        type=[OpenAPIType.ARRAY, _NULL],
        items=Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=limits.READING_ID_MAX),
        min_items=1,
        max_items=limits.QUARANTINE_RETRIED_MAX,
    ),
    "outcome": Schema(type=[OpenAPIType.STRING, _NULL], min_length=1, max_length=32),
    "all": Schema(type=OpenAPIType.BOOLEAN, default=False),
    "after": Schema(
        type=OpenAPIType.INTEGER,
        minimum=0,
        maximum=limits.READING_ID_MAX,
        default=0,
        description="Only frames with a larger id: the field next of the answer before.",
    ),
}
_CHOICE_TOLD: Final = "Exactly one of ids, outcome and all (true)."
_RETRY: Final = json_request_body(
    Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=False,
        description=_CHOICE_TOLD,
        properties={
            **_CHOICE,
            "any_time": Schema(
                type=OpenAPIType.BOOLEAN,
                default=False,
                description="Leave out the checks of time: how old a frame is, or how far ahead.",
            ),
        },
    ),
    {
        "some": Example(value={"ids": [1, 2]}),
        "after a secret was added": Example(value={"outcome": "E_KEY"}),
        "all, whatever their time": Example(value={"all": True, "any_time": True}),
    },
)
_FORGET: Final = json_request_body(
    Schema(
        type=OpenAPIType.OBJECT,
        additional_properties=False,
        description=_CHOICE_TOLD,
        properties={**_CHOICE},
    ),
    {
        "some": Example(value={"ids": [1, 2]}),
        "what was too old": Example(value={"outcome": "E_STALE"}),
    },
)


def _require_all_sensors(request: AnyRequest) -> None:
    """Refuse a key for some sensors: nobody can tell whose a frame is that could not be read."""
    principal = principal_of(request)
    if principal.sensors:
        raise ForbiddenError(
            f"this is about all sensors; {principal.told} is only for those like "
            f"{principal.sensors!r}"
        )


def _number(text: str) -> int:
    """Return the id in an address. Raises UnknownRecordError: what is no id names nothing."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS_MAX):
        raise UnknownRecordError("No such frame in quarantine")
    return int(text)


class QuarantineController(Controller):
    """Routes of /api/ocean/quarantine."""

    path = "/api/ocean/quarantine"
    tags = ("Quarantine",)

    @get(
        opt={"access": "read"},
        operation_class=operation(LIMIT, after_parameter("1200", "^[0-9]{1,18}$"), _OUTCOME),
        responses=answers(QuarantineList, *READ_PROBLEMS),
        summary="Refused frames",
    )
    async def frames(self, request: AnyRequest) -> ASGIApp:
        """Return a page of refused Nanogridata frames, newest first, without their bytes.

        Not for keys that are limited to some sensors.
        """
        _require_all_sensors(request)
        texts = query_texts(request, "limit", "after", "outcome")
        after = texts.get("after")
        before = None if after is None else whole_number("after", after)
        quarantine = services_of(request).quarantine
        return answer(await quarantine.page(texts.get("outcome"), before, page_limit(texts)))

    @get(
        "/{frame_id:str}",
        opt={"access": "read"},
        responses=answers(QuarantinedBytes, *READ_PROBLEMS, 404),
        summary="A refused frame",
    )
    async def frame(self, request: AnyRequest, frame_id: FromPath[str]) -> ASGIApp:
        """Return a refused frame with its bytes in hex, its header, and what to do about it."""
        _require_all_sensors(request)
        query_texts(request)
        return answer(await services_of(request).quarantine.get(_number(frame_id)))

    @post(
        "/retry",
        status_code=200,
        opt={"access": "admin"},
        operation_class=operation(body=_RETRY),
        responses=answers(Retried, *WRITE_PROBLEMS),
        summary="Try refused frames again",
    )
    async def retry(self, request: AnyRequest) -> ASGIApp:
        """Take frames as of their arrival: each is stored once, or stays with its new reason.

        At most 1000 in one request, the oldest first; next tells how to go on.
        """
        _require_all_sensors(request)
        query_texts(request)
        services = services_of(request)
        async with json_body(request, services) as body:
            order = decode_body(body, RetryOrder)
        return answer(await services.quarantine.retry(order, origin_of(request)))

    @post(
        "/forget",
        status_code=200,
        opt={"access": "admin"},
        operation_class=operation(body=_FORGET),
        responses=answers(FramesForgotten, *WRITE_PROBLEMS),
        summary="Delete refused frames",
    )
    async def forget_some(self, request: AnyRequest) -> ASGIApp:
        """Delete frames; the loss ledger goes on counting them. There is no way back.

        At most 1000 in one request, the oldest first; next tells how to go on.
        """
        _require_all_sensors(request)
        query_texts(request)
        services = services_of(request)
        async with json_body(request, services) as body:
            order = decode_body(body, ForgetOrder)
        return answer(await services.quarantine.forget_some(order, origin_of(request)))

    @delete(
        "/{frame_id:str}",
        status_code=200,
        opt={"access": "admin"},
        responses=answers(FrameForgotten, *READ_PROBLEMS, 404, 507),
        summary="Delete a refused frame",
    )
    async def forget(self, request: AnyRequest, frame_id: FromPath[str]) -> ASGIApp:
        """Delete a refused frame; the loss ledger goes on counting it."""
        _require_all_sensors(request)
        query_texts(request)
        quarantine = services_of(request).quarantine
        return answer(await quarantine.forget(_number(frame_id), origin_of(request)))
