"""Errors as problem documents (RFC 9457): the one place that knows an error's HTTP status.

Every transport that answers in HTTP takes body and headers from here, so that an error looks the
same whichever way a request went.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from ocean_core.model import errors
from ocean_core.model.errors import FieldProblem, OceanError
from ocean_core.obs.log import EventLog

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
    errors.FrameError: 422,
    errors.BufferFullError: 429,
    errors.BufferUnavailableError: 503,
    errors.ConnectionsFullError: 503,
    errors.DiskFullError: 507,
    errors.StoreIOError: 503,
    errors.StoreCorruptError: 503,
    errors.StoreBusyError: 429,
    errors.StoreUnavailableError: 503,
    errors.ArchiveUnavailableError: 503,
    errors.WorkCancelledError: 409,
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


def headers_of(error: OceanError) -> dict[str, str]:
    """Return the headers that go with an error, beside type and length of its document."""
    status = STATUS.get(type(error), 500)
    headers: dict[str, str] = {}
    if error.transient or error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s or _RETRY_BY_DEFAULT_S)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ocean"'
    if status in (408, 413):
        # The rest of the body is not going to be read.
        headers["Connection"] = "close"
    return headers


def raw_response_of(error: OceanError) -> bytes:
    """Return the whole HTTP answer for an error, for a connection that is not served at all."""
    problem = problem_of(error)
    body = msgspec.json.encode(problem)
    status = HTTPStatus(problem.status)
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"content-type: {PROBLEM_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name.lower()}: {value}" for name, value in headers_of(error).items()),
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
