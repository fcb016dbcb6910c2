"""`ocean status`: the snapshot in plain words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ocean_core.cli.engine import data_dir_of, opened
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import counted
from ocean_core.runtime.private_server import find_server


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON.")
@connection_options
def status_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """Say how a running server is."""
    with opened(connection, may_start=False) as engine:
        status = engine.status()
    lines = [] if as_json else status_lines(status, _addresses(connection))
    click.echo(json.dumps(status, indent=2) if as_json else "\n".join(lines))


def _addresses(connection: ConnectionOptions) -> list[str]:
    """Return where the server listens, as far as this machine knows."""
    if connection.url is not None:
        return [connection.url]
    info = find_server(data_dir_of(connection))
    return [] if info is None else [url for url in (info.url, info.network_url) if url]


def status_lines(status: dict[str, Any], listens: Sequence[str] = ()) -> list[str]:
    """Return the snapshot as lines: verdict first, then cause, then detail."""
    buffer, analytics, ingest = status["buffer"], status["analytics"], status["ingest"]
    accounts = status["accounts"]
    word = {"operational": "OK", "degraded": "DEGRADED"}.get(status["status"], "REFUSING")
    lines = [f"{word}  Ocean Core {status['version']}, up {_duration(status['uptime_seconds'])}"]
    for alarm in status["alarms"]:
        lines.append(f"  ! {alarm['name']}: {alarm['detail']}")
        lines.append(f"    {alarm['next_step']}")
    commit = ingest["commit_ms_p50"]
    took = f", a commit takes up to {commit:g} ms (median)" if commit is not None else ""
    rebuilt = analytics["rebuild_percent"]
    if listens:
        lines.append(f"  listens    {', '.join(listens)}")
    lines += [
        (
            f"  ingest     {ingest['acknowledged']:,} acknowledged since the start, {ingest['refused']:,} refused, "
            f"{ingest['readings_per_second']:,.0f}/s{took}"
        ),
        (
            f"  journal    {buffer['state']}, durability {buffer['durability']}, "
            f"last id {buffer['head_id']:,}, {buffer['depth']:,} waiting for analytics"
        ),
        f"  analytics  {analytics['state']}"
        + (f" {rebuilt:g} %" if rebuilt is not None else "")
        + f", {analytics['series']:,} series, up to id {analytics['watermark']:,}",
        (
            f"  accounts   {accounts['state']}, {counted(accounts['users'], 'user')}, "
            f"{counted(accounts['sessions'], 'session')}, {counted(accounts['keys'], 'key')}"
        ),
        "  processes  "
        + ", ".join(
            f"{name} {process['cpu_percent']:.1f} % CPU {process['memory_mb']:.0f} MB"
            for name, process in status["processes"].items()
        ),
        "  disk       "
        + ", ".join(f"{name} {size:,.1f} MB" for name, size in status["files_mb"].items())
        + f", {status['disk_free_mb']:,.0f} MB free",
        f"  data       {status['data_dir']} (previous stop {status['previous_stop']})",
    ]
    return lines


def _duration(seconds: float) -> str:
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
