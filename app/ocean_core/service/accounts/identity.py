"""Which user is meant by an id, a username, an email address, or several of them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ocean_core.model.errors import FieldProblem
from ocean_core.service.accounts.checks import refused
from ocean_core.service.accounts.names import find_key
from ocean_core.service.accounts.session_answers import NewSession
from ocean_core.storage.operational import users
from ocean_core.storage.operational.users import UserRow

_ACCOUNT_LETTERS_MAX: Final = 256


class Wanted(msgspec.Struct, frozen=True):
    """A user by id or by the keys of the names; what is given must agree."""

    user_id: str | None = None
    username: str | None = None
    username_key: str | None = None
    email: str | None = None
    email_key: str | None = None

    def text(self) -> str:
        """Return what stands for this user if there is no such user."""
        first = self.user_id or self.username_key or self.username or self.email_key or self.email
        return f"?{first}"[:_ACCOUNT_LETTERS_MAX]


def wanted_user(new: NewSession) -> Wanted:
    """Return who is meant. Raises InvalidInputError if nothing is given."""
    if new.user_id is None and new.username is None and new.email is None:
        raise refused(FieldProblem("user_id", "nothing", "user_id, username or email"))
    return Wanted(
        new.user_id,
        new.username,
        None if new.username is None else find_key(new.username, is_email=False),
        new.email,
        None if new.email is None else find_key(new.email, is_email=True),
    )


def first_found(wanted: Wanted, db: Any) -> UserRow | None:  # noqa: ANN401 - the store's connection
    """Return the user of the first thing that is given, None if there is none."""
    if wanted.user_id is not None:
        return users.find(db, wanted.user_id)
    if wanted.username is not None:
        key = wanted.username_key
        return None if key is None else users.find_by_username(db, key)
    key = wanted.email_key
    return None if key is None else users.find_by_email(db, key)


def disagreement(wanted: Wanted, user: UserRow) -> FieldProblem | None:
    """Return which of the things given belongs to another user, None if none does."""
    if wanted.username is not None and wanted.username_key != user.username_key:
        return FieldProblem("username", wanted.username[:80], "the username of this user")
    if wanted.email is not None and wanted.email_key != user.email_key:
        return FieldProblem("email", wanted.email[:80], "the email address of this user")
    return None


def find_agreeing(wanted: Wanted, db: Any) -> UserRow | None:  # noqa: ANN401 - the store's connection
    """Return the user to whom all that is given belongs, None if there is none."""
    user = first_found(wanted, db)
    return None if user is None or disagreement(wanted, user) is not None else user
