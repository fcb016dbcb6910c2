"""`ocean users`: people and programs with an account."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Final, Literal

import click

from ocean_core.cli.asking import asked_password, first_line, password_file_option
from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import (
    counted,
    json_option,
    moment,
    print_json,
    print_list,
    print_record,
)
from ocean_core.facade import DataEngine
from ocean_core.model.errors import UnknownUserError

LISTED: Final = 1_000
_SEARCHED_MAX: Final = 1_000_000
_SUSPENDED: Final = "user disabled"
"""The status of a key whose user is disabled."""

user_argument: Final = click.argument("user", metavar="ID|USERNAME")


@click.group("users")
def users_group() -> None:
    """Make, list and disable users; their passwords and credits."""


@users_group.command(
    "create",
    epilog=examples(
        "ocean users create ada ada@plant.example --password",
        "ocean users create loader loader@plant.example --password-file /run/secrets/loader",
    ),
)
@click.argument("username")
@click.argument("email")
@click.option("--password", "asks", is_flag=True, help="Ask for a password.")
@password_file_option
@json_option
@connection_options
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
        password = asked_password()
    elif password_file is not None:
        password = first_line(password_file)
    with opened(connection, may_make=True) as engine:
        user = engine.create_user(username, email, password=password)
    print_record(user, as_json=as_json)


@users_group.command("list")
@click.option("--status", type=click.Choice(["active", "disabled"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@json_option
@connection_options
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
@user_argument
@json_option
@connection_options
def show_command(*, user: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Show a user and the account."""
    with opened(connection) as engine:
        found = find_user(engine, user)
        account = engine.get_billing(found["id"])
    print_record(
        {**found, **{name: account[name] for name in ("plan", "credits", "usage")}},
        as_json=as_json,
    )


@users_group.command("disable")
@user_argument
@json_option
@connection_options
def disable_command(*, user: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Disable a user: all sessions end, keys of the user are suspended; the account stays."""
    with opened(connection) as engine:
        before = find_user(engine, user)
        is_new = before["status"] == "active"
        changed = engine.disable_user(before["id"]) if is_new else before
        if as_json:
            print_json(changed)
            return
        name = before["username"]
        if not is_new:
            click.echo(f"{name} is disabled already; nothing was changed")
            return
        click.echo(f"{name} is disabled; {_ended(engine, 'users.disable', before['id'])}")
        keys = [
            key["name"] for key in _keys_of(engine, before["id"]) if key["status"] == _SUSPENDED
        ]
    if keys:
        click.echo(
            f"{counted(len(keys), 'key')} suspended until `ocean users enable {name}`: "
            f"{', '.join(keys)}"
        )


@users_group.command("enable")
@user_argument
@json_option
@connection_options
def enable_command(*, user: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Enable a disabled user again; keys of the user work again, sessions have to be new."""
    with opened(connection) as engine:
        before = find_user(engine, user)
        is_new = before["status"] != "active"
        changed = engine.update_user(before["id"], status="active") if is_new else before
        if as_json:
            print_json(changed)
            return
        name = before["username"]
        if not is_new:
            click.echo(f"{name} is active already; nothing was changed")
            return
        keys = [key["name"] for key in _keys_of(engine, before["id"]) if key["status"] == "active"]
    told = f"; what works again, too: {counted(len(keys), 'key')} ({', '.join(keys)})"
    click.echo(f"{name} is active again{told if keys else ''}")


@users_group.command("passwd")
@user_argument
@password_file_option
@json_option
@connection_options
def passwd_command(
    *, user: str, password_file: Path | None, connection: ConnectionOptions, as_json: bool
) -> None:
    """Give a user another password, asked for twice; all sessions of the user end."""
    # Before anything is asked over the network: without a terminal nothing comes of it.
    password = asked_password() if password_file is None else first_line(password_file)
    with opened(connection) as engine:
        found = find_user(engine, user)
        changed = engine.update_user(found["id"], password=password)
        if as_json:
            print_json(changed)
            return
        ended = _ended(engine, "users.update", found["id"])
    click.echo(f"{found['username']} has a new password; {ended}")


@users_group.command(
    "credits",
    # So that an amount below 0 is none of an unknown option.
    context_settings={"ignore_unknown_options": True},
    epilog=examples("ocean users credits ada 10000 --note January", "ocean users credits ada -500"),
)
@user_argument
@click.argument("amount", type=int)
@click.option("--note", default="", help="Why; kept in the ledger.")
@json_option
@connection_options
def credits_command(
    *, user: str, amount: int, note: str, connection: ConnectionOptions, as_json: bool
) -> None:
    """Give a user credits, or take some with an amount below 0."""
    with opened(connection) as engine:
        found = find_user(engine, user)
        answer = engine.add_credits(found["id"], amount, note=note)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{found['username']} has {counted(answer['credits'], 'credit')} now")


@users_group.command("ledger")
@user_argument
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@json_option
@connection_options
def ledger_command(*, user: str, limit: int, connection: ConnectionOptions, as_json: bool) -> None:
    """List how a user's credits changed, newest first."""
    with opened(connection) as engine:
        found = find_user(engine, user)
        entries = engine.billing_ledger(found["id"], limit=limit)
    print_list(
        entries,
        {
            "WHEN": lambda entry: moment(entry["created_at"]),
            "KIND": lambda entry: entry["kind"],
            "AMOUNT": lambda entry: f"{entry['amount']:+,}",
            "CREDITS": lambda entry: entry["credits"],
            "NOTE": lambda entry: entry["note"],
            "BY": lambda entry: entry["actor"],
        },
        empty=f"The credits of {found['username']} never changed.",
        as_json=as_json,
    )


def find_user(engine: DataEngine, wanted: str) -> dict[str, Any]:
    """Return a user by id, or by name or email address. Raises UnknownUserError."""
    try:
        return engine.get_user(str(uuid.UUID(wanted)))
    except ValueError:
        pass
    # Two users never differ in capitals alone.
    typed = wanted.casefold()
    for user in engine.list_users(limit=_SEARCHED_MAX):
        if typed in (user["username"].casefold(), user["email"].casefold()):
            return user
    raise UnknownUserError(
        f"there is no user {wanted!r}", hint="`ocean users list` shows ids, names and addresses."
    )


def _keys_of(engine: DataEngine, user_id: str) -> list[dict[str, Any]]:
    return [key for key in engine.list_keys() if key["user_id"] == user_id]


def _ended(engine: DataEngine, act: str, user_id: str) -> str:
    """Return how many sessions an act that was just done has ended: the audit log tells."""
    for entry in engine.audit(act=act, limit=10):
        if entry["subject"] == user_id:
            return f"{counted(entry['detail'].get('sessions_ended', 0), 'session')} ended"
    return "all sessions ended"
