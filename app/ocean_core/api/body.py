"""Reads request bodies within limits of size, time and type."""

from __future__ import annotations

import asyncio

from ocean_core.api.services import AnyRequest
from ocean_core.config.settings import ServerSettings
from ocean_core.model.errors import (
    BodyTooLargeError,
    ContentTypeError,
    FieldProblem,
    RequestTimeoutError,
)

_JSON_TYPES = ("application/json", "text/json")


async def read_json_body(request: AnyRequest, settings: ServerSettings) -> bytes:
    """Return the body.

    Raises ContentTypeError, BodyTooLargeError or RequestTimeoutError; the rest of a body that is
    too large is not read.
    """
    check_json_type(request.headers.get("content-type"))
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ContentTypeError(
            f"Content-Encoding is {encoding[:40]!r}",
            hint="Send the body uncompressed.",
            fields=(FieldProblem("Content-Encoding", encoding[:40], "identity"),),
        )
    limit = settings.body_bytes_max
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(f"{declared} bytes", limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large("more", limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise RequestTimeoutError(
            f"{size} bytes came within {settings.request_timeout_s} s, then nothing more"
        ) from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_json_type(content_type: str | None) -> None:
    """Refuse bodies that say they are something else than JSON in UTF-8.

    A missing header is taken as JSON: small devices often send none. A form type is refused
    although curl -d sends it, because web pages of other sites can send it too.
    """
    if not content_type:
        return
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind not in _JSON_TYPES and not (kind.startswith("application/") and kind.endswith("+json")):
        hint = None
        if kind == "application/x-www-form-urlencoded":
            hint = "Add -H 'Content-Type: application/json' (curl -d alone says it is a form)."
        raise ContentTypeError(
            f"Content-Type is {kind!r}",
            hint=hint,
            fields=(FieldProblem("Content-Type", content_type[:80], "application/json"),),
        )
    charset = parameters.lower().partition("charset=")[2].split(";")[0].strip(' "')
    if charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise ContentTypeError(
            f"charset is {charset!r}",
            fields=(FieldProblem("Content-Type", content_type[:80], "charset=utf-8"),),
        )


def _too_large(found: str, limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body has {found}, the limit is {limit} bytes",
        fields=(FieldProblem("body", found, f"at most {limit} bytes"),),
    )
