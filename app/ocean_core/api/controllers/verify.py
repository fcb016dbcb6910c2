"""Is everything that was acknowledged there: journal against analytics, and digests of series."""

from __future__ import annotations

from typing import Any, Final

from litestar import Controller, get
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.types import ASGIApp

from ocean_core.api.access import principal_of
from ocean_core.api.answer import raw_answer
from ocean_core.api.openapi import QUERY_PROBLEMS, WAIT, answers, operation, query_parameter
from ocean_core.api.paging import query_texts
from ocean_core.api.services import AnyRequest, parse_flag, services_of
from ocean_core.model import limits
from ocean_core.model.errors import ForbiddenError
from ocean_core.service.queries.requests import parse_request
from ocean_core.service.queries.verified import Digests, VerifyStep


def _number(name: str, description: str, low: int, high: int, default: int) -> Parameter:
    return Parameter(
        name=name,
        param_in="query",
        required=False,
        description=description,
        schema=Schema(type=OpenAPIType.INTEGER, minimum=low, maximum=high, default=default),
    )


_AFTER_ID: Final = _number(
    "after_id", "Compare ids behind this one: next_after_id of the step before.",
    0, limits.READING_ID_MAX, 0,
)  # fmt: skip
_LIMIT: Final = _number(
    "limit", "How many series are listed at most; with many readings they are fewer.",
    1, limits.DIGESTS_PAGE_MAX, limits.DIGESTS_PAGE_DEFAULT,
)  # fmt: skip
_AFTER: Final = query_parameter(
    "after", "Continue behind this: the field next of the page before.", '["press-01","value"]'
)
_PREFIX: Final = query_parameter("prefix", "Only sensors whose id starts so.", "press-")


async def _answer(request: AnyRequest, name: str, params: dict[str, Any]) -> ASGIApp:
    """Check the parameters here, in the words of the query, then let analytics answer."""
    wait = parse_flag("wait", params.pop("wait", None))
    parse_request(name, params)
    principal = principal_of(request)
    if name == "digests" and principal.sensors:
        params["pattern"] = principal.sensors
    return raw_answer(await services_of(request).link.query(name, params, wait=wait))


class VerifyController(Controller):
    """Routes that compare what is stored."""

    path = "/api/ocean"
    tags = ("Verification",)

    @get(
        "/verify",
        operation_class=operation(_AFTER_ID, WAIT),
        opt={"access": "read"},
        responses=answers(VerifyStep, 400, 429, 503, 504),
        summary="Journal and analytics against each other",
    )
    async def verify(self, request: AnyRequest) -> ASGIApp:
        """Compare some millions of ids, row by row; begin with 0, go on with next_after_id.

        If rows differ, analytics are rebuilt from the journal, a few seconds after the last step.
        Not for keys that are limited to some sensors.
        """
        principal = principal_of(request)
        if principal.sensors:
            raise ForbiddenError(
                f"{principal.told} is for sensors like {principal.sensors!r}; this is about all"
            )
        return await _answer(request, "verify", query_texts(request, "after_id", "wait"))

    @get(
        "/telemetry/digests",
        operation_class=operation(_PREFIX, _AFTER, _LIMIT, WAIT),
        opt={"access": "read"},
        responses=answers(Digests, *(status for status in QUERY_PROBLEMS if status != 404)),
        summary="Count and digest of each series",
    )
    async def digests(self, request: AnyRequest) -> ASGIApp:
        """Return a page of series by name; whoever sent the readings can compute the same digest."""
        names = ("prefix", "after", "limit", "wait")
        return await _answer(request, "digests", query_texts(request, *names))
