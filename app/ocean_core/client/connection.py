"""Connections to one server: kept, shared by threads, bounded in number."""

from __future__ import annotations

import http.client
import ipaddress
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ocean_core.client.trust import SYSTEM_TRUST, Trust, context_of
from ocean_core.model.errors import CommandError

CONNECTIONS_MAX: Final = 8
_PORTS: Final = {"http": 80, "https": 443}
# What OpenSSL, old and new, calls an answer that is no TLS.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is, the key to show it (empty: none), and which certificate to take."""

    url: str
    key: str = ""
    trust: Trust = SYSTEM_TRUST


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An HTTP answer, names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class UnreachableError(Exception):
    """Nobody answers, and nothing was sent. Stays inside this package."""


class LostError(Exception):
    """The request was sent, and no answer came. Stays inside this package."""


class Connections:
    """What is open to one target. For any number of threads; a fork begins with none."""

    def __init__(self, target: Target) -> None:
        """Take over where the server is; connects when first used.

        Raises CommandError if the address or the certificate file cannot be used.
        """
        self.target = target
        parts = split_url(target.url)
        self._host = parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._tls = context_of(target.trust) if parts.scheme == "https" else None
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._pid = os.getpid()
        self._is_closed = False

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> RawAnswer:
        """Send one request and return its answer.

        Raises UnreachableError if it was certainly not sent, LostError if nobody knows what became
        of it, CommandError if the server's certificate is not to be trusted, or it speaks no TLS.
        """
        with self._connection(timeout_s) as connection:
            try:
                if connection.sock is None:
                    connection.connect()
            except ssl.SSLCertVerificationError as error:
                raise CommandError(
                    f"{self.target.url}: its certificate cannot be trusted: {error.verify_message}",
                    hint="Copy tls/cert.pem from the box and name it with --cacert (in Python: "
                    "cacert=); the address must be one that `ocean tls show` lists on the box.",
                ) from error
            except OSError as error:
                if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
                    raise self._is_plain() from error
                raise UnreachableError(f"{self.target.url}: {_told(error)}") from error
            connection.sock.settimeout(timeout_s)
            try:
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise LostError(f"{self.target.url}: {_told(error)}") from error
            names = {name.lower(): value for name, value in answer.getheaders()}
            return RawAnswer(answer.status, names, content)

    def _is_plain(self) -> CommandError:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return CommandError(
            f"{self.target.url}: this port speaks plain HTTP",
            hint=f"Use http://{host}:{self._port}, or the port of the box for other machines "
            "(8443, unless network.port says otherwise).",
        )

    def close(self) -> None:
        """Close what is not in use, and the rest when it comes back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _connection(self, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
        """Lend a connection; one on which something went wrong is not used again."""
        if self._pid != os.getpid():
            # The sockets belong to the process that was forked: two may not talk on one.
            self._pid, self._idle = os.getpid(), []
            self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
            self._lock = threading.Lock()
        slots = self._slots
        if not slots.acquire(timeout=timeout_s):
            raise UnreachableError(
                f"{self.target.url}: {CONNECTIONS_MAX} requests of this program are under way"
            )
        connection = self._take_idle() or self._make(timeout_s)
        is_kept = False
        try:
            yield connection
            if connection.sock is not None:
                with self._lock:
                    is_kept = not self._is_closed
                    if is_kept:
                        self._idle.append(connection)
        finally:
            if not is_kept:
                connection.close()
            slots.release()

    def _take_idle(self) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # What can be read between two requests is the end of the connection.
            if connection.sock is not None and not _is_readable(connection.sock):
                return connection
            connection.close()

    def _make(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def split_url(url: str) -> SplitResult:
    """Return the parts of a server's address. Raises CommandError if it is none."""
    try:
        parts = urlsplit(url)
        is_good = parts.port != 0
    except ValueError:
        parts, is_good = urlsplit(""), False
    if not is_good or parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
        raise CommandError(
            f"{url!r} is no address of a server",
            hint="Use the form http://127.0.0.1:8030 or https://gateway:8443.",
        )
    return parts


def is_loopback(url: str) -> bool:
    """Return whether an address is surely on this machine."""
    host = split_url(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
