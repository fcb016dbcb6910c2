"""Questions about readings: analytics of one sensor, comparison, the sensors themselves."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import principal_of
from ocean_core.api.answer import raw_answer
from ocean_core.api.body import json_body
from ocean_core.api.openapi import (
    COMPARE_OPERATION,
    QUERY_PROBLEMS,
    WAIT,
    answers,
    operation,
    query_parameter,
)
from ocean_core.api.own import check_touch
from ocean_core.api.services import AnyRequest, parse_flag, path_text, services_of
from ocean_core.model import limits
from ocean_core.model.access import Principal
from ocean_core.model.errors import (
    FieldProblem,
    MalformedBodyError,
    OceanError,
    QueryError,
)
from ocean_core.model.naming import Names
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.queries.requests import (
    CompareRequest,
    DigestsRequest,
    LatestAllRequest,
    Request,
    SensorsRequest,
    VerifyRequest,
    parse_request,
)

_START: Final = query_parameter(
    "start", "First moment, inclusive: ISO 8601 (no zone = UTC) or epoch.", "2026-01-17T00:00:00Z"
)
_END: Final = query_parameter("end", "Last moment, inclusive.", "2026-01-18T00:00:00Z")
_METRIC: Final = query_parameter(
    "metric", "Which metric; needed only if there are several and none is called value.", "value"
)
_INTERVAL: Final = query_parameter("interval", "Width of a bucket, 1s to 30d (default 5m).", "5m")
_FILL: Final = query_parameter(
    "fill", "Empty buckets: none (left out), null, previous, linear, or a number.", "null"
)
_ZONE: Final = query_parameter("tz", "Time zone of the buckets (default UTC).", "Europe/Berlin")
_THRESHOLD: Final = query_parameter(
    "threshold", "Standard deviations from the mean (default 2).", "3"
)
_LIMIT: Final = query_parameter("limit", "How many are listed.", "100")
_AFTER: Final = query_parameter("after", "Continue behind this sensor id.", "press-01")
_PREFIX: Final = query_parameter("prefix", "Only sensors whose id starts so.", "press-")


async def _answer(request: AnyRequest, name: str, more: dict[str, Any] | None = None) -> ASGIApp:
    """Answer with what analytics say."""
    return raw_answer(await _query(request, name, more))


async def _query(request: AnyRequest, name: str, more: dict[str, Any] | None = None) -> bytes:
    """Check the parameters here, in the words of the query, then let analytics answer.

    A key that is limited to some sensors learns of these only.
    """
    params: dict[str, Any] = {
        key: value for key, value in request.query_params.items() if key != "wait"
    }
    wait = parse_flag("wait", request.query_params.get("wait"))
    for key, value in (more or {}).items():
        if key in params:
            raise QueryError(
                f"{key} is given twice", fields=(FieldProblem(key, str(params[key]), "once"),)
            )
        params[key] = value
    asked = parse_request(name, params)
    link, principal = services_of(request).link, principal_of(request)
    if principal.sensors:
        if isinstance(asked, SensorsRequest | LatestAllRequest):
            params["pattern"] = principal.sensors
        else:
            _check_sensors(asked, principal, link.names)
    return await link.query(name, params, wait=wait)


async def _with_records(records: SensorRecords, body: bytes) -> bytes:
    """Add name, unit and tags to a page of sensors; without them if they cannot be read now."""
    page = msgspec.json.decode(body, type=dict[str, Any])
    if not page["sensors"]:
        return body
    try:
        found = await records.records_of([sensor["sensor_id"] for sensor in page["sensors"]])
    except OceanError:
        return body
    for sensor in page["sensors"]:
        record = found.get(sensor["sensor_id"])
        sensor["display_name"] = "" if record is None else record.display_name
        sensor["unit"] = "" if record is None else record.unit
        sensor["tags"] = {} if record is None else record.tags
    return msgspec.json.encode(page)


def _check_sensors(asked: Request, principal: Principal, names: Names) -> None:
    """Raise ForbiddenError unless each sensor may be asked for, under its present name, too."""
    assert not isinstance(asked, SensorsRequest | LatestAllRequest | VerifyRequest | DigestsRequest)
    given = asked.sensor_ids if isinstance(asked, CompareRequest) else (asked.sensor_id,)
    for sensor_id in given:
        check_touch(principal, sensor_id, names.asked(sensor_id))


class AnalyticsController(Controller):
    """Routes of /api/ocean/analytics."""

    path = "/api/ocean/analytics"
    tags = ("Analytics",)

    @get(
        "/sensor/{sensor_id:str}/stats",
        operation_class=operation(_START, _END, _METRIC, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Count, mean, extremes, deviation",
    )
    async def stats(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return statistics of one series."""
        return await _answer(request, "stats", {"sensor_id": path_text(sensor_id)})

    @get(
        "/sensor/{sensor_id:str}/timeseries",
        operation_class=operation(_INTERVAL, _START, _END, _METRIC, _FILL, _ZONE, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Means and extremes per interval",
    )
    async def timeseries(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return buckets in ascending order."""
        return await _answer(request, "timeseries", {"sensor_id": path_text(sensor_id)})

    @get(
        "/sensor/{sensor_id:str}/anomalies",
        operation_class=operation(_THRESHOLD, _START, _END, _METRIC, _LIMIT, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Readings far from the mean",
    )
    async def anomalies(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return readings beyond the threshold, newest first."""
        return await _answer(request, "anomalies", {"sensor_id": path_text(sensor_id)})

    @post(
        "/compare",
        status_code=200,
        operation_class=COMPARE_OPERATION,
        opt={"access": "read"},
        responses=answers(dict[str, Any], 408, 413, 415, *QUERY_PROBLEMS),
        summary="Several sensors side by side",
    )
    async def compare(self, request: AnyRequest) -> ASGIApp:
        """Return statistics per sensor, highest average first."""
        try:
            async with json_body(
                request, services_of(request), limits.COMPARE_BODY_BYTES_MAX
            ) as body:
                fields = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise MalformedBodyError(
                str(error), hint='Send {"sensor_ids": ["a", "b"]} as JSON.'
            ) from error
        except RecursionError as error:
            raise MalformedBodyError("the JSON is nested too deep") from error
        return await _answer(request, "compare", fields)


class SensorsController(Controller):
    """Routes of /api/ocean/sensors."""

    path = "/api/ocean/sensors"
    tags = ("Sensors",)

    @get(
        operation_class=operation(_LIMIT, _AFTER, _PREFIX, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Known sensors",
    )
    async def sensors(self, request: AnyRequest) -> ASGIApp:
        """Return a page of sensors by id, with their metrics and what people call them."""
        body = await _query(request, "sensors")
        return raw_answer(await _with_records(services_of(request).sensors, body))

    @get(
        "/latest",
        operation_class=operation(_LIMIT, _AFTER, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Newest readings of all sensors",
    )
    async def latest_all(self, request: AnyRequest) -> ASGIApp:
        """Return the newest reading of each series of a page of sensors."""
        return await _answer(request, "latest_all")

    @get(
        "/{sensor_id:str}/latest",
        operation_class=operation(_METRIC, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Newest readings of a sensor",
    )
    async def latest(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return the newest reading per metric, and the newest event."""
        return await _answer(request, "latest", {"sensor_id": path_text(sensor_id)})

    @get(
        "/{sensor_id:str}/events",
        operation_class=operation(_START, _END, _LIMIT, WAIT),
        opt={"access": "read"},
        responses=answers(dict[str, Any], *QUERY_PROBLEMS),
        summary="Events of a sensor",
    )
    async def events(self, request: AnyRequest, sensor_id: FromPath[str]) -> ASGIApp:
        """Return the newest events, each payload as it came."""
        return await _answer(request, "events", {"sensor_id": path_text(sensor_id)})
