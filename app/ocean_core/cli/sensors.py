"""`ocean sensors`: what people say about sensors, and how one is forgotten."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Final

import click
from msgspec import UNSET, UnsetType

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import json_option, print_json, print_list, print_record
from ocean_core.facade import DataEngine
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    CommandError,
    QueriesFullError,
    QueryTimeoutError,
    UnknownSensorError,
)

LISTED: Final = 10_000


@click.group("sensors")
def sensors_group() -> None:
    """List, describe, rename and forget sensors."""


@sensors_group.command("list")
@click.option("--prefix", default="", help="Only sensors whose id starts so.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@connection_options
@json_option
def list_command(*, prefix: str, limit: int, connection: ConnectionOptions, as_json: bool) -> None:
    """List sensors that have sent something."""
    with opened(connection) as engine:
        sensors = engine.sensors(prefix, limit=limit, wait=True)
    print_list(
        sensors,
        {
            "SENSOR": lambda sensor: sensor["sensor_id"],
            "NAME": lambda sensor: sensor.get("display_name"),
            "READINGS": lambda sensor: sensor["count"],
            "EVENTS": lambda sensor: sensor["events"],
            "LAST VALUE": lambda sensor: _with_unit(sensor["last_value"], sensor.get("unit")),
            "LAST READING": lambda sensor: sensor["last_reading"],
            "METRICS": lambda sensor: sensor["metrics"],
        },
        empty="No sensor has sent anything"
        + (f" whose id starts with {prefix!r}." if prefix else "."),
        as_json=as_json,
    )


@sensors_group.command("show")
@click.argument("sensor_id", metavar="ID")
@connection_options
@json_option
def show_command(*, sensor_id: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Say everything that is known about a sensor."""
    with opened(connection) as engine:
        print_record(_asked(engine, sensor_id), as_json=as_json)


def _tags(_context: object, _option: object, typed: tuple[str, ...]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not of the form name=value")
        tags[name] = value
    return tags


@sensors_group.command("set")
@click.argument("sensor_id", metavar="ID")
@click.option("--name", "display_name", help="How people call it.")
@click.option("--unit", help="Unit of its readings, for example °C.")
@click.option("--note", help="Anything worth knowing.")
@click.option(
    "--tag", "tags", multiple=True, metavar="K=V", callback=_tags,
    help="Add or change a tag; K= removes it. May be repeated.",
)  # fmt: skip
@connection_options
@json_option
def set_command(
    *,
    sensor_id: str,
    display_name: str | None,
    unit: str | None,
    note: str | None,
    tags: dict[str, str],
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Describe a sensor, also one that has sent nothing yet. An empty text removes."""
    if display_name is None and unit is None and note is None and not tags:
        raise click.UsageError("give at least one of --name, --unit, --note, --tag")
    with opened(connection) as engine:
        record = engine.update_sensor(
            sensor_id,
            display_name=_typed(display_name),
            unit=_typed(unit),
            note=_typed(note),
            tags=_merged(engine, sensor_id, tags) if tags else UNSET,
        )
    print_record(record, as_json=as_json)


@sensors_group.command("rename")
@click.argument("old")
@click.argument("new")
@connection_options
@json_option
def rename_command(*, old: str, new: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Call a sensor otherwise, for all its readings. Sending under the old name still works."""
    with opened(connection) as engine:
        answer = engine.rename_sensor(old, new)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{old} is now {answer['sensor_id']}" + _pending(answer))


@sensors_group.command("forget")
@click.argument("sensor_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
@json_option
def forget_command(
    *, sensor_id: str, yes: bool, connection: ConnectionOptions, as_json: bool
) -> None:
    """Forget a sensor and all its readings so far. There is no way back."""
    with opened(connection) as engine:
        if not yes:
            _confirm(_asked(engine, sensor_id), sensor_id)
        answer = engine.forget_sensor(sensor_id)
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{answer['sensor_id']} is forgotten, with {answer['forgotten']:,} readings and events"
        + _pending(answer)
    )


def is_interactive() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty()


def _asked(engine: DataEngine, sensor_id: str) -> dict[str, Any]:
    """Return what is known of a sensor, with what it has sent as soon as analytics can say."""
    sensor = engine.get_sensor(sensor_id)
    if sensor.get("count") is None:
        # Either it has sent nothing, or analytics are just starting: this waits for them.
        with contextlib.suppress(AnalyticsUnavailableError, QueryTimeoutError, QueriesFullError):
            engine.sensors(limit=1, wait=True)
            sensor = engine.get_sensor(sensor_id)
            sensor.setdefault("count", 0)
            sensor.setdefault("events", 0)
    return sensor


def _told(sensor: dict[str, Any]) -> str:
    """Return in words what a sensor has sent."""
    if sensor.get("count") is None:
        return "all its readings (analytics are away, so nobody can say how many)"
    first, last = sensor.get("first_reading"), sensor.get("last_reading")
    when = f" from {first} to {last}" if first else ""
    return f"{sensor['count']:,} readings{when} and {sensor.get('events') or 0:,} events"


def _confirm(sensor: dict[str, Any], sensor_id: str) -> None:
    """Say what will go, and go on only when the id is typed again."""
    click.echo(
        f"This forgets {sensor['sensor_id']}: {_told(sensor)}. There is no way back.", err=True
    )
    if not is_interactive():
        raise CommandError(
            "nobody is there to confirm it; nothing was forgotten",
            hint="In a script add --yes, if this is really meant.",
        )
    typed = click.prompt("Type the id again to go on", default="", show_default=False, err=True)
    if typed != sensor_id:
        raise CommandError(f"{typed!r} is not {sensor_id!r}; nothing was forgotten")


def _merged(engine: DataEngine, sensor_id: str, changes: dict[str, str]) -> dict[str, str]:
    tags: dict[str, str] = {}
    with contextlib.suppress(UnknownSensorError):
        tags = dict(engine.get_sensor(sensor_id)["tags"])
    return {name: value for name, value in {**tags, **changes}.items() if value}


def _typed(text: str | None) -> str | UnsetType | None:
    return UNSET if text is None else text or None


def _pending(answer: dict[str, Any]) -> str:
    return "; analytics are away and follow when they are back" if answer.get("pending") else ""


def _with_unit(value: object, unit: str | None) -> object:
    return f"{value:g} {unit}" if unit and isinstance(value, int | float) else value
