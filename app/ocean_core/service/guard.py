"""Keeps web pages of other sites away from a box that trusts its own machine.

A browser on this machine would carry any page's requests to 127.0.0.1. Two things give such a
request away: it names another origin, or, if the page's own name was pointed at 127.0.0.1, it asks
for a host that is not this one. Programs send neither. Where a key is demanded, the name asked for
does not matter: no page of another site can add the key.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from ocean_core.model.errors import FieldProblem, OriginError

_UNCHANGING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEMBERED_MAX: Final = 256
_FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-forwarded",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-real-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"true-client-ip",
        b"wl-proxy-client-ip",
    }
)


def tells_of_a_proxy(header: bytes) -> bool:
    """Return whether a proxy adds this header: whoever asks through one is not this machine."""
    return header in _FORWARDING or header.startswith(b"x-forwarded-")


class HostNames:
    """The names under which this box may be asked."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """Know the machine's names, and ``allowed`` ones beside them."""
        machine = socket.gethostname().lower().rstrip(".")
        short = machine.partition(".")[0]
        # How a machine is found without a name server (multicast DNS).
        names = {"localhost", machine, short, f"{short}.local"}
        names.update(_name_of(host) for host in allowed)
        self._names = frozenset(names - {""})
        self._known: dict[str, bool] = {}

    def is_own(self, host: str) -> bool:
        """Return whether a name, with or without port, stands for this box.

        An address literal cannot have been pointed here by somebody else's name server.
        """
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            known = self._known[host] = self._looks_own(_name_of(host))
        return known

    def _looks_own(self, name: str) -> bool:
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def check(
        self, method: str, *, host: str | None, origin: str | None, fetch_site: str | None,
        any_host: bool,
    ) -> None:  # fmt: skip
        """Raise OriginError for a request that a page of another site has sent.

        ``any_host``: the name asked for does not matter, because a key is demanded anyway.
        """
        if host is not None and not any_host and not self.is_own(host):
            raise _refusal("Host", host)
        if method in _UNCHANGING:
            return
        if origin is not None and not self._is_same(origin, host):
            raise _refusal("Origin", origin)
        if fetch_site == "cross-site":
            raise _refusal("Sec-Fetch-Site", "cross-site")

    def _is_same(self, origin: str, host: str | None) -> bool:
        try:
            place = urlsplit(origin).netloc
        except ValueError:
            return False
        if not place:
            return False
        if place == host:
            return True
        try:
            # Anybody can serve a page from an address: only this machine's own count here.
            return ipaddress.ip_address(_name_of(place)).is_loopback
        except ValueError:
            return self.is_own(place)


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _refusal(header: str, found: str) -> OriginError:
    return OriginError(
        f"{header} is {found[:80]!r}",
        fields=(FieldProblem(header, found[:80], "this machine"),),
    )
