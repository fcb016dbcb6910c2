"""`ocean quarantine`: refused Nanogridata frames, to be looked at and tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ocean_core.cli.asking import is_interactive
from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.quarantine_report import frame_lines
from ocean_core.cli.tables import (
    counted,
    json_option,
    moment,
    print_json,
    print_list,
    shown,
)
from ocean_core.model.errors import CommandError

LISTED: Final = 100

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
    click.echo("\n".join(frame_lines(frame)))


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


@quarantine_group.command(
    "forget",
    epilog=examples(
        "ocean quarantine forget 17 18",
        "ocean quarantine forget --outcome E_STALE",
        "ocean quarantine forget --all --yes",
    ),
)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1))
@click.option("--outcome", help="All frames refused for this, for example E_STALE.")
@click.option("--all", "takes_all", is_flag=True, help="All frames.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@connection_options
def forget_command(
    *,
    ids: tuple[int, ...],
    outcome: str | None,
    takes_all: bool,
    yes: bool,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Delete refused frames. There is no way back.

    Frames named by their ids go at once; before --outcome and --all it asks.
    """
    if (bool(ids), outcome is not None, takes_all).count(True) != 1:
        raise click.UsageError("give ids, or --outcome, or --all")
    gone = list(dict.fromkeys(ids))
    if not ids and not yes:
        _confirm(outcome)
    with opened(connection) as engine:
        for frame_id in gone:
            engine.forget_frame(frame_id)
        if not ids:
            gone = engine.forget_frames(outcome=outcome)
    if as_json:
        print_json({"forgotten": gone})
        return
    click.echo(f"{counted(len(gone), 'frame')} deleted")


def _confirm(outcome: str | None) -> None:
    """Say what will go, and go on only when that is typed again."""
    which = f"refused for {outcome}" if outcome else "in quarantine"
    click.echo(f"This deletes all frames {which}. There is no way back.", err=True)
    if not is_interactive():
        raise CommandError(
            "nobody is there to confirm it; nothing was deleted",
            hint="In a script add --yes, if this is really meant.",
        )
    word = outcome or "all"
    typed = click.prompt(f"Type {word} to go on", default="", show_default=False, err=True)
    if typed != word:
        raise CommandError(f"{typed!r} is not {word!r}; nothing was deleted")


def _origin(frame: Mapping[str, Any]) -> str:
    return f"{frame['transport']} {frame['address']}".rstrip()
