"""The sockets of the HTTP server: one for this machine, one for the network."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocean_core import __version__
from ocean_core.config.checks import check_listeners, is_loopback
from ocean_core.config.settings import Settings
from ocean_core.model.access import ListenerInfo
from ocean_core.model.errors import PortError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.runtime.addresses import own_addresses
from ocean_core.runtime.lock import RunInfo
from ocean_core.runtime.tls import ServerTls, find_files
from ocean_core.service.alarms import AlarmBook

LOCAL: Final = "local"
NETWORK: Final = "network"


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, not yet listening, and how to treat who connects."""

    socket: socket.socket
    info: ListenerInfo
    tls: ServerTls | None = None

    @property
    def url(self) -> str:
        """The address as bound: 0.0.0.0 stands for all of this machine."""
        return self._url(self._host())

    @property
    def local_url(self) -> str:
        """The address that a client on this machine uses."""
        return self._url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host(), self._host()))

    @property
    def outside_url(self) -> str:
        """An address that other machines can use, as far as one is known."""
        host = self._host()
        if host in {"0.0.0.0", "::"}:
            host = next(iter(own_addresses()), host)
        return self._url(host)

    def _host(self) -> str:
        return str(self.socket.getsockname()[0])

    def _url(self, host: str) -> str:
        scheme = "http" if self.tls is None else "https"
        port = self.socket.getsockname()[1]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def prepare_tls(settings: Settings, clock: Clock, log: EventLog) -> ServerTls | None:
    """Check where to listen; return the certificate if other machines are to be served with TLS.

    Changes nothing. Raises ListenAddressError or TlsError.
    """
    files = None
    if settings.network.host or not _is_surely_loopback(settings.server.host):
        files = find_files(settings.network, Path(settings.data.dir).expanduser().absolute())
    check_listeners(settings, has_certificate=files is not None)
    return None if files is None else ServerTls(files, clock, log)


def bind_listeners(settings: Settings, tls: ServerTls | None) -> list[Listener]:
    """Bind the sockets, the one that `ocean` commands use first.

    Raises PortError naming setting and address that cannot be had.
    """
    server, network = settings.server, settings.network
    is_local = is_loopback(server.host)
    first = Listener(
        bind("server.port", server.host, server.port),
        ListenerInfo(LOCAL if is_local else NETWORK, trusted=is_local),
        None if is_local else tls,
    )
    if not network.host:
        return [first]
    try:
        second = Listener(
            bind("network.port", network.host, network.port),
            ListenerInfo(NETWORK, trusted=False),
            tls,
        )
    except BaseException:
        first.socket.close()
        raise
    return [first, second]


def startup_lines(
    listeners: Sequence[Listener], *, trust_loopback: bool, frames_exposed: bool = False
) -> list[str]:
    """Return for people who can reach the box, and what they need.

    ``frames_exposed``: other machines can reach the listeners for frames.
    """
    lines = []
    for listener in listeners:
        if listener.info.trusted:
            lines.append(
                "open to every program on this machine"
                if trust_loopback
                else "programs on this machine need a key, too"
            )
            continue
        where = listener.url
        if listener.outside_url != where:
            where += f" (for example {listener.outside_url})"
        lines.append(f"{where} for other machines: every request needs a key")
        if listener.tls is None:
            lines.append("WARNING: without TLS; keys and readings cross the network in the clear")
    if not any(not listener.info.trusted for listener in listeners):
        lines[-1] += (
            "; HTTP is closed to the network" if frames_exposed else "; closed to the network"
        )
    return lines


def run_info(
    listeners: Sequence[Listener],
    data_dir: str,
    started: str,
    frames_tcp: str = "",
    frames_udp: str = "",
) -> RunInfo:
    """Return what run.json is to say of this process."""
    first = listeners[0]
    return RunInfo(
        pid=os.getpid(),
        url=first.local_url,
        version=__version__,
        started=started,
        data_dir=data_dir,
        network_url="".join(listener.local_url for listener in listeners[1:]),
        cert="" if first.tls is None else str(first.tls.files.cert),
        frames_tcp=frames_tcp,
        frames_udp=frames_udp,
    )


async def look_after(listeners: Sequence[Listener], alarms: AlarmBook) -> None:
    """Take over a certificate that changed; raise and clear the alarms about listeners."""
    plain = [item.url for item in listeners if not item.info.trusted and item.tls is None]
    alarms.set_alarm("network.plain", active=bool(plain), detail=", ".join(plain))
    tls = next((listener.tls for listener in listeners if listener.tls is not None), None)
    if tls is not None:
        await asyncio.to_thread(tls.reload_if_changed)
        problem = tls.problem()
        alarms.set_alarm("tls.expiring", active=bool(problem), detail=problem)


def _is_surely_loopback(host: str) -> bool:
    try:
        return is_loopback(host)
    except ValueError:
        # What is wrong with it is told by the check that follows.
        return True


def bind(
    setting: str, host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """Return a bound socket. Raises PortError naming ``setting``, that of the port, and the address."""
    if host == "localhost":
        host = "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        raise _port_error(setting, where, error) from error
    try:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            # All addresses means those of IPv4, too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _port_error(setting, where, error) from error
    sock.set_inheritable(False)
    return sock


_FLAGS: Final = {"server.port": "--port", "network.port": "--network-port"}


def _port_error(setting: str, where: str, error: OSError) -> PortError:
    section = setting.partition(".")[0]
    flag = _FLAGS.get(setting, setting)
    hints = {
        errno.EADDRINUSE: f"Use another port with {flag}, or stop the program that holds it (ss -ltnp).",
        errno.EADDRNOTAVAIL: f"Set {section}.host to an address of this machine (ip -brief address).",
        errno.EACCES: f"Ports below 1024 need a permission; use a higher one with {flag}.",
    }
    return PortError(
        f"{section}.host and {setting}: {where}: {error.strerror or error}",
        hint=hints.get(error.errno or 0),
    )
