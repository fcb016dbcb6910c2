"""The loss ledger: what was refused, sent twice or forgotten, by sensor, and how sure that is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ocean_core.buffer.port import DuplicateCount, IdRange
from ocean_core.config.settings import IngestSettings
from ocean_core.model import limits
from ocean_core.model.errors import StoreUnavailableError
from ocean_core.service.ledger import UNWRITTEN_S_MAX, RefusalBook
from ocean_core.service.series_quota import SeriesQuota
from ocean_core.storage.operational import loss_ledger, schema
from support.operational_kit import START_US
from support.records_kit import ANNA, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    yield records
    records.close()


def rows(box: Records, *arguments: Any, **options: Any) -> list[tuple[str, str, int]]:
    page = as_json(box.do(box.ledger.page(*arguments, **options)))
    return [(row["sensor_id"], row["class"], row["count"]) for row in page["sensors"]]


def repeat(box: Records, **counts: int) -> None:
    box.journal.repeated = {name: DuplicateCount(n, START_US) for name, n in counts.items()}


def is_written(box: Records) -> bool:
    return box.ledger.is_written


def forget(box: Records, sensor_id: str, readings: int) -> None:
    box.analytics.readings[sensor_id] = readings
    box.do(box.sensors.forget(sensor_id, sensor_id, ANNA))


# --- the book ---------------------------------------------------------------------------------


def test_a_book_adds_up_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REFUSALS_HELD_MAX", 3)
    book = RefusalBook()
    assert book.is_empty
    book.refused("OC-2002", {"a": 2, "b": 1})
    book.refused("OC-2002", {"a": 1})
    book.refused("OC-2001", {"a": 5})
    book.refused("OC-2001", {"c": 4, "b": 3})
    taken = book.take()
    assert taken == {
        ("a", "refused OC-2002"): 3,
        ("b", "refused OC-2002"): 1,
        ("a", "refused OC-2001"): 5,
        ("", "refused OC-2001"): 7,
    }
    assert book.is_empty
    book.refused("OC-2002", {"a": 1})
    book.put_back(taken)
    assert sum(book.take().values()) == 17


def test_only_sensors_that_are_known_are_named() -> None:
    quota = SeriesQuota(IngestSettings(), lambda name: {"old": "new"}.get(name, name))
    quota.learn([("s", "value"), ("s", "other"), ("old", "value")])
    counts = {"s": 1, "x": 2, "": 3, "old": 4, "new": 5}
    assert quota.by_known_sensor(counts) == {"s": 1, "": 5 + 5, "new": 4}
    quota.learn([("new", "value")])
    assert quota.by_known_sensor(counts) == {"s": 1, "": 5, "new": 9}


# --- written and read ---------------------------------------------------------------------------


def test_refusals_are_written_and_survive(box: Records) -> None:
    box.ledger.refusals.refused("OC-2002", {"s": 2, "": 7})
    box.do(box.ledger.flush())
    box.ledger.refusals.refused("OC-2002", {"s": 1})
    assert is_written(box) is False
    # Asking writes what waits.
    assert rows(box) == [("", "refused OC-2002", 7), ("s", "refused OC-2002", 3)]
    assert is_written(box) is True
    box.restart()
    assert rows(box) == [("", "refused OC-2002", 7), ("s", "refused OC-2002", 3)]


def test_what_cannot_be_written_is_kept(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_command: object) -> None:
        raise StoreUnavailableError("away")

    box.ledger.refusals.refused("OC-2002", {"s": 2})
    with monkeypatch.context() as patched:
        patched.setattr(box.store, "write", away)
        with pytest.raises(StoreUnavailableError):
            box.do(box.ledger.flush())
        box.ledger.refusals.refused("OC-2002", {"s": 1})
        assert rows(box) == []
    assert not box.ledger.is_written
    assert rows(box) == [("s", "refused OC-2002", 3)]


def test_a_caller_that_leaves_loses_no_refusals(box: Records) -> None:
    async def leave() -> None:
        box.ledger.refusals.refused("OC-2002", {"s": 2})
        flushing = asyncio.ensure_future(box.ledger.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await box.ledger.flush()

    box.do(leave())
    assert rows(box) == [("s", "refused OC-2002", 2)]


def test_a_page_has_all_classes_in_order(box: Records) -> None:
    forget(box, "b", 5)
    box.ledger.refusals.refused("OC-2002", {"a": 1, "b": 2})
    box.ledger.refusals.refused("OC-6101", {"": 9})
    repeat(box, **{"": 3, "a": 4, "c": 6})
    everything = [
        ("", "duplicate", 3),
        ("", "refused OC-6101", 9),
        ("a", "duplicate", 4),
        ("a", "refused OC-2002", 1),
        ("b", "forgotten", 5),
        ("b", "refused OC-2002", 2),
        ("c", "duplicate", 6),
    ]
    assert rows(box) == everything
    for limit in range(1, 9):
        seen: list[tuple[str, str, int]] = []
        after = ("", "")
        while True:
            page = box.do(box.ledger.page(after, limit))
            seen += [(row.sensor_id, row.loss_class, row.count) for row in page.sensors]
            assert (page.totals is not None) == (after == ("", ""))
            if page.next is None:
                break
            assert len(page.sensors) == limit
            loss_class, _, sensor_id = page.next.partition("/")
            after = sensor_id, loss_class
        assert seen == everything


def test_pages_that_are_short_of_room_leave_nothing_out(
    box: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECORDS_PAGE_BYTES_MAX", 40)
    box.ledger.refusals.refused("OC-2002", dict.fromkeys("aceg", 1))
    repeat(box, a=1, b=1, d=1, f=1, h=1)
    seen: list[str] = []
    after = ("", "")
    while after is not None:
        page = box.do(box.ledger.page(after, 100))
        seen += [f"{row.sensor_id} {row.loss_class[0]}" for row in page.sensors]
        if page.next is None:
            break
        loss_class, _, sensor_id = page.next.partition("/")
        after = sensor_id, loss_class
    assert seen == ["a d", "a r", "b d", "c r", "d d", "e r", "f d", "g r", "h d"]


def test_totals_tell_what_was_stored_and_what_is_missing(box: Records) -> None:
    box.journal.head_id = 100
    repeat(box, a=4, b=1)
    forget(box, "b", 5)
    box.ledger.refusals.refused("OC-2002", {"a": 1, "": 2})
    page = box.do(box.ledger.page())
    assert page.totals == {"stored": 100, "duplicate": 5, "forgotten": 5, "refused OC-2002": 3}
    assert page.approximate is None
    box.journal.missing = (IdRange(3, 4), IdRange(90, 90))
    totals = box.do(box.ledger.page()).totals
    assert totals is not None
    assert list(totals.items())[:2] == [("stored", 97), ("missing", 3)]
    assert box.do(box.ledger.page(with_totals=False)).totals is None


def test_one_sensor_by_any_of_its_names(box: Records) -> None:
    box.analytics.readings["a"] = 1
    box.ledger.refusals.refused("OC-2002", {"a": 1, "b": 2, "": 3})
    repeat(box, a=4, c=1, z=2)
    box.do(box.sensors.rename("a", "z", ANNA))
    # What waits when a name changes is written under the new one.
    box.ledger.refusals.refused("OC-2002", {"a": 10})
    box.ledger.refusals.refused("OC-2003", {"z": 1})
    mine = [("z", "duplicate", 6), ("z", "refused OC-2002", 11), ("z", "refused OC-2003", 1)]
    assert rows(box, sensor_id="z") == rows(box, sensor_id="a") == mine
    assert rows(box, sensor_id="") == [("", "refused OC-2002", 3)]
    assert rows(box, sensor_id="none") == []
    assert rows(box, ("z", "duplicate"), sensor_id="a") == mine[1:]
    first = box.do(box.ledger.page(limit=2, sensor_id="z"))
    assert (len(first.sensors), first.next, first.totals) == (2, "refused OC-2002/z", None)
    assert ("a", "refused OC-2002", 1) not in rows(box)


# --- after an unclean stop ------------------------------------------------------------------------


def unclean(box: Records) -> None:
    """Start again as if the process had died."""
    box.was_clean = False
    box.clock.advance(3600)
    box.restart()
    box.was_clean = True


def test_an_unclean_stop_is_told(box: Records) -> None:
    delay_us = UNWRITTEN_S_MAX * 1_000_000
    box.ledger.refusals.refused("OC-2002", {"s": 2})
    box.do(box.ledger.flush())
    unclean(box)
    assert not box.ledger.is_written
    box.do(box.ledger.flush())
    unsure = box.do(box.store.read(loss_ledger.unsure))
    # It was last seen when it wrote the ledger.
    assert unsure == (START_US - delay_us, START_US + 3600 * 10**6, 1)
    box.restart()
    page = as_json(box.do(box.ledger.page()))
    assert page["approximate"] == {
        "since": "2026-05-28T20:26:20Z", "until": "2026-05-28T21:26:40Z", "stops": 1,
    }  # fmt: skip
    # From the first such stop to the last.
    box.journal.newest_arrival_us = START_US + 3000 * 10**6
    unclean(box)
    box.do(box.ledger.flush())
    assert box.do(box.store.read(loss_ledger.unsure)) == (
        START_US - delay_us, START_US + 7200 * 10**6, 2,
    )  # fmt: skip


def test_the_newest_reading_tells_until_when_it_lived(tmp_path: Path) -> None:
    box = Records(tmp_path)
    box.journal.newest_arrival_us = START_US + 3000 * 10**6
    unclean(box)
    box.do(box.ledger.flush())
    unsure = box.do(box.store.read(loss_ledger.unsure))
    box.close()
    assert unsure is not None
    assert unsure.since_us == START_US + (3000 - UNWRITTEN_S_MAX) * 10**6


def test_a_note_that_is_no_note_is_none(box: Records) -> None:
    for text in ("", "1 2", "1 2 x", "1 2 3 4", "-1 2 3"):
        box.do(box.store.write(partial(schema.set_meta, key="refusals unsure", value=text)))
        assert box.do(box.store.read(loss_ledger.unsure)) is None
    assert msgspec.json.decode(msgspec.json.encode(box.do(box.ledger.page())))["sensors"] == []
