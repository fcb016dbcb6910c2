"""Heads of requests that bring readings: read strictly once, and remembered.

A sensor sends the same head again and again. Each distinct head goes through the parser that all
other requests go through; only what that accepts, as one head and nothing else, and what asks for
nothing special, is taken by the fast path. There is no parser of our own that could understand a
request otherwise than the rest of the server does. Everything not taken here is left to uvicorn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import httptools
import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import ContentTypeError
from ocean_core.protocol.media import READINGS, SINGLES, Encoding, Media, encoding_of, media_of
from ocean_core.service.guard import tells_of_a_proxy
from ocean_core.service.ingest import Sent

END: Final = b"\r\n\r\n"
REMEMBERED_MAX: Final = 512
REMEMBERED_BYTES_MAX: Final = 2048
SMALL_BYTES_MAX: Final = 1024
"""The least that ``server.body_bytes_max`` may be set to."""

_LENGTH: Final = re.compile(rb"[0-9]{1,10}")
# Others may be in order too, or not: Litestar has an opinion on that.
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]*")
_KEEP_ALIVE: Final = b"keep-alive"
# Each changes what a request means beyond what the fast path knows.
_LEFT_ALONE: Final = frozenset(
    {
        b"expect",
        b"http2-settings",
        b"origin",
        b"sec-fetch-site",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_ONCE: Final = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
    }
)


class Form(StrEnum):
    """What a request wants."""

    SINGLE = "ingest"
    BATCH = "batch"
    PARTIAL = "batch-partial"


_INGEST: Final = b"/api/ocean/telemetry/ingest"
_BATCH: Final = b"/api/ocean/telemetry/batch"
_FORMS: Final = {
    _INGEST: Form.SINGLE,
    _BATCH: Form.BATCH,
    _BATCH + b"?partial=false": Form.BATCH,
    _BATCH + b"?partial=true": Form.PARTIAL,
}


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a head says. ``length`` is that of the body, at least 1.

    ``is_plain``: one JSON item, neither compressed nor marked for retries. ``is_small``: its body
    does not count against the memory that all share, and is below every limit.
    """

    form: Form
    length: int
    sent: Sent
    authorization: bytes | None
    is_plain: bool
    is_small: bool


class HeadReader:
    """Reads heads of one listener."""

    def __init__(self, is_own_host: Callable[[str], bool] | None) -> None:
        """Take heads that name a host of this box only; None: the name does not matter."""
        self._is_own_host = is_own_host
        self.known: dict[bytes, Head] = {}
        """What was read before; whoever is in a hurry looks here first."""

    def read(self, block: bytes) -> Head | None:
        """Return what a head says that ends with an empty line, None if uvicorn is to look at it."""
        head = self.known.get(block)
        if head is None:
            head = self._read(block)
            if head is not None and _is_worth_keeping(head, block):
                if len(self.known) >= REMEMBERED_MAX:
                    self.known.clear()
                self.known[block] = head
        return head

    def _read(self, block: bytes) -> Head | None:
        # How large a head may be is for the other protocol to say.
        seen = _parsed(block) if len(block) <= limits.HEADER_BYTES_MAX else None
        if seen is None or len(seen.headers) > limits.HEADERS_MAX:
            return None
        form = _FORMS.get(seen.url)
        fields = seen.fields()
        if form is None or fields is None:
            return None
        length = fields.get(b"content-length", b"")
        if not _LENGTH.fullmatch(length) or not int(length):
            return None
        if fields.get(b"connection", _KEEP_ALIVE).lower() != _KEEP_ALIVE:
            return None
        if not self._is_for_us(_text(fields.get(b"host"))):
            return None
        try:
            sent = _sent(form, fields)
        except ContentTypeError:
            return None
        return Head(
            form=form,
            length=int(length),
            sent=sent,
            authorization=fields.get(b"authorization"),
            is_plain=form is Form.SINGLE
            and sent.media is Media.JSON
            and sent.encoding is Encoding.IDENTITY
            and sent.idempotency_key is None,
            is_small=int(length) <= SMALL_BYTES_MAX,
        )

    def _is_for_us(self, host: str | None) -> bool:
        if host is None:
            return True
        if not _HOST.fullmatch(host):
            return False
        return self._is_own_host is None or self._is_own_host(host)


def _is_worth_keeping(head: Head, block: bytes) -> bool:
    # A retry marker is different each time.
    return head.sent.idempotency_key is None and len(block) <= REMEMBERED_BYTES_MAX


def _sent(form: Form, fields: dict[bytes, bytes]) -> Sent:
    """Return what the head says of the body. Raises ContentTypeError."""
    allowed: frozenset[Media] = SINGLES if form is Form.SINGLE else READINGS
    return Sent(
        media=media_of(_text(fields.get(b"content-type")), allowed),
        encoding=encoding_of(_text(fields.get(b"content-encoding"))),
        idempotency_key=_text(fields.get(b"idempotency-key")),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


class _Seen:
    """What the parser tells of one head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.is_more = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # A second head in what is to be one is as bad as a body.
        self.is_more |= self.is_complete
        self.is_complete = True

    def on_body(self, _body: bytes) -> None:
        self.is_more = True

    def on_message_complete(self) -> None:
        self.is_more = True

    def fields(self) -> dict[bytes, bytes] | None:
        """Return the headers that matter by name, None if one of them is for uvicorn."""
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _LEFT_ALONE or tells_of_a_proxy(name):
                return None
            if name in _ONCE:
                if name in found:
                    return None
                found[name] = value
        return found


def _parsed(block: bytes) -> _Seen | None:
    """Return a head as the parser sees it, None unless it is one whole head of a POST and no more.

    A body is announced, so that with the head alone the parser must neither have seen a part of it
    nor the end of the request.
    """
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(block)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not seen.is_complete or seen.is_more:
        return None
    if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
        return None
    if parser.should_upgrade() or not parser.should_keep_alive():
        return None
    return seen
