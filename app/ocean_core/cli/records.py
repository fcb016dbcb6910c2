"""`ocean audit` and `ocean ledger`: who did what, and what is no longer stored."""

from __future__ import annotations

from typing import Final

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import json_option, print_list

LISTED: Final = 100


@click.command("audit")
@click.option("--act", help="Only acts of this kind, for example keys.create.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@connection_options
@json_option
def audit_command(
    *, act: str | None, limit: int, connection: ConnectionOptions, as_json: bool
) -> None:
    """List administrative acts, newest first."""
    with opened(connection) as engine:
        entries = engine.audit(act=act, limit=limit)
    print_list(
        entries,
        {
            "WHEN": lambda entry: entry["created_at"],
            "WHO": lambda entry: entry["actor"],
            "ACT": lambda entry: entry["act"],
            "SUBJECT": lambda entry: entry["subject"],
            "FROM": lambda entry: entry["address"],
            "DETAIL": lambda entry: entry["detail"],
        },
        empty="Nothing was done yet.",
        as_json=as_json,
    )


@click.command("ledger")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Most.")
@connection_options
@json_option
def ledger_command(*, limit: int, connection: ConnectionOptions, as_json: bool) -> None:
    """List readings that are no longer stored, and why."""
    with opened(connection) as engine:
        losses = engine.ledger(limit=limit)
    print_list(
        losses,
        {
            "SENSOR": lambda loss: loss["sensor_id"],
            "WHY": lambda loss: loss["class"],
            "COUNT": lambda loss: loss["count"],
            "LAST CHANGED": lambda loss: loss["updated_at"],
        },
        empty="Nothing that was ever acknowledged has gone.",
        as_json=as_json,
    )
