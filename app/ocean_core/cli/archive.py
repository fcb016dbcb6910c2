"""`ocean archive`: what is in the Parquet files, and sealing now."""

from __future__ import annotations

from typing import Any

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import counted, json_option, print_json


@click.group("archive")
def archive_group() -> None:
    """Readings of the past, in Parquet files that any tool can read."""


@archive_group.command("status", epilog=examples("ocean archive status"))
@json_option
@connection_options
def status_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """Say what the archive holds, and where it is."""
    with opened(connection) as engine:
        status = engine.status()
    archive: dict[str, Any] | None = status["archive"]
    if as_json:
        print_json(archive)
        return
    click.echo("\n".join(archive_lines(archive, status["buffer"]["head_id"], status["data_dir"])))


@archive_group.command("seal", epilog=examples("ocean archive seal"))
@json_option
@connection_options
def seal_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """Move everything acknowledged so far into the archive, now.

    It happens by itself once a day, or after a million readings.
    """
    with opened(connection) as engine:
        result = engine.seal_archive()
    if as_json:
        print_json(result)
        return
    if not result["rows"]:
        click.echo(f"nothing to seal: everything up to id {result['sealed_up_to']:,} is archived")
        return
    per_row = result["bytes"] / result["rows"]
    click.echo(
        f"sealed {counted(result['rows'], 'reading')} into {counted(result['parts'], 'file')}, "
        f"{per_row:.1f} bytes each; the archive reaches to id {result['sealed_up_to']:,}"
    )


def archive_lines(archive: dict[str, Any] | None, head_id: int, data_dir: str) -> list[str]:
    """Return the figures as lines."""
    if archive is None:
        return ["analytics are not up: nothing is known of the archive"]
    lines = []
    if archive["trouble"]:
        lines.append(f"! {archive['trouble']}")
    rows, size = archive["rows"], archive["mb"]
    lines.append(f"{counted(rows, 'reading')} in {counted(archive['parts'], 'file')}, {size:g} MB")
    if rows:
        lines.append(f"  days       {archive['oldest']} to {archive['newest']} (UTC)")
    waiting = max(0, head_id - archive["sealed_up_to"])
    lines.append(f"  sealed     up to id {archive['sealed_up_to']:,}; {waiting:,} in the journal")
    lines.append(f"  files      {data_dir}/archive/date=*/readings-*.parquet")
    return lines
