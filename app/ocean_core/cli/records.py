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
from ocean_core.cli.tables import (
    counted,
    json_option,
    moment,
    print_json,
    print_table,
    shown,
    table_lines,
)
from ocean_core.model.errors import all_error_classes
from ocean_core.obs.clock import iso_utc

LISTED: Final = 100
ACTS: Final = (
    "billing.add_credits",
    "groups.forget",
    "keys.create",
    "keys.revoke",
    "metadata.delete",
    "profiles.delete",
    "quarantine.forget",
    "quarantine.retry",
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

_UNKNOWN: Final = "(no known sensor)"
_MEANINGS: Final = {
    "stored": "readings and events acknowledged, forgotten and evicted ones too",
    "missing": "acknowledged and lost: see ocean status and ocean verify",
    "duplicate": "came again: the same Idempotency-Key, or the same frame; answered, not stored twice",
    "forgotten": "taken out because somebody forgot the sensor",
    "evicted": "deleted to make room",
    "quarantined": "refused Nanogridata frames that were kept: see ocean quarantine list",
    "quarantine released": "of these, stored later",
    "quarantine evicted": "of these, deleted to make room",
    "quarantine forgotten": "of these, deleted by somebody",
}
"""What the classes mean, beside refusals, whose code has a title."""

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
@click.option("--sensor", help="Only this sensor, by any name it has or had.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most lines.")
@json_option
@connection_options
def ledger_command(
    *, sensor: str | None, limit: int, connection: ConnectionOptions, as_json: bool
) -> None:
    """Tell what became of everything that was sent: in all, and of which sensors.

    For credits: ocean users ledger.
    """
    with opened(connection) as engine:
        summary = engine.ledger_totals()
        losses = engine.ledger(sensor_id=sensor, limit=limit)
    if as_json:
        print_json({**summary, "sensors": losses})
        return
    totals = summary["totals"]
    if sensor is None and totals is not None:
        click.echo("\n".join(_totals_lines(totals)) + "\n")
    rows = [
        [loss["sensor_id"] or _UNKNOWN, loss["class"], loss["count"], moment(loss["updated_at"])]
        for loss in losses
    ]
    empty = "Nothing was refused, sent twice, forgotten or evicted."
    print_table(("SENSOR", "WHY", "COUNT", "LAST CHANGED"), rows, empty)
    if len(losses) == limit:
        click.echo(f"At most {limit} lines are shown; --limit shows more, --sensor one sensor.")
    click.echo(_exactness(summary["approximate"]))


def _totals_lines(totals: Mapping[str, int]) -> list[str]:
    """Return one line for each class: what, how much, what that means."""
    titles = {error.code: error("").title for error in all_error_classes()}
    lines: list[tuple[str, str, str]] = []
    for name, count in totals.items():
        refused, _, code = name.partition(" ")
        meaning = titles.get(code, "") if refused == "refused" else _MEANINGS.get(name, "")
        lines.append((name, f"{count:,}", meaning))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return [
        f"{name:<{widths[0]}}  {count:>{widths[1]}}  {meaning}".rstrip()
        for name, count, meaning in lines
    ]


def _exactness(approximate: Mapping[str, Any] | None) -> str:
    if approximate is None:
        return "All figures are exact."
    stops = counted(approximate["stops"], "unclean stop")
    return (
        f"Refusals may be a few seconds short: {stops} between {moment(approximate['since'])} and "
        f"{moment(approximate['until'])}. All else is exact."
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
