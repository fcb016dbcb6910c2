"""All errors an operator or client can meet: one root, stable codes, a hint for what to do next.

Families by thousands: 1 configuration, 2 input, 3 buffer, 4 store, 5 query, 6 request routing and
access, 7 lifecycle, 8 accounts, 9 our own fault. Which HTTP status a code becomes is decided in
``service.problems`` alone. A class's docstring is its title.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong in an input: where, what was found, what would be right."""

    field: str
    found: str
    expected: str
    item: int | None = None


class OceanError(Exception):
    """Something expected went wrong."""

    code = "OC-9000"
    hint = ""
    transient = False

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        fields: tuple[FieldProblem, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        """Keep ``detail`` (what happened, for this case) beside the class's stable code and hint."""
        super().__init__(detail)
        self.detail = detail
        self.fields = fields
        self.retry_after_s = retry_after_s
        # Of a request with readings that is refused: how many of which sensors, if that is known.
        self.refused: Mapping[str, int] | None = None
        if hint is not None:
            self.hint = hint

    @property
    def title(self) -> str:
        """What kind of error this is, the same words for every case."""
        return (type(self).__doc__ or "").split("\n", 1)[0].rstrip(".")


# 1: configuration


class ConfigError(OceanError):
    """The configuration is not valid."""

    code = "OC-1001"
    hint = "Correct the named line, then run `ocean config check`."


class UnknownSettingError(ConfigError):
    """A setting is not known."""

    code = "OC-1002"
    hint = "Run `ocean config show --origin` for every setting and its present value."


class ListenAddressError(ConfigError):
    """The listen address is not allowed."""

    code = "OC-1003"
    hint = (
        "To open the box to the network: `ocean tls self-signed`, `ocean keys create`, then "
        "`ocean serve --network`. Or tunnel: ssh -L 8030:127.0.0.1:8030 user@gateway."
    )


class TlsError(ConfigError):
    """The TLS certificate cannot be used."""

    code = "OC-1004"
    hint = (
        "Name a PEM certificate and its key with network.tls_cert and network.tls_key, or make "
        "them with `ocean tls self-signed`."
    )


class ModelsFileError(ConfigError):
    """The description of Nanogridata models is not valid."""

    code = "OC-1005"
    hint = "Correct the named line of the file; docs/nanogridata-models.md shows the form."


class SecretError(ConfigError):
    """A Nanogridata secret cannot be used."""

    code = "OC-1006"
    hint = "Secrets have 32 bytes or more; `ocean keys nanogridata add` makes and keeps one."


# 2: input


class MalformedBodyError(OceanError):
    """The body is not one that this address takes."""

    code = "OC-2001"
    hint = (
        "Send one JSON object to /ingest, or an array of them to /batch, encoded as UTF-8. "
        "JSON has no NaN or Infinity: leave such a reading out."
    )


class InvalidReadingError(OceanError):
    """A reading is not valid."""

    code = "OC-2002"
    hint = (
        "Correct the named field and send again; nothing of this request was stored. "
        "For a batch, ?partial=true stores the good items and returns the rest."
    )


class BodyTooLargeError(OceanError):
    """The body is too large."""

    code = "OC-2003"
    hint = "Send smaller batches; server.body_bytes_max sets the limit."


class ContentTypeError(OceanError):
    """The content type is not supported."""

    code = "OC-2004"
    hint = "Send Content-Type: application/json."


class IdempotencyMismatchError(OceanError):
    """The Idempotency-Key was used before with another body."""

    code = "OC-2005"
    hint = "Use a new Idempotency-Key for a new request; repeat a key only with the same body."


class IdempotencyKeyError(OceanError):
    """The Idempotency-Key is not valid."""

    code = "OC-2006"
    hint = "Send 1 to 255 printable ASCII characters, for example a UUID."


class SeriesQuotaError(OceanError):
    """Too many different series."""

    code = "OC-2007"
    hint = (
        "Look for a sensor that puts a changing value into sensor_id or metric; "
        "ingest.series_per_sensor_max and ingest.series_total_max set the limits."
    )


class RequestTimeoutError(OceanError):
    """The request body came too slowly."""

    code = "OC-2008"
    hint = "Send the whole body within server.request_timeout_s seconds."
    transient = True


class InvalidInputError(OceanError):
    """The input is not valid."""

    code = "OC-2009"
    hint = "Correct the named field and send again; nothing was changed."


class FrameError(OceanError):
    """The Nanogridata frame was refused."""

    code = "OC-2010"
    hint = (
        "`ocean decode FRAME` explains it field by field; `ocean quarantine list` shows refused "
        "frames, and what can be tried again."
    )


# 3: buffer


class BufferFullError(OceanError):
    """The ingestion buffer is full."""

    code = "OC-3001"
    hint = "Wait as long as Retry-After says, then send the same request again."
    transient = True


class BufferUnavailableError(OceanError):
    """The ingestion buffer cannot be written."""

    code = "OC-3002"
    hint = (
        "Nothing of this request was acknowledged: send it again later. "
        "`ocean status` says why; the box tries again by itself."
    )
    transient = True


class ConnectionsFullError(OceanError):
    """Too many connections are open."""

    code = "OC-3003"
    hint = "Close connections that are not used; server.connections_max sets the limit."
    transient = True


# 4: store


class DiskFullError(OceanError):
    """The disk is full."""

    code = "OC-4001"
    hint = "Free space on the data directory's disk; the box goes on by itself once there is room."
    transient = True


class StoreIOError(OceanError):
    """The disk refused a write."""

    code = "OC-4002"
    hint = "Check the SD card or disk (dmesg); the box reopens its files and tries again by itself."
    transient = True


class StoreCorruptError(OceanError):
    """A file in the data directory is damaged."""

    code = "OC-4003"
    hint = "The damaged file is kept beside its replacement; `ocean status` lists what is missing."


class StoreVersionError(OceanError):
    """A file was written by a newer version."""

    code = "OC-4004"
    hint = "Start the newer executable, or use another --data-dir."


class StoreBusyError(OceanError):
    """Too many changes are waiting for the disk."""

    code = "OC-4005"
    hint = "Nothing of this request was done: send it again after Retry-After seconds."
    transient = True


class StoreUnavailableError(OceanError):
    """The operational store cannot be used at the moment."""

    code = "OC-4006"
    hint = (
        "Readings are taken as before; accounts come back by themselves. `ocean status` says why."
    )
    transient = True


class ArchiveUnavailableError(OceanError):
    """The archive cannot be used at the moment."""

    code = "OC-4007"
    hint = "Readings are taken as before and stay in the journal. `ocean status` says why."
    transient = True


class WorkCancelledError(OceanError):
    """Long work was cancelled before it was done."""

    code = "OC-4008"
    hint = "Start it again: what can be resumed goes on where it stopped."


# 5: query


class QueryError(OceanError):
    """The query is not valid."""

    code = "OC-5001"
    hint = "Correct the named parameter."


class UnknownSensorError(OceanError):
    """The sensor is not known."""

    code = "OC-5002"
    hint = "GET /api/ocean/sensors lists the sensors that have sent something."


class MetricChoiceError(OceanError):
    """The sensor has several metrics and none was chosen."""

    code = "OC-5003"
    hint = "Add metric=NAME to the query."


class QueryTooLargeError(OceanError):
    """The query asks for too much at once."""

    code = "OC-5004"
    hint = "Choose a larger interval or a shorter range."


class QueryTimeoutError(OceanError):
    """The query took too long."""

    code = "OC-5005"
    hint = "Ask for a shorter range; analytics.query_timeout_s sets the limit."
    transient = True


class AnalyticsUnavailableError(OceanError):
    """Analytics are not available at the moment."""

    code = "OC-5006"
    hint = "Readings are still accepted. Ask again shortly; `ocean status` shows the progress."
    transient = True


class QueriesFullError(OceanError):
    """Too many queries are waiting."""

    code = "OC-5007"
    hint = "Ask again after Retry-After seconds."
    transient = True


# 6: request routing and access


class RouteError(OceanError):
    """There is nothing at this address."""

    code = "OC-6001"
    hint = (
        "GET /api/ocean/docs lists the addresses. "
        "A slash inside a sensor id is written %2F in an address."
    )


class MethodError(OceanError):
    """The method is not allowed at this address."""

    code = "OC-6002"
    hint = "The Allow header lists what is."


class RequestError(OceanError):
    """The request is not valid."""

    code = "OC-6003"
    hint = "GET /api/ocean/openapi.json describes every address and what it takes."


class OriginError(OceanError):
    """Requests from web pages of other sites are not taken."""

    code = "OC-6004"
    hint = (
        "Call the box from a program on this machine, under the name localhost or 127.0.0.1 "
        "(an SSH tunnel is fine), not from a page of another site."
    )


class UnauthenticatedError(OceanError):
    """No valid key was given."""

    code = "OC-6005"
    hint = (
        "Send Authorization: Bearer KEY; `ocean keys create` on the box makes one. "
        "A key may have expired or been revoked: `ocean keys list`."
    )


class ForbiddenError(OceanError):
    """The key does not allow this."""

    code = "OC-6006"
    hint = "Use a key with the scope or sensors named above; `ocean keys list` shows what each has."


class RateLimitError(OceanError):
    """Too much in too short a time."""

    code = "OC-6007"
    hint = (
        "Send the same request again after Retry-After seconds; larger batches need fewer requests."
    )
    transient = True


class CredentialsError(OceanError):
    """User or password is wrong."""

    code = "OC-6008"
    hint = "Check both; an administrator can set a new password."


class LoginBackoffError(OceanError):
    """Too many failed attempts."""

    code = "OC-6009"
    hint = "Wait as long as Retry-After says; each further failure doubles the wait."
    transient = True


class PasswordsBusyError(OceanError):
    """Too many passwords are being checked."""

    code = "OC-6010"
    hint = "Send the same request again after Retry-After seconds."
    transient = True


class PlainHttpError(OceanError):
    """Plain HTTP was sent to a port that speaks HTTPS."""

    code = "OC-6011"
    hint = "Begin the address with https:// and let the client know the box's certificate."


# 7: lifecycle


class AlreadyRunningError(OceanError):
    """Another Ocean Core uses this data directory."""

    code = "OC-7001"
    hint = "Stop the named process first, or use another --data-dir."


class DataDirError(OceanError):
    """The data directory cannot be used."""

    code = "OC-7002"
    hint = "Use a directory on a local disk that this user may write to: --data-dir DIR."


class PortError(OceanError):
    """The port cannot be opened."""

    code = "OC-7003"
    hint = "Use another one with --port, or stop the program that holds it (ss -ltnp)."


class NotRunningError(OceanError):
    """No Ocean Core answers."""

    code = "OC-7004"
    hint = "Start it with `ocean serve`, or name it: --url http://127.0.0.1:PORT or --data-dir DIR."


class CommandError(OceanError):
    """The command could not be carried out."""

    code = "OC-7005"


class StopTimeoutError(OceanError):
    """A process did not stop in time."""

    code = "OC-7006"
    hint = "It was ended; acknowledged readings are safe. The next start reports an unclean stop."


# 8: accounts


class UnknownUserError(OceanError):
    """There is no such user."""

    code = "OC-8001"
    hint = "GET /api/ocean/users lists the users."


class ConflictError(OceanError):
    """It exists already."""

    code = "OC-8002"
    hint = "Choose another value for the named field."


class UserDisabledError(OceanError):
    """The user is disabled."""

    code = "OC-8003"
    hint = 'PATCH /api/ocean/users/{id} with {"status": "active"} enables the user again.'


class CreditsError(OceanError):
    """There are not enough credits."""

    code = "OC-8004"
    hint = "POST /api/ocean/billing/{user_id}/add-credits adds some; nothing was stored or changed."


class UnknownRecordError(OceanError):
    """There is nothing stored under this name."""

    code = "OC-8005"
    hint = "The list at the address above it shows what is there."


class SessionError(OceanError):
    """The session token is not valid or has expired."""

    code = "OC-8006"
    hint = "Create a session with POST /api/ocean/sessions/create."


class RecordsFullError(OceanError):
    """No more of these can be stored."""

    code = "OC-8007"
    hint = "Delete what is not needed any more."


# 9: our own fault


class InternalError(OceanError):
    """Ocean Core met a fault of its own."""

    code = "OC-9001"
    hint = "Acknowledged readings are safe. Please report what the log says for this moment."


def all_error_classes() -> list[type[OceanError]]:
    """Return every concrete error class, ordered by code, for docs and tests."""
    found: list[type[OceanError]] = []
    todo = list(OceanError.__subclasses__())
    while todo:
        cls = todo.pop()
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return sorted(found, key=lambda cls: cls.code)
