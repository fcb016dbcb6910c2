"""Errors become HTTP here and nowhere else: application/problem+json (RFC 9457)."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from ocean_core.model import errors
from ocean_core.model.errors import FieldProblem, OceanError
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry

PROBLEM_TYPE: Final = "application/problem+json"

STATUS: Final[dict[type[OceanError], int]] = {
    errors.MalformedBodyError: 400,
    errors.InvalidReadingError: 422,
    errors.BodyTooLargeError: 413,
    errors.ContentTypeError: 415,
    errors.IdempotencyMismatchError: 422,
    errors.IdempotencyKeyError: 400,
    errors.SeriesQuotaError: 422,
    errors.RequestTimeoutError: 408,
    errors.InvalidInputError: 422,
    errors.BufferFullError: 429,
    errors.BufferUnavailableError: 503,
    errors.ConnectionsFullError: 503,
    errors.DiskFullError: 507,
    errors.StoreIOError: 503,
    errors.StoreCorruptError: 503,
    errors.StoreBusyError: 429,
    errors.StoreUnavailableError: 503,
    errors.QueryError: 400,
    errors.UnknownSensorError: 404,
    errors.MetricChoiceError: 400,
    errors.QueryTooLargeError: 400,
    errors.QueryTimeoutError: 504,
    errors.AnalyticsUnavailableError: 503,
    errors.QueriesFullError: 429,
    errors.RouteError: 404,
    errors.MethodError: 405,
    errors.RequestError: 400,
    errors.OriginError: 403,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.RateLimitError: 429,
    errors.CredentialsError: 401,
    errors.LoginBackoffError: 429,
    errors.PasswordsBusyError: 429,
    errors.PlainHttpError: 400,
    errors.UnknownUserError: 404,
    errors.ConflictError: 409,
    errors.UserDisabledError: 403,
    errors.CreditsError: 402,
    errors.UnknownRecordError: 404,
    errors.SessionError: 401,
    errors.RecordsFullError: 507,
    errors.InternalError: 500,
}
"""HTTP status of each error that can reach a client."""

_RETRY_BY_DEFAULT_S: Final = 1


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem document: RFC 9457's members, a stable code, a hint, the fields at fault."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    errors: tuple[FieldProblem, ...] = ()


def problem_of(error: OceanError) -> Problem:
    """Return the document for an error."""
    return Problem(
        type=f"urn:ocean:error:{error.code}",
        title=error.title,
        status=STATUS.get(type(error), 500),
        detail=error.detail,
        code=error.code,
        hint=error.hint,
        errors=error.fields,
    )


def response_of(error: OceanError) -> Response[bytes]:
    """Return the HTTP answer for an error."""
    problem = problem_of(error)
    headers: dict[str, str] = {}
    if error.transient or error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s or _RETRY_BY_DEFAULT_S)
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ocean"'
    if problem.status in (408, 413):
        # The rest of the body is not going to be read.
        headers["Connection"] = "close"
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=PROBLEM_TYPE,
        headers=headers,
    )


def raw_response_of(error: OceanError) -> bytes:
    """Return the whole HTTP answer for an error, for a connection that is not served at all."""
    answer = response_of(error)
    body = answer.content
    status = HTTPStatus(problem_of(error).status)
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"content-type: {PROBLEM_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name.lower()}: {value}" for name, value in answer.headers.items()),
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + body


_REFUSALS: Final = (
    errors.UnauthenticatedError,
    errors.ForbiddenError,
    errors.CredentialsError,
    errors.LoginBackoffError,
    errors.OriginError,
    errors.RateLimitError,
)


def log_refusal(log: EventLog, error: OceanError, address: str) -> None:
    """Tell the box's log who was not let in, for whoever wonders why a sensor is silent."""
    if isinstance(error, _REFUSALS):
        log.info("access.refused", address=address, code=error.code, reason=error.detail)


class ErrorHandlers:
    """Litestar's exception handlers, with the log and the metrics they need."""

    def __init__(self, log: EventLog, metrics: MetricsRegistry) -> None:
        self._log = log
        self._metrics = metrics

    def ocean(self, request: Request[Any, Any, Any], error: OceanError) -> Response[bytes]:
        """Answer an expected error."""
        self._metrics.add("ocean_errors_total", 1, error.code)
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
