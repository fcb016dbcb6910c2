"""Which table answers which part of a range: exact, and as coarse as possible.

Rollups answer for whole hours and minutes, raw readings for what is left at the edges, so that a
bound in the middle of a minute is never rounded.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ocean_core.model import limits
from ocean_core.service.queries.values import HOUR_US, MINUTE_US

LOW_US: Final = limits.TIMESTAMP_US_MIN
HIGH_US: Final = limits.TIMESTAMP_US_MAX + 1
RAW_US: Final = 1
"""The unit of raw readings. It and both ends of time are whole hours or fit any unit."""

SOURCES: Final = {HOUR_US: "rollup_1h", MINUTE_US: "rollup_1m", RAW_US: "raw"}

# The parts of a UNION ALL. Their texts are fixed; every bound is a parameter.
_ROLLUP: Final = (
    "SELECT series_id, epoch_us(bucket) AS t, n, mean, m2, min, max, "
    "epoch_us(first_ts) AS first_us, epoch_us(last_ts) AS last_us FROM {table} "
    "WHERE {series} AND bucket >= make_timestamp(?::BIGINT) AND bucket < make_timestamp(?::BIGINT)"
)
_RAW: Final = (
    "SELECT series_id, epoch_us(ts) AS t, 1::BIGINT AS n, value AS mean, 0::DOUBLE AS m2, "
    "value AS min, value AS max, epoch_us(ts) AS first_us, epoch_us(ts) AS last_us FROM readings "
    "WHERE {series} AND ts >= make_timestamp(?::BIGINT) AND ts < make_timestamp(?::BIGINT)"
)
_TEXTS: Final = {
    HOUR_US: _ROLLUP.replace("{table}", "rollup_1h"),
    MINUTE_US: _ROLLUP.replace("{table}", "rollup_1m"),
    RAW_US: _RAW,
}


class Part(NamedTuple):
    """``low_us <= t < high_us``, from the table of one unit."""

    unit_us: int
    low_us: int
    high_us: int


def plan(low_us: int, high_us: int, coarsest_us: int = HOUR_US) -> list[Part]:
    """Cut ``low_us <= t < high_us`` into parts; none where the range is empty."""
    if low_us >= high_us:
        return []
    finer = {HOUR_US: MINUTE_US, MINUTE_US: RAW_US}.get(coarsest_us)
    if finer is None:
        return [Part(RAW_US, low_us, high_us)]
    inner_low = -(-low_us // coarsest_us) * coarsest_us
    inner_high = high_us // coarsest_us * coarsest_us
    if inner_low >= inner_high:
        return plan(low_us, high_us, finer)
    return [
        *plan(low_us, inner_low, finer),
        Part(coarsest_us, inner_low, inner_high),
        *plan(inner_high, high_us, finer),
    ]


def source_of(parts: list[Part]) -> str:
    """Return the word for where an answer came from, such as ``rollup_1h+raw``."""
    used = {part.unit_us for part in parts}
    return "+".join(word for unit, word in SOURCES.items() if unit in used) or "raw"


def parts_sql(parts: list[Part], series_ids: list[int]) -> tuple[str, list[object]]:
    """Return the UNION ALL of the parts, and its parameters."""
    series = "series_id = ?"
    if len(series_ids) > 1:
        series = f"series_id IN ({', '.join('?' * len(series_ids))})"
    texts: list[str] = []
    params: list[object] = []
    for part in parts:
        texts.append(_TEXTS[part.unit_us].replace("{series}", series))
        params += [*series_ids, part.low_us, part.high_us]
    return " UNION ALL ".join(texts), params
