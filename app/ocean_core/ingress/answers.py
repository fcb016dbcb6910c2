"""Whole HTTP answers as bytes, the same that uvicorn, the front and Litestar write together."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

import msgspec

from ocean_core.model.errors import OceanError
from ocean_core.service.problems import PROBLEM_TYPE, headers_of, problem_of

_SAFETY: Final = (
    b"\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer"
    b"\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'\r\n"
)
_CLOSE: Final = b"connection: close\r\n"


class Dated(Protocol):
    """Who keeps the headers that all answers begin with: the date, renewed each second."""

    default_headers: list[tuple[bytes, bytes]]


class ProblemAnswer(NamedTuple):
    """The answer to a request that is refused; ``closes``: the connection ends with it."""

    status: int
    content: bytes
    closes: bool


class Answers:
    """Writes answers; keeps what does not change from one to the next."""

    def __init__(self, dated: Dated) -> None:
        self._dated = dated
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._date = b""
        self._good = b""

    def good(self, body: bytes, *, closes: bool) -> bytes:
        """Return the answer 200 with a body that is JSON."""
        if self._dated.default_headers is not self._headers:
            self._renew()
        ending = _CLOSE if closes else b""
        return b"%b%d%b%b\r\n%b" % (self._good, len(body), _SAFETY, ending, body)

    def problem(self, error: OceanError, *, closes: bool) -> ProblemAnswer:
        """Return the answer for an error."""
        if self._dated.default_headers is not self._headers:
            self._renew()
        problem = problem_of(error)
        body = msgspec.json.encode(problem)
        more = headers_of(error)
        status = HTTPStatus(problem.status)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}".encode(),
            *([self._date] if self._date else []),
            *(f"{name.lower()}: {value}".encode() for name, value in more.items()),
            b"content-type: " + PROBLEM_TYPE.encode(),
            b"content-length: %d" % len(body),
        ]
        says_so = "Connection" in more
        ending = _CLOSE if closes and not says_so else b""
        content = b"\r\n".join(lines) + _SAFETY + ending + b"\r\n" + body
        return ProblemAnswer(problem.status, content, closes or says_so)

    def _renew(self) -> None:
        self._headers = self._dated.default_headers
        self._date = b"\r\n".join(name + b": " + value for name, value in self._headers)
        dated = self._date + b"\r\n" if self._date else b""
        self._good = (
            b"HTTP/1.1 200 OK\r\n"
            + dated
            + b"content-type: application/json\r\ncache-control: no-store\r\ncontent-length: "
        )
