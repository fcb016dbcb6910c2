"""Quarantine: what is kept, what goes first, what costs how much, and what a retry does."""

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model import limits
from ocean_core.model.access import Principal, Scope
from ocean_core.model.errors import (
    BufferFullError,
    BufferUnavailableError,
    DiskFullError,
    ForbiddenError,
    InvalidInputError,
    UnknownRecordError,
)
from ocean_core.model.naming import NameRule
from ocean_core.service.frames import gathering
from ocean_core.service.frames.gathering import note_of
from ocean_core.service.frames.quarantine_answers import MEANINGS
from ocean_core.service.frames.terms import FrameResult, Source
from ocean_core.storage.operational import quarantine as rows_of
from support.operational_kit import Blocker, in_loop, until
from support.quarantine_kit import HERE, MARKERS_KEPT_S, Lab, frame_of, lab

KEY = Principal("key", "k1", "hall", frozenset({Scope.INGEST}), user_id="u1", sensors="hall-*")


def commits(box: Lab) -> float:
    return box.store._settings.metrics.value("ocean_accounts_commits_total")


# --- keeping


@in_loop
async def test_a_refused_frame_is_kept_with_all_that_is_known(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        frame = frame_of(1)
        await box.keep(frame, "E_MAC", offset=20, sensor_id="known-1", given="g", sender=KEY)
        (row,) = await box.rows()
        assert (row.frame, row.size, row.digest) == (
            frame,
            len(frame),
            hashlib.sha256(frame).digest(),
        )
        assert (row.outcome, row.detail, row.byte_offset, row.model_id) == ("E_MAC", "why", 20, 16)
        assert (row.sensor_id, row.given, row.seen, row.is_early) == ("known-1", "g", 1, 0)
        assert (row.actor, row.pattern, row.user_id) == ("key:k1", "hall-*", "u1")
        assert row.first_us == row.last_us == box.clock.now_us()
        shown = await box.quarantine.get(row.id)
        assert shown.frame == frame.hex()
        assert shown.header is not None
        assert (shown.header.model, shown.header.level, shown.header.length) == ("0x10", 1, 6)
        assert shown.meaning == MEANINGS["E_MAC"][0]
        assert await box.ledger() == {("known-1", "quarantined"): 1}
        assert box.metrics.value("ocean_quarantine_frames") == 1
        assert box.metrics.value("ocean_quarantine_kept_total") == 1


@in_loop
async def test_the_same_bytes_again_raise_a_count(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1), "E_FUTURE", is_early=True)
        first_us = box.clock.now_us()
        box.clock.advance(5)
        await box.keep(frame_of(1), "E_KEY")
        (row,) = await box.rows()
        assert (row.seen, row.outcome, row.is_early) == (2, "E_KEY", 1)
        assert (row.first_us, row.last_us) == (first_us, first_us + 5_000_000)
        await box.keep(frame_of(1), "E_REPLAY")
        (row,) = await box.rows()
        assert (row.seen, row.outcome) == (3, "E_KEY"), "why it was refused first says more"
        assert await box.ledger() == {("", "quarantined"): 3}


@in_loop
async def test_what_is_no_frame_is_kept_too_and_cut(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        for data in (b"", b"\xc1", b"\x00" * 14, random.Random(1).randbytes(60_000)):
            await box.keep(data, "E_SHORT", detail="\ud800" + "x" * 9999, sensor_id="y\ud800")
        rows = await box.rows()
        assert [row.size for row in rows] == [0, 1, 14, 60_000]
        assert len(rows[-1].frame) == limits.QUARANTINE_FRAME_BYTES_MAX
        assert all(len(row.detail) == limits.QUARANTINE_DETAIL_CHARS_MAX for row in rows)
        assert (await box.quarantine.get(rows[0].id)).header is None
        answer = await box.retry(ids=[rows[-1].id])
        assert (answer.kept, box.taker.asked) == (1, []), "what was cut cannot be taken"
        assert "2048 of its 60000 bytes" in answer.frames[0].detail


@in_loop
async def test_the_oldest_go_first_and_are_counted_by_sensor(tmp_path: Path) -> None:
    async with lab(tmp_path, frames_max=3) as box:
        for number, sensor_id in enumerate(["known-a", "known-b", "x", "known-a", "y"]):
            await box.keep(frame_of(number), sensor_id=sensor_id)
        assert [row.frame for row in await box.rows()] == [frame_of(n) for n in (2, 3, 4)]
        ledger = await box.ledger()
        assert (
            ledger["known-a", "quarantine evicted"] == ledger["known-b", "quarantine evicted"] == 1
        )
        assert ledger["known-a", "quarantined"] == ledger["", "quarantined"] == 2
        assert box.metrics.value("ocean_quarantine_evicted_total") == 2
        # Ids are never given out twice.
        await box.quarantine.forget(5, HERE)
        await box.keep(frame_of(9))
        assert [row.id for row in await box.rows()] == [3, 4, 6]
        await box.check_books()


@in_loop
async def test_a_renamed_sensor_is_counted_under_its_name_of_today(tmp_path: Path) -> None:
    async with lab(tmp_path, frames_max=1) as box:
        await box.keep(frame_of(1), sensor_id="known-a")
        box.names.rules.append(NameRule(1, "rename", "known-a", "new", 0))
        await box.keep(frame_of(2), sensor_id="known-a")
        ledger = await box.ledger()
        assert ledger["new", "quarantined"] == ledger["new", "quarantine evicted"] == 1


@in_loop
async def test_a_flood_costs_few_commits_and_little_memory(tmp_path: Path) -> None:
    async with lab(tmp_path, frames_max=100) as box:
        before = commits(box)
        flood = limits.QUARANTINE_WAITING_MAX + 5_000
        for number in range(flood):
            box.quarantine.keep(box.refused(frame_of(number), sensor_id="known-1"))
        await box.quarantine.settle()
        assert commits(box) - before == 1
        rows = await box.rows()
        assert [row.frame for row in rows] == [frame_of(n) for n in range(flood - 100, flood)]
        assert await box.ledger() == {
            ("known-1", "quarantined"): flood, ("known-1", "quarantine evicted"): flood - 100,
        }  # fmt: skip
        assert box.metrics.value("ocean_quarantine_evicted_total") == flood - 100
        # Right after so many nothing is written for a while, unless somebody waits for it.
        box.quarantine.keep(box.refused(frame_of(flood)))
        await asyncio.sleep(0.05)
        assert commits(box) - before == 1
        await box.quarantine.settle()
        assert commits(box) - before == 2


@in_loop
async def test_a_flood_that_does_not_end_wears_no_disk_and_holds_up_nobody(tmp_path: Path) -> None:
    async with lab(tmp_path, frames_max=100) as box:
        burst = 2 * limits.QUARANTINE_WAITING_MAX

        def kept() -> float:
            return box.metrics.value("ocean_quarantine_kept_total")

        sent = 0

        async def flood(numbers: range) -> None:
            nonlocal sent
            sent += len(numbers)
            for number in numbers:
                box.quarantine.keep(box.refused(frame_of(number)))
            await box.quarantine.settle()

        for start in range(0, 4 * burst, 2_000):
            await flood(range(start, start + 2_000))
        assert kept() <= burst
        # Nobody waits, nothing is written; what comes too fast is counted.
        before = commits(box)
        await asyncio.wait_for(flood(range(100_000, 110_000)), 1)
        assert commits(box) == before
        box.clock.advance(5)
        await asyncio.wait_for(box.quarantine.tick(), 5)
        assert kept() <= burst + 5 * gathering.STEADY_ROWS_PER_S
        await box.quarantine.close()
        assert (await box.ledger())["", "quarantined"] == sent


@in_loop
async def test_the_upkeep_does_not_wait_for_the_end_of_a_flood(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        number = 0

        async def flood() -> None:
            nonlocal number
            while True:
                number += 1
                box.quarantine.keep(box.refused(frame_of(number)))
                await asyncio.sleep(0.001)

        flooding = asyncio.create_task(flood())
        try:
            await asyncio.sleep(0.02)
            await asyncio.wait_for(box.quarantine.tick(), 5)
        finally:
            flooding.cancel()


@in_loop
async def test_a_store_that_hangs_or_fails_does_not_hold_up_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "SETTLE_S", 0.05)
    async with lab(tmp_path) as box:
        blocker = Blocker()
        blocked = asyncio.ensure_future(box.store.write(blocker))
        await until(blocker.begun.is_set)
        await box.keep(frame_of(1))
        assert not blocked.done()
        blocker.go_on.set()
        await blocked
        await box.quarantine.settle()
        assert len(await box.rows()) == 1

        async def refuse(_command: object) -> None:
            raise DiskFullError("no space left")

        monkeypatch.setattr(gathering, "SETTLE_S", 60.0)
        with monkeypatch.context() as full:
            full.setattr(box.store, "write", refuse)
            for number in range(2, 5):
                await box.keep(frame_of(number))
            full.setattr(limits, "QUARANTINE_WAITING_MAX", 2)
            await box.keep(frame_of(5))
            await box.quarantine.settle()
        assert len(await box.rows()) == 1
        await box.quarantine.tick()
        assert [row.frame for row in await box.rows()] == [frame_of(n) for n in (1, 4, 5)]
        await box.check_books()


# --- trying again


@in_loop
async def test_a_frame_that_is_stored_leaves(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1), given="g", sensor_id="known-1", sender=KEY)
        await box.keep(frame_of(2))
        came_us = box.clock.now_us()
        box.clock.advance(4000)
        answer = await box.retry(outcome="E_KEY")
        assert (answer.stored, answer.duplicate, answer.kept, answer.next) == (2, 0, 0, None)
        assert [frame.sensor_id for frame in answer.frames] == ["s", "s"]
        assert await box.rows() == []
        frame, source, principal, named, arrival_us = box.taker.asked[0]
        assert (frame, source, named) == (frame_of(1), Source("retry", "127.0.0.1:40122"), "g")
        assert arrival_us == came_us
        assert (principal.actor, principal.user_id, principal.sensors) == ("key:k1", "u1", "")
        (entry,) = await box.audit()
        assert (entry.act, entry.subject) == ("quarantine.retry", "E_KEY")
        assert (await box.ledger())["known-1", "quarantine released"] == 1
        assert box.metrics.value("ocean_quarantine_frames") == 0
        await box.check_books()


@in_loop
async def test_a_frame_that_is_refused_again_stays_with_its_new_reason(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1))
        box.taker.result = FrameResult("E_MAC", "wrong", 30)
        answer = await box.retry(all=True)
        assert (answer.kept, answer.frames[0].outcome, answer.frames[0].released) == (
            1,
            "E_MAC",
            False,
        )
        (row,) = await box.rows()
        assert (row.outcome, row.detail, row.byte_offset, row.state) == (
            "E_MAC",
            "wrong",
            30,
            "held",
        )
        for nothing_decided in (FrameResult("OC-3001", may_retry=True), BufferFullError("full")):
            box.taker.result = nothing_decided
            await box.retry(ids=[row.id])
            assert await box.rows() == [row]
        box.taker.result = ForbiddenError("not for this sensor")
        await box.retry(ids=[row.id])
        assert (await box.rows())[0].outcome == "OC-6006"


@in_loop
async def test_any_time_takes_the_time_of_the_header(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1, time_s=1_700_000_000), "E_STALE")
        await box.retry(all=True, any_time=True)
        assert box.taker.asked[0][-1] == 1_700_000_000_000_000


@in_loop
async def test_more_than_one_request_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUARANTINE_RETRIED_MAX", 5)
    monkeypatch.setattr(limits, "QUARANTINE_RETRY_CHUNK", 2)
    async with lab(tmp_path) as box:
        box.taker.result = FrameResult("E_MAC")
        for number in range(12):
            box.quarantine.keep(box.refused(frame_of(number)))
        await box.quarantine.settle()
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            answer = await box.retry(all=True, after=after)
            seen += [frame.id for frame in answer.frames]
            after = answer.next
        assert seen == [row.id for row in await box.rows()]
        assert len(await box.audit()) == 3


@in_loop
async def test_orders_that_make_no_sense(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        for order in ({}, {"ids": [1], "all": True}, {"outcome": "E_KEY", "all": True}):
            with pytest.raises(InvalidInputError):
                await box.retry(**order)
        assert (await box.retry(ids=[77])).frames == []
        with pytest.raises(UnknownRecordError):
            await box.quarantine.forget(77, HERE)
        with pytest.raises(UnknownRecordError):
            await box.quarantine.get(2**70)
        box.quarantine.taker = None
        with pytest.raises(BufferUnavailableError):
            await box.retry(all=True)


@in_loop
async def test_forgotten_frames_are_counted_and_told(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1))
        await box.keep(frame_of(1))
        assert (await box.quarantine.forget(1, HERE)).forgotten
        assert await box.rows() == []
        assert (await box.ledger())["", "quarantine forgotten"] == 2
        assert [entry.act for entry in await box.audit()] == ["quarantine.forget"]
        await box.check_books()


@in_loop
async def test_many_are_forgotten_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUARANTINE_RETRIED_MAX", 3)
    async with lab(tmp_path) as box:
        for number in range(9):
            outcome = "E_KEY" if number % 2 else "E_STALE"
            await box.keep(frame_of(number), outcome, sensor_id=f"known-{number % 3}")
        await box.keep(frame_of(0), "E_STALE", sensor_id="known-0")
        first = await box.forget(outcome="E_STALE")
        assert (first.forgotten, first.ids, first.next) == (3, [1, 3, 5], 5)
        second = await box.forget(outcome="E_STALE", after=5)
        assert (second.ids, second.next) == ([7, 9], None)
        assert (await box.forget(ids=[77, 4, 4])).ids == [4]
        await box.store.write(lambda db: len(rows_of.begin(db, [2], box.clock.now_us())))
        rest = await box.forget(all=True)
        assert (rest.ids, rest.next) == ([6, 8], None), "2 may be stored at this moment"
        assert (await box.forget(all=True, after=0)).forgotten == 0
        told = [(entry.subject, json.loads(entry.detail)) for entry in await box.audit()]
        assert told[-1] == ("E_STALE", {"frames": 3, "ids": [1, 3, 5]})
        assert [subject for subject, _ in told] == ["all", "all", "ids", "E_STALE", "E_STALE"]
        assert (await box.ledger())["known-0", "quarantine forgotten"] == 4
        await box.check_books()
        assert box.metrics.value("ocean_quarantine_frames") == 1
        for order in ({}, {"ids": [1], "all": True}):
            with pytest.raises(InvalidInputError):
                await box.forget(**order)


@in_loop
async def test_a_retry_that_was_cut_off_is_done_again_and_finds_its_marker(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path) as box:
        for number in range(3):
            await box.keep(frame_of(number))
        ids = [row.id for row in await box.rows()]
        # The process died: of three one was stored, and none deleted.
        await box.store.write(lambda db: len(rows_of.begin(db, ids, box.clock.now_us())))
        box.taker.stored[hashlib.sha256(frame_of(0)).hexdigest()] = frame_of(0)
        box.taker.result = FrameResult("E_MAC")
        box.quarantine = box.make()
        box.clock.advance(3600)
        assert (await box.retry(all=True)).frames == [], "they are under way"
        await box.quarantine.tick()
        assert [(row.id, row.state) for row in await box.rows()] == [(2, "held"), (3, "held")]
        await box.check_books()


@in_loop
async def test_a_retry_that_was_cut_off_too_long_ago_is_left_to_a_person(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1))
        await box.store.write(lambda db: len(rows_of.begin(db, [1], box.clock.now_us())))
        box.clock.advance(MARKERS_KEPT_S)
        await box.quarantine.tick()
        (row,) = await box.rows()
        assert (row.state, box.taker.asked) == ("unsure", [])
        assert "cut off" in (await box.quarantine.get(1)).next_step
        assert (await box.retry(all=True)).frames == []
        assert (await box.retry(ids=[1])).stored == 1


@in_loop
async def test_what_is_under_way_does_not_make_room(tmp_path: Path) -> None:
    async with lab(tmp_path, frames_max=2) as box:
        await box.keep(frame_of(1))
        await box.store.write(lambda db: len(rows_of.begin(db, [1], box.clock.now_us())))
        for number in range(2, 5):
            await box.keep(frame_of(number))
        assert [row.id for row in await box.rows()] == [1, 4]


@in_loop
async def test_frames_that_came_again_and_were_stored_leave(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        for number, outcome in enumerate(["E_KEY", "E_KEY", "E_MAC"]):
            await box.keep(frame_of(number), outcome)
        stored = {note_of(frame_of(number)) for number in (1, 2)}
        box.quarantine = box.make()
        box.quarantine.were_stored = lambda notes: [note in stored for note in notes]
        await box.quarantine.tick()
        left = [row.frame for row in await box.rows()]
        assert left == [frame_of(0), frame_of(2)], "a forgery is evidence"
        await box.check_books()


# --- the clock


@in_loop
async def test_early_frames_are_retried_once_the_clock_is_right(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        box.clock.is_synchronised = False
        wrong_us = box.clock.now_us()
        await box.keep(frame_of(1), "E_FUTURE", is_early=True, sender=KEY)
        await box.keep(frame_of(2), "E_KEY")
        box.clock.advance(100)
        await box.quarantine.tick()
        assert box.taker.asked == []
        assert [alarm.name for alarm in box.alarms.open_alarms()] == ["frames.early"]
        # By hand, while the clock is wrong: nothing is decided.
        box.taker.result = FrameResult("E_FUTURE")
        await box.retry(ids=[1])
        assert (await box.rows())[0].is_early
        box.taker.asked.clear()
        # A time server sets the clock a year ahead.
        year_us = 365 * 86_400_000_000
        box.clock.set_wall(wrong_us + 100_000_000 + year_us)
        box.clock.is_synchronised = True
        box.newest_us = box.clock.now_us() + 1
        await box.quarantine.tick()
        assert box.taker.asked == [], "the clock is behind what was stored"
        box.newest_us = 0
        box.taker.result = FrameResult("stored")
        await box.quarantine.tick()
        ((frame, _, principal, _, arrival_us),) = box.taker.asked
        assert (frame, arrival_us) == (frame_of(1), wrong_us + year_us)
        assert principal.sensors == "hall-*", "nobody has lifted what its key is for"
        assert [row.outcome for row in await box.rows()] == ["E_KEY"]
        assert box.alarms.open_alarms() == []


@in_loop
async def test_early_frames_that_are_really_wrong_are_tried_once(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1), "E_FUTURE", is_early=True)
        box.taker.result = FrameResult("OC-3001", may_retry=True)
        await box.quarantine.tick()
        assert (await box.rows())[0].is_early
        box.taker.result = FrameResult("E_STALE", "2 hours old")
        for _ in range(3):
            await box.quarantine.tick()
        (row,) = await box.rows()
        assert (row.outcome, row.is_early, len(box.taker.asked)) == ("E_STALE", 0, 2)
        assert box.alarms.open_alarms() == []


@in_loop
async def test_early_frames_of_another_boot_wait_for_a_person(tmp_path: Path) -> None:
    async with lab(tmp_path) as box:
        await box.keep(frame_of(1, time_s=1_781_000_000), "E_FUTURE", is_early=True)
        box.clock.reboot()
        box.clock.advance(5)
        await box.quarantine.tick()
        assert box.taker.asked == []
        (alarm,) = box.alarms.open_alarms()
        assert "1 of them came before" in alarm.detail
        box.taker.result = FrameResult("E_FUTURE")
        await box.retry(all=True)
        assert (await box.rows())[0].is_early, "when it came is still not known"
        box.taker.result = FrameResult("stored")
        await box.retry(all=True, any_time=True)
        assert box.taker.asked[-1][-1] == 1_781_000_000_000_000
        await box.quarantine.tick()
        assert await box.rows() == []
        assert box.alarms.open_alarms() == []


# --- whatever happens


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("keep"), st.integers(0, 12)),
            st.tuples(st.just("settle"), st.just(0)),
            st.tuples(st.just("retry"), st.sampled_from(["stored", "E_MAC", "later"])),
            st.tuples(st.just("forget"), st.integers(1, 12)),
            st.tuples(st.just("tick"), st.just(0)),
        ),
        max_size=30,
    ),
    st.integers(1, 5),
)
def test_bound_order_and_books_hold(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], frames_max: int
) -> None:
    async def run(box: Lab) -> None:
        for step, value in steps:
            if step == "keep":
                box.quarantine.keep(box.refused(frame_of(value), sensor_id=f"known-{value % 3}"))
            elif step == "retry":
                later = FrameResult("OC-3001", may_retry=True)
                box.taker.result = later if value == "later" else FrameResult(value)
                await box.retry(all=True)
            elif step == "forget":
                try:
                    await box.quarantine.forget(value, HERE)
                except UnknownRecordError:
                    continue
            elif step == "tick":
                await box.quarantine.tick()
            else:
                await box.quarantine.settle()
        await box.quarantine.settle()
        rows = await box.rows()
        assert len(rows) <= frames_max
        assert [row.id for row in rows] == sorted(row.id for row in rows)
        assert len({row.digest for row in rows}) == len(rows)
        await box.check_books()
        await box.quarantine.tick()
        assert box.metrics.value("ocean_quarantine_frames") == len(rows)

    @in_loop
    async def go() -> None:
        async with lab(tmp_path_factory.mktemp("q"), frames_max) as box:
            await run(box)

    go()


def test_notes_are_those_of_whole_frames_only() -> None:
    frame = frame_of(1)
    assert note_of(frame) == frame[8:12] + frame[20:36]
    assert note_of(frame_of(1, level=0)) is not None
    assert note_of(frame[:-1]) is None
    assert note_of(frame + b"x") is None
    assert note_of(b"\x00" + frame[1:]) is None
    assert note_of(b"") is None
