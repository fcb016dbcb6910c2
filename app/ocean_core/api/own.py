"""What is for some only: users' own things, and the sensors of limited keys."""

from __future__ import annotations

from ocean_core.model.access import Principal, Scope
from ocean_core.model.errors import ForbiddenError


def check_own(principal: Principal, user_id: str) -> None:
    """Raise ForbiddenError unless this is a session of the user, or may do everything.

    Whether there is such a user at all makes no difference.
    """
    if principal.may(Scope.ADMIN):
        return
    if principal.kind != "session" or principal.user_id != user_id:
        raise ForbiddenError(
            f"this is for the user's own sessions and the scope admin; {principal.actor} is neither"
        )


def check_touch(principal: Principal, given: str, present: str) -> None:
    """Raise ForbiddenError unless a key may touch a sensor by the name asked for and today's name.

    Otherwise the old name of a sensor would be a way to one that the key is not for.
    """
    if not principal.may_touch(given):
        raise ForbiddenError(
            f"{principal.told} is for sensors like {principal.sensors!r}, not for {given!r}"
        )
    if not principal.may_touch(present):
        raise ForbiddenError(
            f"{principal.told} is for sensors like {principal.sensors!r}; "
            f"{given!r} is called {present!r} now"
        )
