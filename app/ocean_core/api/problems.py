"""Errors become Litestar's answers here and nowhere else; their content is service.problems'."""

from __future__ import annotations

import traceback
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from ocean_core.api.services import services_of
from ocean_core.model import errors
from ocean_core.model.errors import OceanError
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.problems import PROBLEM_TYPE, headers_of, log_refusal, problem_of


def response_of(error: OceanError) -> Response[bytes]:
    """Return the HTTP answer for an error."""
    problem = problem_of(error)
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=PROBLEM_TYPE,
        headers=headers_of(error),
    )


_INGEST_PATHS: Final = ("/api/ocean/telemetry/ingest", "/api/ocean/telemetry/batch")


def brings_readings(method: str, path: str) -> bool:
    """Whether a request is one with readings, so that its refusal is a matter for the ledger."""
    return method == "POST" and path.rstrip("/") in _INGEST_PATHS


class ErrorHandlers:
    """Litestar's exception handlers, with the log and the metrics they need."""

    def __init__(self, log: EventLog, metrics: MetricsRegistry) -> None:
        self._log = log
        self._metrics = metrics

    def ocean(self, request: Request[Any, Any, Any], error: OceanError) -> Response[bytes]:
        """Answer an expected error."""
        self._metrics.add("ocean_errors_total", 1, error.code)
        if brings_readings(request.method, request.scope["path"]):
            services_of(request).ingest.count_refused(error)
        log_refusal(self._log, error, request.client.host if request.client else "")
        return response_of(error)

    def http(self, request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        """Answer what Litestar itself refuses."""
        where = f"{request.method} {request.url.path}"
        translated: OceanError
        if error.status_code == 404:
            translated = errors.RouteError(f"there is no {where}")
        elif error.status_code == 405:
            translated = errors.MethodError(f"{where} is not possible")
        elif error.status_code == 413:
            translated = errors.BodyTooLargeError(str(error.detail))
        elif error.status_code < 500:
            translated = errors.RequestError(str(error.detail))
        else:
            return self.unexpected(request, error)
        answer = self.ocean(request, translated)
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    def unexpected(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        """Answer a fault of our own and log where it happened."""
        self._log.error(
            "api.internal_error",
            request=f"{request.method} {request.url.path}",
            error=repr(error),
            traceback="".join(traceback.format_exception(error)),
        )
        return self.ocean(request, errors.InternalError("an unexpected fault; the log tells more"))
