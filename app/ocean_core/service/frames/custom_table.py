"""A model of the operator's own, as the models file describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ocean_core.model import limits
from ocean_core.pipeline.routing import Range
from ocean_core.pipeline.routing.profile import Path
from ocean_core.protocol.readings.names import name_is_good
from ocean_core.service.frames.described import TIME_UNITS, DescribedModel, Measured
from ocean_core.service.frames.layout import NUMBER_CODES, TEXT, TYPES, Field, Layout, Scaling
from ocean_core.service.frames.toml_table import Table

_BYTES: Final = re.compile(r"bytes([1-9][0-9]{0,3})", re.ASCII)
_INFINITE: Final = float("inf")
_SIZES: Final = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(frozen=True, slots=True)
class CustomTable:
    """A described model, and what its profile needs besides."""

    custom: DescribedModel
    lab_id: Path
    prefix: str


def read_custom(table: Table, payload_bytes_max: int) -> CustomTable | None:
    """Return the model that a table describes, None if it has neither fields nor readings.

    Raises ModelsFileError.
    """
    if "fields" in table and "readings" in table:
        table.refuse(
            "readings",
            "either `fields` (binary payloads; CBOR with the same names is understood, too) or "
            "`readings` (CBOR payloads only), not both",
        )
    if not table.has("fields", "readings"):
        _refuse_lonely(table)
        return None
    fields, measured = _fields(table) if "fields" in table else ([], _readings(table))
    layout = Layout(fields) if fields else None
    if layout is not None and layout.bytes_min > payload_bytes_max:
        raise table.mistake(
            ("fields",),
            f"fields of {layout.bytes_min} bytes together",
            f"at most {payload_bytes_max}, the largest payload",
        )
    _refuse_twice(table, "fields" if fields else "readings", measured)
    named = {field.name: field for field in fields}
    device_id = _role(table, "device_id", named, "text8, an unsigned number or bytesN")
    lab_id = _role(table, "lab_id", named, "text8")
    timestamp = _role(table, "timestamp", named, "u32, i32, u64, i64 or f64")
    prefix = table.text("device_prefix")
    if prefix and not name_is_good(f"{prefix}x", limits.SENSOR_ID_BYTES_MAX // 2):
        table.refuse("device_prefix", "at most 127 bytes that a sensor id may begin with")
    entries, entry_time = _entries(table, is_binary=bool(fields))
    custom = DescribedModel(
        measured=measured,
        layout=layout,
        device_id=device_id,
        timestamp=timestamp,
        time_divisor=_time_divisor(table),
        entries=entries,
        entry_time=entry_time,
    )
    return CustomTable(custom, lab_id, prefix)


def _refuse_lonely(table: Table) -> None:
    """Refuse what makes sense only beside fields or readings; name these among what is known."""
    for key in ("fields", "readings"):
        table.value(key)
    only_with = ("device_id", "lab_id", "timestamp", "device_prefix", "time_unit", "entries")
    key = table.has(*only_with, "entry_time")
    if key:
        raise table.mistake((), f"`{key}`", "`fields` or `readings` beside it")


def _role(table: Table, role: str, fields: dict[str, Field], types: str) -> Path:
    """Return where device id, lab id or time are; in fields they must be there, of a fitting type."""
    name = table.text(role, role)
    is_given = role in table
    if not name:
        return ()
    if not fields:
        return _path(table, role, name)
    field = fields.get(name)
    if field is None:
        if is_given:
            table.refuse(role, "the name of one of the fields")
        if role == "device_id":
            raise table.mistake(
                ("fields",),
                "no field `device_id`",
                'one, or device_id = "NAME" for a field of another name, '
                'or device_id = "" if there is one device only',
            )
        return ()
    fits = {
        "device_id": field.type == TEXT or field.type[0] in {"u", "b"},
        "lab_id": field.type == TEXT,
        "timestamp": field.type in {"u32", "i32", "u64", "i64", "f64"},
    }
    if not fits[role]:
        raise table.mistake(
            ("fields",), f"`{name}` of type {field.type} as {role}", f"{types} for it"
        )
    return (name,)


def _path(table: Table, key: str, name: str) -> Path:
    """Return the keys of a dotted path."""
    path = tuple(name.split("."))
    if not all(path):
        table.refuse(key, "keys with one dot between them, such as air.temperature")
    return path


def _time_divisor(table: Table) -> int:
    unit = table.text("time_unit", "s")
    if unit not in TIME_UNITS:
        table.refuse("time_unit", "s, ms or us")
    return TIME_UNITS[unit]


def _entries(table: Table, *, is_binary: bool) -> tuple[Path, Path]:
    name = table.text("entries")
    time_name = table.text("entry_time", "ts", empty=False)
    key = table.has("entries", "entry_time")
    if is_binary and key:
        table.refuse(key, "nothing: entries are for CBOR payloads, described by `readings`")
    if key == "entry_time":
        table.refuse(key, "`entries` beside it")
    return (
        _path(table, "entries", name) if name else (),
        _path(table, "entry_time", time_name),
    )


# --- binary fields ------------------------------------------------------------------------------


def _fields(table: Table) -> tuple[list[Field], list[Measured]]:
    fields: list[Field] = []
    measured: list[Measured] = []
    for item in table.items("fields", limits.MODEL_FIELDS_MAX):
        field = _field(item)
        if any(field.name == other.name for other in fields):
            item.refuse("name", "a name of its own for each field")
        fields.append(field)
        if "metric" in item:
            measured.append(_measured_field(item, field))
        else:
            key = item.has("unit", "min", "max", "optional")
            if key:
                raise item.mistake((), f"`{key}` without `metric`", "the metric that it is about")
            for known in ("metric", "unit", "min", "max", "optional"):
                item.value(known)
        item.finish()
    return fields, measured


def _field(item: Table) -> Field:
    name = item.text("name", empty=False)
    if not name or "." in name:
        item.refuse("name", "the name of the field, without a dot")
    kind = item.text("type")
    match = _BYTES.fullmatch(kind)
    if match is None and kind != TEXT and kind not in NUMBER_CODES:
        item.refuse("type", "one of " + ", ".join(TYPES))
    scaling, absent = _scaling(item), item.number("absent")
    if kind in NUMBER_CODES:
        return Field(name, kind, _SIZES[kind[1:]], scaling, absent)
    key = item.has("scale", "offset", "absent", "metric")
    if key:
        item.refuse(key, f"nothing: a field of type {kind} is no number")
    return Field(name, kind, 1 if match is None else int(match[1]))


def _measured_field(item: Table, field: Field) -> Measured:
    # The number for "nothing measured" and the scale concern what is sent; the layout sees to them.
    return Measured(
        path=(field.name,),
        metric=_metric(item, ""),
        unit=item.text("unit"),
        range=_range(item),
        optional=item.flag("optional") or field.absent is not None,
    )


# --- CBOR keys ----------------------------------------------------------------------------------


def _readings(table: Table) -> list[Measured]:
    measured: list[Measured] = []
    for item in table.items("readings", limits.METRICS_PER_ITEM_MAX):
        key = item.text("key", empty=False)
        if not key:
            item.refuse("key", "where the value is in the CBOR map, such as temp or air.temp")
        path = _path(item, "key", key)
        absent = item.number("absent")
        measured.append(
            Measured(
                path=path,
                metric=_metric(item, path[-1]),
                unit=item.text("unit"),
                scaling=_scaling(item),
                range=_range(item),
                optional=item.flag("optional") or absent is not None,
                absent=absent,
            )
        )
        item.finish()
    return measured


# --- both ---------------------------------------------------------------------------------------


def _metric(item: Table, default: str) -> str:
    metric = item.text("metric", default)
    # A star would make its range one for several metrics.
    if not name_is_good(metric, limits.METRIC_BYTES_MAX) or metric.endswith("*"):
        item.refuse("metric", "the name of a metric, such as temperature")
    return metric


def _scaling(item: Table) -> Scaling | None:
    scale, offset = item.number("scale"), item.number("offset")
    if scale == 0:
        item.refuse("scale", "a number other than 0")
    return Scaling.of(1 if scale is None else scale, 0 if offset is None else offset)


def _range(item: Table) -> Range | None:
    if not item.has("min", "max"):
        # Asked for, so that they are among what is known.
        item.bound("min", 0)
        item.bound("max", 0)
        return None
    low, high = item.bound("min", -_INFINITE), item.bound("max", _INFINITE)
    if low > high:
        item.refuse("max", f"no less than min, which is {low:g}")
    return Range(low, high)


def _refuse_twice(table: Table, key: str, measured: list[Measured]) -> None:
    seen: set[str] = set()
    for number, item in enumerate(measured):
        if item.metric in seen:
            place = (key,) if key == "fields" else (key, number, "metric")
            raise table.mistake(
                place, f"the metric `{item.metric}` twice", "a metric of its own for each reading"
            )
        seen.add(item.metric)
    if len(measured) > limits.METRICS_PER_ITEM_MAX:
        raise table.mistake(
            (key,), f"{len(measured)} metrics", f"at most {limits.METRICS_PER_ITEM_MAX}"
        )
