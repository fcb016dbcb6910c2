"""`ocean status`: the snapshot in plain words."""

from __future__ import annotations

import json
from typing import Any

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options


@click.command("status")
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON.")
def status_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """Say how a running server is."""
    with opened(connection, may_start=False) as engine:
        status = engine.status()
    click.echo(json.dumps(status, indent=2) if as_json else "\n".join(status_lines(status)))


def status_lines(status: dict[str, Any]) -> list[str]:
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
            f"  accounts   {accounts['state']}, {accounts['users']:,} users, "
            f"{accounts['sessions']:,} sessions, {accounts['keys']:,} keys"
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
