"""`ocean quarantine`: refused Nanogridata frames, to be looked at and tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import (
    counted,
    json_option,
    moment,
    print_json,
    print_list,
    record_lines,
    shown,
)

LISTED: Final = 100
_BYTES_A_LINE: Final = 16
_UNSHOWN: Final = frozenset({"frame", "header", "meaning", "next_step"})

_id_argument: Final = click.argument("frame_id", metavar="ID", type=click.IntRange(1))


@click.group("quarantine")
def quarantine_group() -> None:
    """List refused Nanogridata frames, look at them, try them again."""


@quarantine_group.command("list")
@click.option("--outcome", help="Only frames refused for this, for example E_KEY.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@json_option
@connection_options
def list_command(
    *, outcome: str | None, limit: int, connection: ConnectionOptions, as_json: bool
) -> None:
    """List refused frames, newest first."""
    with opened(connection) as engine:
        frames = engine.quarantined_frames(outcome=outcome, limit=limit)
    print_list(
        frames,
        {
            "ID": lambda frame: str(frame["id"]),
            "LAST SEEN": lambda frame: moment(frame["last_seen_at"]),
            "WHY": lambda frame: frame["outcome"],
            "MODEL": lambda frame: frame["model"],
            "SENSOR": lambda frame: frame["sensor_id"] or frame["given"],
            "FROM": _origin,
            "TIMES": lambda frame: frame["seen"],
            "STATE": lambda frame: "early" if frame["early"] else frame["state"],
            "DETAIL": lambda frame: frame["detail"],
        },
        empty="No frame is in quarantine" + (f" for {outcome}." if outcome else "."),
        as_json=as_json,
    )
    if len(frames) == limit and not as_json:
        click.echo(f"At most {limit} are shown; --limit shows more.")


@quarantine_group.command("show")
@_id_argument
@json_option
@connection_options
def show_command(*, frame_id: int, connection: ConnectionOptions, as_json: bool) -> None:
    """Say why a frame was refused, with its header and bytes."""
    with opened(connection) as engine:
        frame = engine.quarantined_frame(frame_id)
    if as_json:
        print_json(frame)
        return
    click.echo("\n".join(_frame_lines(frame)))


@quarantine_group.command(
    "retry",
    epilog=examples(
        "ocean quarantine retry 17 18",
        "ocean quarantine retry --outcome E_KEY",
        "ocean quarantine retry --all --any-time",
    ),
)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1))
@click.option("--outcome", help="All frames refused for this, for example E_KEY.")
@click.option("--all", "takes_all", is_flag=True, help="All frames.")
@click.option(
    "--any-time", is_flag=True, help="Take them whatever their time; repeats may not be noticed."
)
@json_option
@connection_options
def retry_command(
    *,
    ids: tuple[int, ...],
    outcome: str | None,
    takes_all: bool,
    any_time: bool,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Try refused frames again, as of their arrival.

    What is stored then is in quarantine no more; the others stay, with their new reason.
    """
    if (bool(ids), outcome is not None, takes_all).count(True) != 1:
        raise click.UsageError("give ids, or --outcome, or --all")
    with opened(connection) as engine:
        answer = engine.retry_frames(ids or None, outcome=outcome, any_time=any_time)
    if as_json:
        print_json(answer)
        return
    found = {frame["id"] for frame in answer["frames"]}
    for missing in sorted(set(ids) - found):
        click.echo(f"ocean: no frame {missing} is in quarantine", err=True)
    for frame in answer["frames"]:
        if not frame["released"]:
            click.echo(f"{frame['id']}: {shown(frame['outcome'])}: {shown(frame['detail'])}")
    click.echo(
        f"{counted(answer['stored'], 'frame')} stored, {answer['duplicate']:,} stored before, "
        f"{answer['kept']:,} refused again"
    )


@quarantine_group.command("forget")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(1))
@json_option
@connection_options
def forget_command(*, ids: tuple[int, ...], connection: ConnectionOptions, as_json: bool) -> None:
    """Delete refused frames. There is no way back."""
    chosen = list(dict.fromkeys(ids))
    with opened(connection) as engine:
        for frame_id in chosen:
            engine.forget_frame(frame_id)
    if as_json:
        print_json({"forgotten": chosen})
        return
    click.echo(f"{counted(len(chosen), 'frame')} deleted")


def _origin(frame: Mapping[str, Any]) -> str:
    return f"{frame['transport']} {frame['address']}".rstrip()


def _frame_lines(frame: Mapping[str, Any]) -> list[str]:
    """Return a frame as people read it: what it is, why it is here, what to do, its bytes."""
    told = {name: value for name, value in frame.items() if name not in _UNSHOWN}
    lines = record_lines({**told, "id": str(frame["id"])})
    lines += ["", f"why   {shown(frame['meaning'])}", f"next  {shown(frame['next_step'])}"]
    if frame["header"] is None:
        lines += ["", "header: none, or not all of it"]
    else:
        plain = {name: str(value) for name, value in frame["header"].items() if value is not None}
        lines += ["", "header", *("  " + line for line in record_lines(plain))]
    return [*lines, "", "bytes", *_hex_lines(bytes.fromhex(frame["frame"]), frame["offset"])]


def _hex_lines(data: bytes, offset: int | None) -> list[str]:
    """Return bytes in lines, with a mark below the one that a check failed at."""
    lines: list[str] = []
    for at in range(0, len(data), _BYTES_A_LINE):
        lines.append(f"  {at:04x}  {data[at : at + _BYTES_A_LINE].hex(' ')}")
        if offset is not None and at <= offset < at + _BYTES_A_LINE:
            lines.append(" " * (8 + 3 * (offset - at)) + "^^")
    return lines
