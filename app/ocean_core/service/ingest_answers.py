"""What a client is told about readings that were stored."""

from __future__ import annotations

import msgspec

from ocean_core.model.block import EVENT_METRIC, Quality, SeriesName
from ocean_core.model.errors import FieldProblem
from ocean_core.model.receipt import Intake, Receipt
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.readings import rejected_items


class SingleAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to one item, with the original's fields."""

    id: int
    sensor_id: str
    buffered: bool
    timestamp: str
    count: int = 1
    kind: str = "reading"
    quality: int = 0
    duplicate: bool = False


class BatchAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to a batch: one id per accepted item, in order.

    ``duplicates`` counts Nanogridata frames that were stored before; their id is 0. ``duplicate``:
    the other items were, by the request's Idempotency-Key.
    """

    count: int
    ids: list[int]
    buffered: bool
    timestamp: str
    duplicate: bool = False
    duplicates: int = 0
    rejected_count: int = 0
    rejected: tuple[FieldProblem, ...] = ()


class ColumnsAnswer(msgspec.Struct, omit_defaults=True):
    """The answer to columns: the accepted readings have the ids first_id to last_id, in order."""

    count: int
    first_id: int
    last_id: int
    buffered: bool
    timestamp: str
    duplicate: bool = False
    rejected_count: int = 0
    rejected: tuple[FieldProblem, ...] = ()


def answer_to_single(receipt: Receipt, intake: Intake | None, sensor_id: str) -> bytes:
    """Return the JSON about one item.

    ``intake`` is None for a repeat that would be refused now; then ``sensor_id`` tells whose it is.
    """
    is_event = receipt.first_reading_id == 0
    return msgspec.json.encode(
        SingleAnswer(
            id=receipt.item_ids()[0],
            sensor_id=sensor_id if intake is None else series_of(intake)[0][0],
            buffered=True,
            timestamp=iso_utc(receipt.timestamp_us),
            count=1 if is_event or receipt.layout is None else receipt.layout[0],
            kind="event" if is_event else "reading",
            quality=0 if receipt.duplicate else _quality_of(intake),
            duplicate=receipt.duplicate,
        )
    )


def answer_to_many(receipt: Receipt) -> bytes:
    """Return the JSON about a batch: one id for each item, or the range of ids of columns."""
    answer: BatchAnswer | ColumnsAnswer
    if receipt.columnar:
        answer = ColumnsAnswer(
            count=receipt.items,
            first_id=receipt.first_reading_id,
            last_id=receipt.first_reading_id + receipt.items - 1,
            buffered=True,
            timestamp=iso_utc(receipt.arrival_us),
            duplicate=receipt.duplicate,
            rejected_count=rejected_items(receipt.rejects),
            rejected=receipt.rejects,
        )
    else:
        answer = BatchAnswer(
            count=receipt.items,
            ids=receipt.item_ids(),
            buffered=True,
            timestamp=iso_utc(receipt.arrival_us),
            duplicate=receipt.duplicate,
            rejected_count=rejected_items(receipt.rejects),
            rejected=receipt.rejects,
        )
    return msgspec.json.encode(answer)


def series_of(intake: Intake) -> list[SeriesName]:
    """Return the series of a request, those of its readings first; events have no metric."""
    names: list[SeriesName] = []
    if intake.readings is not None:
        names.extend(intake.readings.series)
    if intake.events is not None:
        names.extend((sensor_id, EVENT_METRIC) for sensor_id, _ in intake.events.series)
    return names


def _quality_of(intake: Intake | None) -> int:
    return Quality.UNTRUSTED_CLOCK if intake is not None and intake.untrusted_clock else 0
