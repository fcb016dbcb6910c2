"""The tally of what was acknowledged, and the audit that compares it with what is held."""

import itertools

import numpy as np
import pytest

from ocean_core.client.http import ApiClient
from ocean_core.model.digest import add_digests, digest_of
from ocean_core.simulator.audit import (
    DIFFERENCES_LISTED_MAX,
    DIGESTS,
    Name,
    compare,
    read_shares,
)
from ocean_core.simulator.fleet import Columns
from ocean_core.simulator.parcels import Lot, Parcel
from ocean_core.simulator.tally import Share, Tally

NAMES: list[Name] = [("a", "value"), ("b", "value"), ("c", "value")]


def lot_of(rows: int, first: int = 0) -> Lot:
    """Return readings of all three series in turn; no two of any lot are alike."""
    numbers = np.arange(first, first + rows)
    return Lot(
        Columns(
            (numbers % 3).astype(np.uint32), numbers.astype(np.int64), numbers.astype(np.float64)
        )
    )


def parcels_of(lot: Lot, rows: int) -> list[Parcel]:
    total = len(lot.columns.value)
    return [
        Parcel(lot, start, min(total, start + rows), number, b"", 0)
        for number, start in enumerate(range(0, total, rows))
    ]


def share_of(lot: Lot, place: int, rows: slice = slice(None)) -> Share:
    columns = lot.columns
    mine = columns.index[rows] == place
    return Share(
        int(mine.sum()), digest_of(columns.timestamp_us[rows][mine], columns.value[rows][mine])
    )


def held(tally: Tally) -> dict[Name, Share]:
    """Return what a server holds that has exactly what was acknowledged."""
    return {name: tally.share(place) for place, name in enumerate(NAMES)}


def plus(one: Share, other: Share) -> Share:
    return Share(one.count + other.count, add_digests(one.digest, other.digest))


def acknowledged_tally(rows: int = 90) -> tuple[Tally, Lot]:
    tally, lot = Tally(3), lot_of(rows)
    for parcel in parcels_of(lot, 10):
        tally.open(lot)
        tally.acknowledge(parcel)
    return tally, lot


def test_what_is_acknowledged_is_counted_by_series() -> None:
    tally, lot = acknowledged_tally()
    assert [tally.share(place) for place in range(3)] == [
        share_of(lot, place) for place in range(3)
    ]
    assert int(tally.counts.sum()) == 90


def test_what_was_refused_or_left_open_is_not_counted() -> None:
    tally, lot = Tally(3), lot_of(60)
    first, second, third, *rest = parcels_of(lot, 10)
    tally.open(lot)
    tally.drop(first)
    tally.leave_open(second)
    for parcel in (third, *rest):
        tally.acknowledge(parcel)
    for place in range(3):
        assert tally.share(place) == share_of(lot, place, slice(20, 60))
        assert tally.unresolved_of(place) == [share_of(lot, place, slice(10, 20))]
    assert tally.unresolved_readings == 10


def test_what_is_still_under_way_is_counted_at_the_end_alone() -> None:
    tally, lot = Tally(3), lot_of(30)
    tally.open(lot)
    tally.acknowledge(parcels_of(lot, 10)[1])
    assert int(tally.counts.sum()) == 0
    tally.settle()
    tally.settle()
    assert tally.share(1) == share_of(lot, 1, slice(10, 20))
    assert int(tally.counts.sum()) == 10


def test_a_box_that_holds_it_all_once_is_clean() -> None:
    tally, _ = acknowledged_tally()
    audit = compare(NAMES, tally, {}, held(tally))
    assert audit.is_clean
    assert (audit.acknowledged, audit.found, audit.lost, audit.doubled) == (90, 90, 0, 0)


def test_what_was_there_before_does_not_count() -> None:
    tally, _ = acknowledged_tally()
    before = {NAMES[0]: share_of(lot_of(300, first=1000), 0)}
    after = held(tally)
    after[NAMES[0]] = plus(after[NAMES[0]], before[NAMES[0]])
    assert compare(NAMES, tally, before, after).is_clean
    # Unless it has gone meanwhile.
    assert not compare(NAMES, tally, before, held(tally)).is_clean


def test_a_lost_reading_is_found_and_named() -> None:
    tally, lot = acknowledged_tally()
    after = held(tally)
    after[NAMES[1]] = share_of(lot, 1, slice(2, None))
    audit = compare(NAMES, tally, {}, after)
    assert (audit.is_clean, audit.lost, audit.doubled, audit.found) == (False, 1, 0, 89)
    (difference,) = audit.differences
    assert (difference.sensor_id, difference.acknowledged, difference.found) == ("b", 30, 29)


def test_a_series_that_is_not_there_is_lost() -> None:
    tally, _ = acknowledged_tally()
    after = held(tally)
    del after[NAMES[2]]
    audit = compare(NAMES, tally, {}, after)
    assert (audit.lost, audit.found, audit.series_differing) == (30, 60, 1)


def test_a_doubled_reading_is_found() -> None:
    tally, lot = acknowledged_tally()
    after = held(tally)
    after[NAMES[0]] = plus(after[NAMES[0]], share_of(lot, 0, slice(0, 1)))
    audit = compare(NAMES, tally, {}, after)
    assert (audit.is_clean, audit.lost, audit.doubled, audit.found) == (False, 0, 1, 91)


def test_as_many_but_other_readings_are_not_clean() -> None:
    tally, lot = acknowledged_tally()
    after = held(tally)
    # One is lost and another is there twice.
    after[NAMES[0]] = plus(share_of(lot, 0, slice(1, None)), share_of(lot, 0, slice(3, 4)))
    audit = compare(NAMES, tally, {}, after)
    assert not audit.is_clean
    assert (audit.lost, audit.doubled) == (0, 0)
    assert "not the same" in audit.differences[0].why


def unresolved_tally(requests: int) -> tuple[Tally, list[Parcel]]:
    tally, lot = Tally(3), lot_of(30 + 3 * requests)
    parcels = parcels_of(lot, 3)
    tally.open(lot)
    for parcel in parcels[:10]:
        tally.acknowledge(parcel)
    for parcel in parcels[10:]:
        tally.leave_open(parcel)
    return tally, parcels[10:]


@pytest.mark.parametrize("stored", [(), (0,), (1,), (0, 2), (0, 1, 2)])
def test_unresolved_requests_may_be_stored_or_not(stored: tuple[int, ...]) -> None:
    tally, unresolved = unresolved_tally(3)
    after = held(tally)
    for number, place in itertools.product(stored, range(3)):
        parcel = unresolved[number]
        extra = share_of(parcel.lot, place, slice(parcel.start, parcel.stop))
        after[NAMES[place]] = plus(after[NAMES[place]], extra)
    audit = compare(NAMES, tally, {}, after)
    assert audit.is_clean
    assert (audit.acknowledged, audit.found) == (30, 30)
    assert (audit.unresolved, audit.unresolved_found) == (9, 3 * len(stored))


@pytest.mark.parametrize("requests", [3, 40])
def test_unresolved_requests_do_not_hide_a_loss_or_a_doubling(requests: int) -> None:
    tally, unresolved = unresolved_tally(requests)
    lot = unresolved[0].lot
    after = held(tally)
    after[NAMES[0]] = share_of(lot, 0, slice(3, 30))
    assert not compare(NAMES, tally, {}, after).is_clean
    after = held(tally)
    for _ in range(requests + 1):
        after[NAMES[0]] = plus(after[NAMES[0]], share_of(lot, 0, slice(30, 33)))
    assert not compare(NAMES, tally, {}, after).is_clean


def test_so_many_unresolved_requests_that_nobody_can_tell_are_no_clean_audit() -> None:
    tally, unresolved = unresolved_tally(20)
    lot = unresolved[0].lot
    # A loss and a stored one that was never answered: the counts alone look well.
    after = held(tally)
    after[NAMES[0]] = plus(share_of(lot, 0, slice(3, 30)), share_of(lot, 0, slice(30, 36)))
    audit = compare(NAMES, tally, {}, after)
    assert (audit.series_differing, audit.series_unsure) == (0, 1)
    assert not audit.is_clean


def test_stored_twice_is_not_explained_by_another_unresolved_request() -> None:
    tally, unresolved = unresolved_tally(2)
    after = held(tally)
    for _ in range(2):
        extra = share_of(unresolved[0].lot, 0, slice(30, 33))
        after[NAMES[0]] = plus(after[NAMES[0]], extra)
    assert not compare(NAMES, tally, {}, after).is_clean


def test_differences_are_counted_beyond_those_that_are_listed() -> None:
    names = [(f"s-{number}", "value") for number in range(DIFFERENCES_LISTED_MAX + 5)]
    audit = compare(names, Tally(len(names)), {}, dict.fromkeys(names, Share(1, 1)))
    assert len(audit.differences) == DIFFERENCES_LISTED_MAX
    assert audit.series_differing == audit.doubled == len(names)


class PagedApi(ApiClient):
    """Answers with one series a page."""

    def __init__(self, pages: dict[str | None, dict[str, object]]) -> None:
        self.pages = pages
        self.queries: list[object] = []

    def call(self, method: str, path: str, **more: object) -> object:
        query = more["query"]
        assert (method, path) == ("GET", DIGESTS)
        assert isinstance(query, dict)
        self.queries.append(query)
        return self.pages[query["after"]]


def test_digests_are_read_page_by_page() -> None:
    def entry(sensor: str, digest: str) -> dict[str, object]:
        return {"sensor_id": sensor, "metric": "value", "count": 2, "digest": digest}

    api = PagedApi(
        {
            None: {"series": [entry("a", "00000000000000ff")], "next": "x", "watermark": 9},
            "x": {"series": [entry("b", "ffffffffffffffff")], "next": None, "watermark": 9},
        }
    )
    assert read_shares(api, "sim-") == {
        ("a", "value"): Share(2, 255),
        ("b", "value"): Share(2, 2**64 - 1),
    }
    assert api.queries == [
        {"prefix": "sim-", "after": None, "wait": True},
        {"prefix": "sim-", "after": "x", "wait": True},
    ]
