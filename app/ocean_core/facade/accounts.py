"""Users, their accounts and their sessions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from msgspec import UNSET, UnsetType

from ocean_core.facade.base import API, LISTED, Json, Part, given, segment
from ocean_core.model.errors import UnknownUserError

Status = Literal["active", "disabled"]


class Users(Part):
    """Users are never deleted, only disabled: what the ledger says stays explained.

    ``user_id`` is the ``id`` of a user, not the name: names may change.
    """

    def create_user(
        self,
        username: str,
        email: str,
        *,
        password: str | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Make a user with an account; return it, its new ``id`` included.

        ``password`` has at least 8 letters; without one the user cannot log in. Raises
        ConflictError naming the field that somebody else has, InvalidInputError.
        """
        body = given(username=username, email=email, password=password)
        key = idempotency_key or self._fresh_key()
        return dict(self._post("/users", body, idempotency_key=key))

    def get_user(self, user_id: str) -> Json:
        """Return id, username, email, status, created_at, updated_at. Raises UnknownUserError."""
        with _by_id(user_id):
            return dict(self._get(f"/users/{segment(user_id)}"))

    def list_users(self, *, status: Status | None = None, limit: int = LISTED) -> list[Json]:
        """Return users in the order of their creation, at most ``limit``."""
        return self._list("/users", "users", limit, {"status": status})

    def update_user(
        self,
        user_id: str,
        *,
        username: str | UnsetType = UNSET,
        email: str | UnsetType = UNSET,
        password: str | UnsetType | None = UNSET,
        status: Status | UnsetType = UNSET,
    ) -> Json:
        """Change what is given and return the user; a password of None removes it.

        A new password, and ``status="disabled"``, end all sessions of the user. Raises
        UnknownUserError, ConflictError, InvalidInputError.
        """
        fields = {"username": username, "email": email, "password": password, "status": status}
        change = {name: value for name, value in fields.items() if value is not UNSET}
        with _by_id(user_id):
            return dict(self._api.call("PATCH", f"{API}/users/{segment(user_id)}", body=change))

    def disable_user(self, user_id: str) -> Json:
        """Disable a user: no login, no session, no charge. ``update_user`` enables again."""
        return self.update_user(user_id, status="disabled")

    # --- billing

    def get_billing(self, user_id: str) -> Json:
        """Return id, user_id, plan, credits, usage (readings stored), created_at.

        Raises UnknownUserError.
        """
        with _by_id(user_id):
            return dict(self._get(f"/billing/{segment(user_id)}"))

    def add_credits(
        self, user_id: str, amount: int, *, note: str = "", idempotency_key: str | None = None
    ) -> Json:
        """Give credits (or take some: ``amount`` below 0); return ``user_id`` and ``credits``.

        Done exactly once, also when the connection is lost meanwhile; with an ``idempotency_key``
        of your own also across restarts of your program. Raises UnknownUserError, CreditsError if
        more are taken than there are.
        """
        body = {"amount": amount, **({"note": note} if note else {})}
        key = idempotency_key or self._fresh_key()
        path = f"/billing/{segment(user_id)}/add-credits"
        with _by_id(user_id):
            return dict(self._post(path, body, idempotency_key=key))

    def billing_ledger(self, user_id: str, *, limit: int = LISTED) -> list[Json]:
        """Return changes of a user's credits, newest first: kind, amount, credits, note, actor.

        Raises UnknownUserError.
        """
        with _by_id(user_id):
            return self._list(f"/billing/{segment(user_id)}/ledger", "entries", limit)


class Sessions(Part):
    """Logged-in users."""

    def create_session(
        self,
        user_id: str | None = None,
        username: str | None = None,
        *,
        email: str | None = None,
        password: str | None = None,
    ) -> Json:
        """Log a user in; return ``session_id``, ``token`` (shown here only) and ``expires_at``.

        What is given of ``user_id``, ``username`` and ``email`` must belong to one user. The owner
        of the box and admin keys need no ``password``. Raises CredentialsError, LoginBackoffError
        with ``retry_after_s`` after too many failures, UserDisabledError, UnknownUserError.
        """
        body = given(user_id=user_id, username=username, password=password, email=email)
        return dict(self._post("/sessions/create", body))

    def validate_session(self, token: str) -> Json:
        """Return the session of a token, and note that it is in use.

        Raises SessionError if it is not valid or has expired.
        """
        answer = self._post("/sessions/validate", {"token": token}, repeatable=True)
        return dict(answer["session"])

    def revoke_session(self, token: str | None = None, *, session_id: str | None = None) -> None:
        """End a session, by its token or by its id.

        Raises SessionError for a token that is not valid (any more), UnknownRecordError for an id.
        """
        if session_id is not None:
            self._api.call("DELETE", f"{API}/sessions/{segment(session_id)}")
        else:
            self._post("/sessions/revoke", {"token": token}, repeatable=True)

    def list_sessions(self, *, user_id: str | None = None, limit: int = LISTED) -> list[Json]:
        """Return sessions that are alive, without their tokens."""
        return self._list("/sessions", "sessions", limit, {"user_id": user_id})


@contextmanager
def _by_id(user_id: str) -> Iterator[None]:
    """Say of an unknown user that an id was wanted, if it is none."""
    try:
        yield
    except UnknownUserError as error:
        try:
            uuid.UUID(user_id)
        except ValueError:
            error.hint = f"{user_id!r} is no id: list_users() shows ids and names of users."
        raise
