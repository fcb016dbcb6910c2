"""`ocean status`: the snapshot in plain words."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import click

from ocean_core.cli.engine import data_dir_of, opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import counted
from ocean_core.cli.watch import WORDS, Watch
from ocean_core.model.errors import DataDirError
from ocean_core.obs.clock import SystemClock
from ocean_core.runtime.private_server import find_server

INTERVAL_S: Final = 2.0
ASK_TIMEOUT_S: Final = 2.0


@click.command(
    "status",
    epilog=examples(
        "ocean status", "ocean status --watch", "ocean status --watch --json --count 60"
    ),
)
@click.option("--watch", is_flag=True, help="Go on: print a line per interval until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    metavar="SECONDS",
    help=f"Time between lines of --watch.  [default: {INTERVAL_S:g}]",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="End --watch after so many lines."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the snapshot as JSON; with --watch an object per line.",
)
@connection_options
def status_command(
    *,
    connection: ConnectionOptions,
    watch: bool,
    interval_s: float | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Say how a running server is."""  # fmt: skip
    if watch:
        interval_s = INTERVAL_S if interval_s is None else interval_s
        _watch(connection, interval_s, count, as_json=as_json)
        return
    if interval_s is not None or count is not None:
        raise click.UsageError("--interval and --count belong to --watch")
    with opened(connection, may_start=False) as engine:
        status = engine.status()
    lines = [] if as_json else status_lines(status, _addresses(connection))
    click.echo(json.dumps(status, indent=2) if as_json else "\n".join(lines))


def _watch(
    connection: ConnectionOptions, interval_s: float, count: int | None, *, as_json: bool
) -> None:
    """Print a line per interval; Ctrl-C is the ordinary end.

    Raises DataDirError if there is nothing that a server could be waited for on.
    """
    data_dir = data_dir_of(connection)
    if connection.url is None and not data_dir.is_dir():
        raise DataDirError(
            f"{data_dir}: does not exist, and no server runs there",
            hint="Name the data directory of the box with --data-dir, or its address with --url.",
        )
    # A server that does not answer is to be told of soon, not after half a minute of trying.
    with opened(connection, may_start=False, timeout_s=max(ASK_TIMEOUT_S, interval_s)) as engine:
        watch = Watch(
            engine.status,
            clock=SystemClock(),
            pause=time.sleep,
            tell=click.echo,
            as_json=as_json,
            is_terminal=sys.stdout.isatty(),
        )
        try:
            watch.run(interval_s, count)
        except KeyboardInterrupt:
            return


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
    word = WORDS.get(status["status"], "REFUSING")
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
            f"  ingest     {ingest['acknowledged']:,} acknowledged since the start, {ingest['refused']:,} refusals, "
            f"{ingest['readings_per_second']:,.0f}/s{took}"
        ),
        *_frames_lines(status["frames"]),
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
        "  flash      " + _flash_text(status["flash"]),
        f"  data       {status['data_dir']} (previous stop {status['previous_stop']})",
    ]
    return lines


def _frames_lines(frames: dict[str, Any]) -> list[str]:
    """Return what became of Nanogridata frames; nothing if none can come or came."""
    where = [f"{kind} {frames[kind]}" for kind in ("tcp", "udp") if frames[kind]]
    seen = frames["stored"] + frames["duplicates"] + frames["refused"] + frames["quarantined"]
    if not where and not seen:
        return []
    connections = counted(frames["connections"], "connection")
    lines = [
        f"  frames     {', '.join(where) or 'not listening'}, {connections}",
        (
            f"             {frames['stored']:,} stored, {frames['duplicates']:,} came again, "
            f"{frames['refused']:,} refused, {frames['skipped_bytes']:,} bytes belonged to no frame"
        ),
    ]
    if frames["quarantined"]:
        kept = counted(frames["quarantined"], "refused frame")
        lines.append(f"             {kept} in quarantine: ocean quarantine list")
    return lines


def _flash_text(flash: dict[str, Any]) -> str:
    text = f"{flash['written_mb']:,.1f} MB written since the start"
    if flash["bytes_per_reading"] is not None:
        text += f", {flash['bytes_per_reading']:,.0f} bytes per reading"
    if flash["written_mb_per_day"] is not None:
        text += f", {flash['written_mb_per_day']:,.0f} MB a day"
    if flash["device_written_mb"] is not None:
        text += f" (the device, by all programs: {flash['device_written_mb']:,.1f} MB)"
    return text


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
