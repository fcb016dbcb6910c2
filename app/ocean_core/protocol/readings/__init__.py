"""Readings in JSON: ``decode_single`` and ``decode_batch`` turn a request's body into an Intake.

The shapes and rules are described for their users in ``docs/ingest-format.md``. There is a fast
way, typed decoding and columns, and a thorough one that finds every problem. The fast way never
decides that a request is bad: at the first doubt the thorough way takes over, from the bytes.
"""

from __future__ import annotations

import msgspec

from ocean_core.model.errors import FieldProblem, InvalidReadingError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.readings.assemble import Assembler, rejected_items
from ocean_core.protocol.readings.columns import plain_intake, uniform_intake
from ocean_core.protocol.readings.diagnose import item_problems
from ocean_core.protocol.readings.shapes import (
    ARRAY_ROWS_MIN,
    ITEM,
    ITEMS,
    PLAIN_ITEMS,
    WRAPPED,
    DecodeContext,
    Item,
)
from ocean_core.protocol.readings.syntax import (
    check_body,
    check_item_count,
    first_byte,
    malformed,
    split_batch,
    split_object,
    too_many,
)
from ocean_core.protocol.readings.wording import sentence

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


def decode_batch_quickly(body: bytes, context: DecodeContext) -> Intake | None:
    """Return the Intake of a batch of plain good items, None if it needs ``decode_batch``.

    Takes well under a millisecond for 256 KB whatever the bytes are; the thorough way may take
    a thousand times as long, so an event loop wants to know which it will be.
    """
    if len(body) < _PLAIN_BYTES_MIN or body[:1] != b"[":
        return None
    check_body(body, context)
    check_item_count(body, context)
    return _plain(body, context)


def decode_batch(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Return the items of a request to /batch.

    All or nothing, unless ``partial``: then the good items are in the Intake, and ``rejects`` has
    the others' problems with their positions in the request; ``rejected_items`` counts them.
    Raises MalformedBodyError, InvalidReadingError (also if no item is good) or BodyTooLargeError.
    """
    check_body(body, context)
    check_item_count(body, context)
    bare = first_byte(body) == ord("[")
    if bare and len(body) >= _PLAIN_BYTES_MIN:
        intake = _plain(body, context)
        if intake is not None:
            return intake
    try:
        items = ITEMS.decode(body) if bare else WRAPPED.decode(body).readings
    except (msgspec.DecodeError, RecursionError):
        return decode_batch_thoroughly(body, context, partial=partial)
    _check_count(len(items), context)
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


def _plain(body: bytes, context: DecodeContext) -> Intake | None:
    """Return a batch of many plain items, or None if it is not one, or not a good one."""
    try:
        items = PLAIN_ITEMS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not ARRAY_ROWS_MIN <= len(items) <= context.items_max:
        return None
    return plain_intake(items, context)


def decode_single_thoroughly(body: bytes, context: DecodeContext) -> Intake:
    """Do what ``decode_single`` does, slowly, naming every problem."""
    check_body(body, context)
    assembler = Assembler(context)
    raw = split_object(body).strip(b" \t\r\n")
    try:
        _add_raw(assembler, raw, None, context)
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=False)


def decode_batch_thoroughly(body: bytes, context: DecodeContext, *, partial: bool) -> Intake:
    """Do what ``decode_batch`` does, slowly, item by item, naming every problem."""
    check_body(body, context)
    raws = split_batch(body, context)
    _check_count(len(raws), context)
    assembler = Assembler(context)
    try:
        for position, raw in enumerate(raws):
            _add_raw(assembler, bytes(raw), position, context)
            if not partial and assembler.has_enough_problems:
                break
    except RecursionError as error:
        raise malformed(body, error) from None
    return assembler.finish(partial=partial)


def _add_raw(
    assembler: Assembler, raw: bytes, position: int | None, context: DecodeContext
) -> None:
    item: Item
    try:
        item = ITEM.decode(raw)
    except msgspec.DecodeError as error:
        assembler.refuse(item_problems(raw, error, assembler, context), position)
    else:
        assembler.add(item, position)


def _check_count(count: int, context: DecodeContext) -> None:
    if count == 0:
        problem = FieldProblem("", "[]", "at least one reading")
        raise InvalidReadingError(sentence(problem) + ".", fields=(problem,))
    if count > context.items_max:
        raise too_many(context)
