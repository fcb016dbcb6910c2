"""What people write about sensors; their names; what was forgotten."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from litestar import Controller, get, patch, post
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, operation
from ocean_core.api.own import check_touch
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_problem, query_texts
from ocean_core.api.record_schemas import (
    FORGET_OPERATION,
    READ_PROBLEMS,
    RENAME_OPERATION,
    SENSOR_OPERATION,
    WRITE_PROBLEMS,
)
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.service.accounts.sensors import (
    SensorChange,
    SensorDetail,
    SensorForgotten,
    SensorRecord,
    SensorRenamed,
)
from ocean_core.service.ledger import Ledger

_CURSOR: Final = r"^[A-Za-z0-9 -]+/.*$"
_SENSOR: Final = Parameter(
    name="sensor_id",
    param_in="query",
    required=False,
    description="Only this sensor, by any name it has or had; empty: what is of no known sensor.",
    schema=Schema(type=OpenAPIType.STRING),
)


class NewName(msgspec.Struct, forbid_unknown_fields=True):
    """What a sensor is to be called."""

    to: str


class Confirmation(msgspec.Struct, forbid_unknown_fields=True):
    """The id of the sensor to forget, once more."""

    confirm: str


class SensorRecordsController(Controller):
    """Routes of single sensors, and of the ledger of losses."""

    path = "/api/ocean"
    tags = ("Sensors",)

    @get(
        "/sensors/{sensor_id:str}",
        opt={"access": "read"},
        responses=answers(SensorDetail, *READ_PROBLEMS, 404, 504),
        summary="A sensor",
    )
    async def sensor(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return what people wrote about a sensor and what it has sent; older names work too."""
        name = path_text(sensor_id)
        services = services_of(request)
        check_touch(principal_of(request), name, services.link.names.asked(name))
        return answer(await services.sensors.show(name))

    @patch(
        "/sensors/{sensor_id:str}",
        opt={"access": "admin"},
        operation_class=SENSOR_OPERATION,
        responses=answers(SensorRecord, *WRITE_PROBLEMS),
        summary="Describe a sensor",
    )
    async def describe(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Change what is said about a sensor, also one that has sent nothing yet."""
        services = services_of(request)
        async with json_body(request, services) as body:
            change = decode_body(body, SensorChange)
        name = path_text(sensor_id)
        return answer(await services.sensors.update(name, change, origin_of(request)))

    @post(
        "/sensors/{sensor_id:str}/rename",
        status_code=200,
        opt={"access": "admin"},
        operation_class=RENAME_OPERATION,
        responses=answers(SensorRenamed, *WRITE_PROBLEMS, 404, 409, 504),
        summary="Rename a sensor",
    )
    async def rename(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Call a sensor otherwise, for all its readings; those to come may use the old name."""
        services = services_of(request)
        async with json_body(request, services) as body:
            new_id = decode_body(body, NewName).to
        name = path_text(sensor_id)
        return answer(await services.sensors.rename(name, new_id, origin_of(request)))

    @post(
        "/sensors/{sensor_id:str}/forget",
        status_code=200,
        opt={"access": "admin"},
        operation_class=FORGET_OPERATION,
        responses=answers(SensorForgotten, *WRITE_PROBLEMS, 404),
        summary="Forget a sensor",
    )
    async def forget(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Forget a sensor's record and all its readings so far. There is no way back."""
        services = services_of(request)
        async with json_body(request, services) as body:
            confirm = decode_body(body, Confirmation).confirm
        name = path_text(sensor_id)
        return answer(await services.sensors.forget(name, confirm, origin_of(request)))

    @get(
        "/ledger",
        opt={"access": "read"},
        operation_class=operation(LIMIT, after_parameter("forgotten/press-01", _CURSOR), _SENSOR),
        responses=answers(Ledger, *READ_PROBLEMS),
        summary="What was not, or is no longer, stored",
    )
    async def ledger(self, request: AnyRequest) -> ASGIApp:
        """Return a page by sensor and reason: refused, duplicate, forgotten, evicted.

        A limited key sees only its own sensors, and no totals.
        """
        texts = query_texts(request, "limit", "after", "sensor_id")
        after = texts.get("after")
        services = services_of(request)
        principal = principal_of(request)
        wanted = texts.get("sensor_id")
        if wanted is not None:
            check_touch(principal, wanted, services.link.names.asked(wanted))
        if after is not None and not re.fullmatch(_CURSOR, after):
            raise query_problem("after", after, "the field next of the page before")
        loss_class, _, sensor_id = (after or "/").partition("/")
        # A page that has nothing for a limited key is passed over: its cursor names others' sensors.
        while True:
            page = await services.ledger.page(
                (sensor_id, loss_class),
                page_limit(texts),
                sensor_id=wanted,
                with_totals=not principal.sensors,
            )
            seen = [loss for loss in page.sensors if principal.may_touch(loss.sensor_id)]
            if seen or page.next is None:
                break
            loss_class, _, sensor_id = page.next.partition("/")
        if len(seen) < len(page.sensors) and page.next is not None:
            page.next = f"{seen[-1].loss_class}/{seen[-1].sensor_id}"
        page.sensors = seen
        return answer(page)
