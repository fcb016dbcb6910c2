"""Who sent a request, and whether a route lets them in."""

from __future__ import annotations

from typing import Any, Final, cast

from ocean_core.api.services import AnyRequest
from ocean_core.model.access import Origin, Principal, Scope
from ocean_core.model.errors import ForbiddenError, UnauthenticatedError

ORIGIN_KEY: Final = "ocean.origin"
"""Where the front leaves the Origin of a request in its ASGI scope."""

REFUSAL_KEY: Final = "ocean.refusal"
"""Where it leaves the error that whoever sent a key that is not valid is to get."""


def origin_of(request: AnyRequest) -> Origin:
    """Return who sent the request, and from where."""
    return cast("Origin", cast("dict[str, Any]", request.scope)[ORIGIN_KEY])


def principal_of(request: AnyRequest) -> Principal:
    """Return who sent the request."""
    return origin_of(request).principal


async def require_access(request: AnyRequest) -> None:
    """Refuse whoever may not use a route.

    Litestar's hook before each handler, and async: it copies the handler for every guard of a
    request, and would run a plain function on another thread.
    """
    access = request.route_handler.opt["access"]
    if access == "public" or request.method == "OPTIONS":
        return
    refusal = cast("dict[str, Any]", request.scope).get(REFUSAL_KEY)
    if refusal is not None:
        raise refusal
    principal = principal_of(request)
    if principal.kind == "nobody":
        raise UnauthenticatedError("this needs a key, and the request carries none")
    if access == "self":
        return
    if not principal.may(Scope(access)):
        held = ", ".join(sorted(principal.scopes)) or "none"
        raise ForbiddenError(f"this needs the scope {access}; {principal.told} has {held}")
