"""`ocean sensors`: what people say about sensors, and how one is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import click
from msgspec import UNSET, UnsetType

from ocean_core.cli.asking import is_interactive
from ocean_core.cli.engine import opened
from ocean_core.cli.hints import hinting
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import (
    counted,
    json_option,
    moment,
    print_json,
    print_list,
    print_record,
)
from ocean_core.facade import DataEngine
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    CommandError,
    ConflictError,
    QueriesFullError,
    QueryTimeoutError,
    UnknownSensorError,
)

LISTED: Final = 10_000


def _good_id(_context: object, _option: object, typed: str) -> str:
    if not typed:
        raise click.BadParameter("the sensor id is empty")
    return typed


id_argument: Final = click.argument("sensor_id", metavar="ID", callback=_good_id)


@click.group("sensors")
def sensors_group() -> None:
    """List, describe, rename and forget sensors."""


@sensors_group.command("list")
@click.option("--prefix", default="", help="Only sensors whose id starts so.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="Most.")
@json_option
@connection_options
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
            "LAST VALUE": _last_value,
            "UNIT": lambda sensor: sensor.get("unit"),
            "LAST READING": lambda sensor: moment(sensor["last_reading"]),
            "METRICS": lambda sensor: sensor["metrics"],
        },
        empty="No sensor has sent anything"
        + (f" whose id starts with {prefix!r}." if prefix else "."),
        as_json=as_json,
    )


@sensors_group.command("show")
@id_argument
@json_option
@connection_options
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


@sensors_group.command(
    "set",
    epilog=examples(
        'ocean sensors set press-01 --name "Press, hall 1" --unit bar --tag hall=1',
        'ocean sensors set press-01 --note ""',
    ),
)
@id_argument
@click.option("--name", "display_name", help="How people call it.")
@click.option("--unit", help="Unit of its readings, for example °C.")
@click.option("--note", help="Anything worth knowing.")
@click.option(
    "--tag", "tags", multiple=True, metavar="K=V", callback=_tags,
    help="Add or change a tag; K= removes it. May be repeated.",
)  # fmt: skip
@json_option
@connection_options
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
        known = _asked(engine, sensor_id)
    print_record(record, as_json=as_json)
    if known.get("count") == 0 and not known.get("events"):
        click.echo(f"ocean: {sensor_id} has sent nothing yet; check the id", err=True)


@sensors_group.command("rename")
@click.argument("old", callback=_good_id)
@click.argument("new", callback=_good_id)
@json_option
@connection_options
def rename_command(*, old: str, new: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Call a sensor otherwise, for all its readings.

    The old name keeps working, for sending and for asking, and stays reserved: no other sensor can
    have it.
    """
    with opened(connection) as engine:
        if old == new and (sensor := engine.get_sensor(old))["sensor_id"] == new:
            _tell_unchanged(sensor, as_json=as_json)
            return
        if is_interactive():
            click.echo(f"{old} keeps working as a name, and stays reserved", err=True)
        with hinting(ConflictError, "Choose another name, one that no sensor has or had."):
            answer = engine.rename_sensor(old, new)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{old} is now {answer['sensor_id']}" + _pending(answer))


@sensors_group.command("forget")
@id_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@connection_options
def forget_command(
    *, sensor_id: str, yes: bool, connection: ConnectionOptions, as_json: bool
) -> None:
    """Forget a sensor: all its readings so far, and its name, unit, tags and note.

    There is no way back.
    """
    with opened(connection) as engine:
        if not yes:
            _confirm(_asked(engine, sensor_id), sensor_id)
        answer = engine.forget_sensor(sensor_id)
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{answer['sensor_id']} is forgotten, with {_forgotten(answer['forgotten'])}"
        + _pending(answer)
    )


def _asked(engine: DataEngine, sensor_id: str) -> dict[str, Any]:
    """Return what is known of a sensor, with what it has sent as soon as analytics can say."""
    sensor = engine.get_sensor(sensor_id)
    if not sensor.get("count") and not sensor.get("events"):
        # Either it has sent nothing, or analytics do not see it yet: this waits for them.
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
    first, last = moment(sensor.get("first_reading")), moment(sensor.get("last_reading"))
    when = f" from {first} to {last}" if first else ""
    events = counted(sensor.get("events") or 0, "event")
    return f"{counted(sensor['count'], 'reading')}{when} and {events}"


def _confirm(sensor: dict[str, Any], sensor_id: str) -> None:
    """Say what will go, and go on only when the id is typed again."""
    click.echo(
        f"This forgets {sensor['sensor_id']}: {_told(sensor)}, with its name, unit, tags and note. "
        "There is no way back.",
        err=True,
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


def _last_value(sensor: Mapping[str, Any]) -> object:
    # Which of several metrics it belongs to, the API does not tell.
    several = len(sensor["metrics"]) > 1
    return f"{len(sensor['metrics'])} metrics" if several else sensor["last_value"]


def _forgotten(number: int) -> str:
    return "1 reading or event" if number == 1 else f"{number:,} readings and events"


def _tell_unchanged(sensor: dict[str, Any], *, as_json: bool) -> None:
    name = sensor["sensor_id"]
    if as_json:
        print_json(
            {
                "sensor_id": name,
                "renamed_from": name,
                "aliases": sensor["aliases"],
                "pending": False,
            }
        )
    else:
        click.echo(f"{name}: it has this name already; nothing was changed")
