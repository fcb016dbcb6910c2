"""Readings: ``decode_single`` and ``decode_batch`` turn a request's body into an Intake.

The shapes and rules are described for their users in ``docs/ingest-format.md``. There is a fast
way, typed decoding and columns, and a thorough one that finds every problem. The fast way never
decides that a request is bad: at the first doubt the thorough way takes over, from the bytes.
"""

from __future__ import annotations

import msgspec

from ocean_core.model.receipt import Intake
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings.assemble import Assembler, rejected_items
from ocean_core.protocol.readings.columnar import (
    columnar_intake,
    columnar_thoroughly,
    is_columnar,
)
from ocean_core.protocol.readings.columns import plain_intake, uniform_intake
from ocean_core.protocol.readings.diagnose import add_raw
from ocean_core.protocol.readings.ndjson import decode_ndjson, ndjson_intake
from ocean_core.protocol.readings.packed import decode_packed, packed_intake_quickly
from ocean_core.protocol.readings.shapes import (
    ARRAY_ROWS_MIN,
    ITEM,
    ITEMS,
    PLAIN_ITEMS,
    WRAPPED,
    DecodeContext,
)
from ocean_core.protocol.readings.syntax import (
    check_body,
    check_count,
    check_item_count,
    first_byte,
    malformed,
    split_batch,
    split_object,
)

__all__ = [
    "DecodeContext",
    "decode_single",
    "decode_batch",
    "decode_batch_quickly",
    "decode_single_thoroughly",
    "decode_batch_thoroughly",
    "rejected_items",
]


# Below, a batch can hardly have the rows that make columns worth while.
_PLAIN_BYTES_MIN = ARRAY_ROWS_MIN * 32
# More than that take too long for an event loop.
_QUICK_ITEMS_MAX = 4_096
# The shortest good item, with its comma: {"sensor_id":"a","value":1},
_ITEM_BYTES_MIN = 27
_QUICK_ELEMENTS_MAX = 3 * _QUICK_ITEMS_MAX


def decode_single(body: bytes, context: DecodeContext) -> Intake:
    """Return the one item of a request to /ingest, of one or several readings or one event.

    Raises MalformedBodyError, InvalidReadingError or BodyTooLargeError.
    """
    check_body(body, context)
    try:
        item = ITEM.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return decode_single_thoroughly(body, context)
    assembler = Assembler(context)
    try:
        assembler.add(item, None)
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=False)


def decode_batch_quickly(
    body: bytes, context: DecodeContext, media: Media = Media.JSON
) -> Intake | None:
    """Return the Intake of a batch of plain good items, None if it needs ``decode_batch``.

    Takes about a millisecond at most for 256 KB whatever the bytes are; the thorough way may take
    a thousand times as long, so an event loop wants to know which it will be.
    """
    if media is Media.BLOCK:
        return packed_intake_quickly(body, context)
    first = body[:1]
    if first != b"{" and (first != b"[" or media is Media.NDJSON):
        return None
    if len(body) < _PLAIN_BYTES_MIN:
        return None
    if len(body) > _QUICK_ITEMS_MAX * _ITEM_BYTES_MIN and body.count(b"{") > _QUICK_ITEMS_MAX:
        return None
    if media is Media.NDJSON:
        return ndjson_intake(body, context, quickly=True)
    check_body(body, context)
    check_item_count(body, context)
    if first == b"[":
        return _plain(body, context, quickly=True)
    if body.count(b",") > _QUICK_ELEMENTS_MAX:
        return None
    return columnar_intake(body, context, quickly=True)


def decode_batch(
    body: bytes, context: DecodeContext, *, partial: bool, media: Media = Media.JSON
) -> Intake:
    """Return the items of a request to /batch.

    All or nothing, unless ``partial``: then the good items are in the Intake, and ``rejects`` has
    the others' problems with their positions in the request; ``rejected_items`` counts them.
    Raises MalformedBodyError, InvalidReadingError (also if no item is good) or BodyTooLargeError.
    """
    if media is Media.BLOCK:
        return decode_packed(body, context, partial=partial)
    if media is Media.NDJSON:
        return decode_ndjson(body, context, partial=partial)
    check_body(body, context)
    check_item_count(body, context)
    bare = first_byte(body) == ord("[")
    intake: Intake | None = None
    if not bare:
        intake = columnar_intake(body, context)
    elif len(body) >= _PLAIN_BYTES_MIN:
        intake = _plain(body, context)
    return intake or _decode_items(body, context, bare=bare, partial=partial)


def _decode_items(body: bytes, context: DecodeContext, *, bare: bool, partial: bool) -> Intake:
    try:
        items = ITEMS.decode(body) if bare else WRAPPED.decode(body).readings
    except (msgspec.DecodeError, RecursionError):
        return decode_batch_thoroughly(body, context, partial=partial)
    check_count(len(items), context)
    if len(items) >= ARRAY_ROWS_MIN:
        intake = uniform_intake(items, context)
        if intake is not None:
            return intake
    assembler = Assembler(context)
    try:
        for position, item in enumerate(items):
            assembler.add(item, position)
            if not partial and assembler.has_enough_problems:
                break
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=partial)


def _plain(body: bytes, context: DecodeContext, *, quickly: bool = False) -> Intake | None:
    """Return a batch of many plain items, or None if it is not one, or not a good one."""
    try:
        items = PLAIN_ITEMS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not ARRAY_ROWS_MIN <= len(items) <= context.items_max:
        return None
    return plain_intake(items, context, quickly=quickly)


def decode_single_thoroughly(body: bytes, context: DecodeContext) -> Intake:
    """Do what ``decode_single`` does, slowly, naming every problem."""
    check_body(body, context)
    assembler = Assembler(context)
    raw = split_object(body).strip(b" \t\r\n")
    try:
        add_raw(assembler, raw, None, context)
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=False)


def decode_batch_thoroughly(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Do what ``decode_batch`` does, slowly, item by item, naming every problem."""
    check_body(body, context)
    check_item_count(body, context)
    if first_byte(body) == ord("{") and is_columnar(body):
        try:
            return columnar_thoroughly(body, context, partial=partial)
        except RecursionError as error:
            raise malformed(body, error) from None
    raws = split_batch(body, context)
    check_count(len(raws), context)
    assembler = Assembler(context)
    try:
        for position, raw in enumerate(raws):
            add_raw(assembler, bytes(raw), position, context)
            if not partial and assembler.has_enough_problems:
                break
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=partial)
