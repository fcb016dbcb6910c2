"""`ocean users`: people and programs with an account."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Final, Literal

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import json_option, print_list, print_record
from ocean_core.facade import DataEngine
from ocean_core.model.errors import CommandError, UnknownUserError

LISTED: Final = 1_000
_SEARCHED_MAX: Final = 1_000_000


@click.group("users")
def users_group() -> None:
    """Make, list and disable users."""


@users_group.command("create")
@click.argument("username")
@click.argument("email")
@click.option("--password", "asks", is_flag=True, help="Ask for a password.")
@click.option(
    "--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the password.",
)  # fmt: skip
@connection_options
@json_option
def create_command(
    *,
    username: str,
    email: str,
    asks: bool,
    password_file: Path | None,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Make a user. Without a password only the owner of the box can open sessions for it."""
    if asks and password_file is not None:
        raise click.UsageError("--password and --password-file are both given")
    password = None
    if asks:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    elif password_file is not None:
        password = _first_line(password_file)
    with opened(connection, may_make=True) as engine:
        user = engine.create_user(username, email, password=password)
    print_record(user, as_json=as_json)


@users_group.command("list")
@click.option("--status", type=click.Choice(["active", "disabled"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@connection_options
@json_option
def list_command(
    *,
    status: Literal["active", "disabled"] | None,
    limit: int,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """List users in the order of their creation."""
    with opened(connection) as engine:
        users = engine.list_users(status=status, limit=limit)
    print_list(
        users,
        {
            "ID": lambda user: user["id"],
            "USERNAME": lambda user: user["username"],
            "EMAIL": lambda user: user["email"],
            "STATUS": lambda user: user["status"],
        },
        empty="There are no users.",
        as_json=as_json,
    )


@users_group.command("show")
@click.argument("user", metavar="ID|USERNAME")
@connection_options
@json_option
def show_command(*, user: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Show a user and the account."""
    with opened(connection) as engine:
        found = _find(engine, user)
        account = engine.get_billing(found["id"])
    print_record(
        {**found, **{name: account[name] for name in ("plan", "credits", "usage")}},
        as_json=as_json,
    )


@users_group.command("disable")
@click.argument("user", metavar="ID|USERNAME")
@connection_options
@json_option
def disable_command(*, user: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Disable a user and end all sessions; the account stays."""
    with opened(connection) as engine:
        changed = engine.disable_user(_find(engine, user)["id"])
    print_record(changed, as_json=as_json)


def _find(engine: DataEngine, wanted: str) -> dict[str, Any]:
    """Return a user by id, or by the exact name or email address."""
    try:
        return engine.get_user(str(uuid.UUID(wanted)))
    except ValueError:
        pass
    for user in engine.list_users(limit=_SEARCHED_MAX):
        if wanted in (user["username"], user["email"]):
            return user
    raise UnknownUserError(
        f"there is no user {wanted!r}", hint="`ocean users list` shows ids, names and addresses."
    )


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: cannot be read: {error}") from error
