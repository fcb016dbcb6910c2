"""Requests that offer another protocol, answered in this one.

Some clients (Java's for one) offer HTTP/2 with the first request of each plain connection. A server
may ignore that (RFC 9110, section 7.8), but the parser takes what follows such a header for another
protocol, and the body would be lost. So the request is parsed once more, without the offer.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

_OFFER: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})


class UpgradeIgnoringParser:
    """The parser of one connection, as uvicorn uses it.

    ``protocol`` must not act on a message while ``is_offered`` is true.
    """

    def __init__(self, protocol: Any) -> None:  # noqa: ANN401 - whatever gets the callbacks
        self._protocol = protocol
        self._parser = self._new()

    def _new(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self._protocol)
        # As uvicorn sets it: what comes after "Connection: close" is ignored, not an error.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    @property
    def is_offered(self) -> bool:
        """Whether the message being parsed offers another protocol."""
        return bool(self._parser.should_upgrade())

    def feed_data(self, data: bytes | memoryview) -> None:
        """Parse. Raises httptools.HttpParserError."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                if self._parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserInvalidMethodError("no tunnels here") from error
                data = data[error.args[0] :]
                head = self._without_offer()
                self._parser = self._new()
                self._parser.feed_data(head)
            else:
                return

    def _without_offer(self) -> bytes:
        """Return the head of the request that was parsed last, without its offer."""
        protocol, method = self._protocol, self._parser.get_method()
        version = self._parser.get_http_version().encode()
        lines = [method + b" " + protocol.url + b" HTTP/" + version]
        for name, value in protocol.headers:
            if name not in _OFFER:
                lines.append(name + b": " + value)
            elif name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def get_method(self) -> bytes:
        """Return the method of the message being parsed."""
        return bytes(self._parser.get_method())

    def get_http_version(self) -> str:
        """Return its version."""
        return str(self._parser.get_http_version())

    def should_keep_alive(self) -> bool:
        """Whether the connection is to stay open after it."""
        return bool(self._parser.should_keep_alive())

    def should_upgrade(self) -> bool:
        """Return False: no offer is taken up."""
        return False
