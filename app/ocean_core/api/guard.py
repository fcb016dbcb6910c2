"""Keeps web pages of other sites away from a box that trusts its own machine.

A browser on this machine would carry any page's requests to 127.0.0.1. Two things give such a
request away: it names another origin, or, if the page's own name was pointed at 127.0.0.1, it asks
for a host that is not this one. Programs send neither.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from ocean_core.api.services import AnyRequest
from ocean_core.model.errors import FieldProblem, OriginError

_UNCHANGING = frozenset({"GET", "HEAD", "OPTIONS"})


def refuse_foreign_pages(request: AnyRequest) -> None:
    """Raise OriginError for a request that a page of another site has sent."""
    headers = request.headers
    host = headers.get("host")
    if host and not is_own_host(host):
        raise _refusal("Host", host)
    if request.method in _UNCHANGING:
        return
    origin = headers.get("origin")
    if origin is not None and not is_own_host(urlsplit(origin).netloc):
        raise _refusal("Origin", origin)
    if headers.get("sec-fetch-site") == "cross-site":
        raise _refusal("Sec-Fetch-Site", "cross-site")


@lru_cache(maxsize=256)
def is_own_host(host: str) -> bool:
    """Return whether a name, with or without port, is an address literal or this machine's name.

    An address literal cannot have been pointed here by somebody else's name server.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if name and name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(header: str, found: str) -> OriginError:
    return OriginError(
        f"{header} is {found[:80]!r}",
        fields=(FieldProblem(header, found[:80], "this machine"),),
    )
