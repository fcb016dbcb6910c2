"""What ``verify`` and ``digests`` answer."""

from __future__ import annotations

from typing import Literal

import msgspec

Difference = Literal["absent", "changed", "doubled", "surplus"]
"""How a row of analytics differs from what the journal holds.

``absent``: it is not there. ``changed``: series, time, content or quality is another. ``doubled``:
it is there once more. ``surplus``: nothing in the journal says that it should be there.
"""
Absence = Literal["missing", "damaged", "trimmed"]


class SeriesDifference(msgspec.Struct, frozen=True):
    """How many rows of a series differ; for events the metric is empty."""

    sensor_id: str
    metric: str
    absent: int
    changed: int
    doubled: int
    surplus: int


class RowDifference(msgspec.Struct, frozen=True):
    """One row that differs."""

    id: int
    sensor_id: str
    metric: str
    difference: Difference


class LostRange(msgspec.Struct, frozen=True):
    """Ids that the journal does not hold (any longer); ``in_analytics`` still stand there."""

    first_id: int
    last_id: int
    why: Absence
    in_analytics: int


class ForgottenRows(msgspec.Struct, frozen=True):
    """Rows in the journal that were forgotten, by the present name of the sensor."""

    sensor_id: str
    count: int


class TotalsDifference(msgspec.Struct, frozen=True):
    """A series whose rollups do not say what its readings say."""

    sensor_id: str
    metric: str
    rollup: str
    detail: str


class TotalsCheck(msgspec.Struct, frozen=True):
    """Rollups against readings: count, sum, extremes and ends of each series.

    ``checked`` is false, and ``why_not`` tells why, where there are too many readings for that.
    """

    checked: bool
    why_not: str
    series: int
    readings: int
    differing: int
    differences: list[TotalsDifference]


class VerifyStep(msgspec.Struct, frozen=True):
    """What was found for the ids behind ``after_id`` up to ``up_to_id``.

    ``next_after_id`` is null when nothing is left to compare; only then ``totals`` is there, and
    ``waiting`` counts what analytics have not taken over yet. ``readings`` and ``events`` are what
    the journal holds; of these ``forgotten`` must not be in analytics. ``missing`` (known to be
    lost), ``damaged`` (found now) and ``trimmed`` count ids that the journal does not hold;
    ``kept`` of them are in analytics all the same. The digests are those of the readings that
    analytics must hold, and of those that they hold.
    """

    after_id: int
    up_to_id: int
    next_after_id: int | None
    watermark: int
    head_id: int
    waiting: int
    readings: int
    events: int
    forgotten: int
    missing: int
    damaged: int
    trimmed: int
    kept: int
    equal: int
    absent: int
    changed: int
    doubled: int
    surplus: int
    digest_journal: str
    digest_analytics: str
    series_differing: int
    series: list[SeriesDifference]
    examples: list[RowDifference]
    lost: list[LostRange]
    forgotten_sensors: list[ForgottenRows]
    totals: TotalsCheck | None


class SeriesDigest(msgspec.Struct, frozen=True):
    """How many readings of a series analytics hold, and the digest of all of them."""

    sensor_id: str
    metric: str
    count: int
    digest: str


class Digests(msgspec.Struct, frozen=True):
    """A page by name; ``next`` is what to send as ``after`` for the following one, null at the end."""

    series: list[SeriesDigest]
    next: str | None
    watermark: int
