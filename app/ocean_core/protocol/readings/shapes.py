"""The request shapes as msgspec types, and the context that a request is decoded in."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from ocean_core.model import limits

ARRAY_ROWS_MIN: Final = 16
"""From this many rows on columns are numpy arrays; below, lists are cheaper to make and to read."""

Timestamp = int | float | str | None


class DecodeContext(msgspec.Struct, frozen=True):
    """What the decoder has to know about the moment and the limits.

    ``arrival_us`` is the box's wall clock in microseconds since 1970 UTC; ``clock_trusted`` says
    whether it may be used to refuse timestamps from the future. ``frames``: a Nanogridata frame in
    ``data`` is set apart as one; otherwise it is a text like any other.
    """

    arrival_us: int
    clock_trusted: bool
    body_bytes_max: int = limits.BODY_BYTES_MAX
    items_max: int = limits.BATCH_ITEMS_MAX
    rows_max: int = limits.BLOCK_ROWS_MAX
    event_bytes_max: int = limits.EVENT_BYTES_MAX
    metrics_per_item_max: int = limits.METRICS_PER_ITEM_MAX
    frames: bool = False


class Item(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One telemetry item as sent. Exactly one of ``value``, ``values``, ``data`` must be there.

    ``values`` and ``data`` stay JSON text: payloads are kept as they came, and their size is
    checked before anything is built from them.
    """

    sensor_id: str
    timestamp: Timestamp = None
    value: float | UnsetType = UNSET
    values: msgspec.Raw | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET
    metric: str | UnsetType = UNSET


class PlainItem(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The usual item of large batches. Its fewer fields save a tenth of the time."""

    sensor_id: str
    value: float
    timestamp: Timestamp = None


class Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    """A batch inside an object."""

    readings: list[Item]


ITEM_FIELDS: Final = Item.__struct_fields__

ITEM: Final = msgspec.json.Decoder(Item)
ITEMS: Final = msgspec.json.Decoder(list[Item])
PLAIN_ITEM: Final = msgspec.json.Decoder(PlainItem)
PLAIN_ITEMS: Final = msgspec.json.Decoder(list[PlainItem])
WRAPPED: Final = msgspec.json.Decoder(Wrapped)
RAW_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
FLOAT: Final = msgspec.json.Decoder(float)
FLOATS: Final = msgspec.json.Decoder(list[float])
NAMED_FLOATS: Final = msgspec.json.Decoder(dict[str, float])
TEXT: Final = msgspec.json.Decoder(str)
TIMESTAMP: Final = msgspec.json.Decoder(Timestamp)
EPOCH_NUMBER: Final = msgspec.json.Decoder(int | float)
