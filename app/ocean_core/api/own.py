"""What belongs to a user is for that user's sessions, and for administrators."""

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
