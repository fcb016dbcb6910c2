"""`ocean audit` and `ocean ledger`: who did what, and what is no longer stored."""

from __future__ import annotations

import ipaddress
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import json_option, moment, print_json, print_list, shown, table_lines
from ocean_core.obs.clock import iso_utc

LISTED: Final = 100
ACTS: Final = (
    "billing.add_credits",
    "groups.forget",
    "keys.create",
    "keys.revoke",
    "metadata.delete",
    "profiles.delete",
    "sensors.forget",
    "sensors.rename",
    "sensors.update",
    "sessions.create",
    "sessions.revoke",
    "users.create",
    "users.disable",
    "users.update",
)
"""The kinds that there are; a newer server may know more."""
WIDTH: Final = 100
_INDENT: Final = "    "
_COUNTS: Final = frozenset({"amount", "credits", "rate"})
"""What in a detail is a quantity: other numbers are ids."""

_UNSET: Final[tuple[object, ...]] = (None, "", [], {})


@click.command("audit")
@click.option("--act", help="Only acts of this kind, for example keys.create.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@json_option
@connection_options
def audit_command(
    *, act: str | None, limit: int, connection: ConnectionOptions, as_json: bool
) -> None:
    """List administrative acts, newest first."""
    with opened(connection) as engine:
        entries = engine.audit(act=act, limit=limit)
    if act is not None and not entries and act not in ACTS:
        raise click.UsageError(f"no act of the kind {act!r}; kinds are {', '.join(ACTS)}")
    if as_json:
        print_json(entries)
    elif entries:
        click.echo("\n".join(audit_lines(entries, _width())))
    else:
        click.echo("Nothing was done yet." if act is None else f"No {act} was done yet.")


@click.command("ledger")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Most.")
@json_option
@connection_options
def ledger_command(*, limit: int, connection: ConnectionOptions, as_json: bool) -> None:
    """List readings that are no longer stored, and why.

    For credits: ocean users ledger.
    """
    with opened(connection) as engine:
        losses = engine.ledger(limit=limit)
    print_list(
        losses,
        {
            "SENSOR": lambda loss: loss["sensor_id"],
            "WHY": lambda loss: loss["class"],
            "COUNT": lambda loss: loss["count"],
            "LAST CHANGED": lambda loss: moment(loss["updated_at"]),
        },
        empty="Nothing that was ever acknowledged has gone.",
        as_json=as_json,
    )


def audit_lines(entries: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """Return a table of acts; a detail too long for its line goes on below it."""
    rows = [
        [moment(entry["created_at"]), entry["actor"], entry["act"], entry["subject"]]
        for entry in entries
    ]
    heads = table_lines(("WHEN", "WHO", "ACT", "SUBJECT"), rows, width)
    begins = max(map(len, heads)) + 2
    room = (width or WIDTH) - begins
    lines = [(heads[0].ljust(begins) + "DETAIL"[: max(0, room)]).rstrip()]
    for head, entry in zip(heads[1:], entries, strict=True):
        detail = _detail(entry)
        if len(detail) <= room:
            lines.append((head.ljust(begins) + detail).rstrip())
            continue
        lines.append(head)
        lines += textwrap.wrap(
            detail, width or WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )  # fmt: skip
    return lines


def _detail(entry: Mapping[str, Any]) -> str:
    """Return what is known beside who and what: nothing that is unset, moments as dates."""
    parts = [_part(name, value) for name, value in entry["detail"].items() if value not in _UNSET]
    if not _is_here(entry["address"]):
        parts.append(f"from={shown(entry['address'])}")
    return ", ".join(parts)


def _part(name: str, value: object) -> str:
    if name.endswith("_us") and isinstance(value, int):
        return f"{name.removesuffix('_us')}={moment(iso_utc(value))}"
    if isinstance(value, int) and not isinstance(value, bool) and name not in _COUNTS:
        value = str(value)
    return f"{name}={shown(value)}"


def _is_here(address: str) -> bool:
    """Return whether an act came from this machine, which goes without saying."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return not address


def _width() -> int | None:
    """Return the width of the terminal, None for a pipe or file: there nothing is cut."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None
