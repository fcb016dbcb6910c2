"""Frames over HTTP on a service of frames that is none: what is asked of it, what is answered."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ocean_core.config.settings import IngestSettings
from ocean_core.model.access import Principal, Scope
from ocean_core.model.errors import (
    BodyTooLargeError,
    BufferFullError,
    ContentTypeError,
    DiskFullError,
    ForbiddenError,
    FrameError,
    IdempotencyKeyError,
    IdempotencyMismatchError,
    InvalidReadingError,
    MalformedBodyError,
    OceanError,
)
from ocean_core.protocol.media import Encoding, Media
from ocean_core.service.frames.http_answers import EXPECTED
from ocean_core.service.frames.over_http import FramesOverHttp
from ocean_core.service.frames.terms import Source
from ocean_core.service.ingest import IngestService
from ocean_core.service.ingest_body import Sent
from support.fake_frames import BEGIN, FakeTaker, frame
from support.ingest_bench import IngestBench

FOUND_MAC = "E_MAC at byte 30: the check value is 1234, not 5678"

RAW = Sent(media=Media.FRAMES)
KEY = Principal("key", "k", "k", frozenset({Scope.INGEST}), sensors="hall/*")


class Bench(IngestBench):
    def __init__(self, decoders: ThreadPoolExecutor) -> None:
        super().__init__(decoders, IngestSettings())
        self.taker = FakeTaker()
        self.service._frames = FramesOverHttp(
            self.taker, self.clock, decoders, body_bytes_max=100_000
        )

    def one(self, body: bytes, sent: Sent = RAW, **more: Any) -> Any:
        return json.loads(asyncio.run(self.service.ingest_single(body, sent, **more)))

    def refused(self) -> float:
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.metrics.render().splitlines()
            if line.startswith("ocean_telemetry_refused_total{")
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as decoders:
        yield Bench(decoders)


def item(name: str, what: str = "good", sensor_id: str = "s") -> dict[str, Any]:
    return {"sensor_id": sensor_id, "data": frame(name, what).hex()}


def value(number: float) -> dict[str, Any]:
    return {"sensor_id": "a", "value": number}


# --- bodies of frames


def test_one_frame_is_answered_like_one_item(bench: Bench) -> None:
    assert bench.one(frame("a"), principal=KEY, address="192.0.2.7") == {
        "id": 1001, "sensor_id": "a", "buffered": True, "timestamp": "2026-01-17T11:39:52Z",
    }  # fmt: skip
    assert bench.taker.asked == [([frame("a")], Source("http", "192.0.2.7"), KEY, "")]
    again = bench.one(frame("a"))
    assert again["duplicate"]
    assert (again["id"], again["timestamp"]) == (0, "2026-01-17T11:39:52Z")
    assert bench.one(frame("b", "two"))["count"] == 2
    assert bench.one(frame("c", "odd"))["quality"] == 1
    assert bench.one(frame("d", "event"))["kind"] == "event"


def test_a_refused_frame_is_told_with_check_and_byte(bench: Bench) -> None:
    with pytest.raises(FrameError) as caught:
        bench.one(frame("a", "mac"))
    (problem,) = caught.value.fields
    assert (problem.field, problem.found) == ("frame", FOUND_MAC)
    assert problem.expected == EXPECTED["E_MAC"]
    assert caught.value.detail.startswith("frame: found E_MAC at byte 30")
    # Whoever took the frame has counted it.
    bench.service.count_refused(caught.value)
    assert bench.refused() == 0
    assert bench.refusals.is_empty


@pytest.mark.parametrize(
    ("what", "error"),
    [("busy", BufferFullError), ("foreign", ForbiddenError), ("early", FrameError)],
)
def test_what_keeps_a_frame_out_decides_on_the_status(
    bench: Bench, what: str, error: type[OceanError]
) -> None:
    bench.taker.is_busy = True
    with pytest.raises(error) as caught:
        bench.one(frame("a", what))
    assert type(caught.value) is error


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_frames_back_to_back_count_each_by_itself(bench: Bench, coding: str) -> None:
    body = frame("a") + frame("b", "mac") + frame("c") + frame("a")
    sent = Sent(Media.FRAMES, Encoding(coding), "any key")
    answer = bench.send(gzip.compress(body) if coding == "gzip" else body, sent)
    assert answer["ids"] == [1001, 1002, 0]
    assert (answer["count"], answer["duplicates"], answer["rejected_count"]) == (3, 1, 1)
    assert answer["rejected"] == [
        {"field": "frame", "found": FOUND_MAC, "expected": EXPECTED["E_MAC"], "item": 1}
    ]  # fmt: skip
    assert bench.send(body, RAW, partial=True)["duplicates"] == 3


def test_frames_of_which_none_is_good_are_refused_with_a_list(bench: Bench) -> None:
    with pytest.raises(FrameError) as caught:
        bench.send(b"".join(frame(str(n), "mac") for n in range(150)), RAW)
    fields = caught.value.fields
    assert len(fields) == 101
    assert [problem.item for problem in fields] == [*range(100), None]
    assert fields[-1].found == "50 more refused items"
    assert caught.value.detail.endswith("(and 149 more items).")


def test_frames_that_may_come_later_are_asked_for_again(bench: Bench) -> None:
    bench.taker.is_busy = True
    with pytest.raises(BufferFullError):
        bench.send(frame("a", "mac") + frame("b", "busy"), RAW)
    answer = bench.send(frame("a") + frame("b", "busy"), RAW)
    assert answer["rejected"][0]["found"].startswith("OC-3001: ")
    assert answer["rejected"][0]["expected"] == "the same again later"


@pytest.mark.parametrize("send", ["one", "send"])
def test_bodies_that_cannot_be_frames(bench: Bench, send: str) -> None:
    take = getattr(bench, send)
    with pytest.raises(FrameError) as caught:
        take(frame("a").hex().encode(), RAW)
    assert "xxd" in caught.value.hint
    for body, sent, error in (
        (b"", RAW, MalformedBodyError),
        (frame("a"), Sent(Media.FRAMES, Encoding.GZIP), MalformedBodyError),
        (gzip.compress(bytes(200_000)), Sent(Media.FRAMES, Encoding.GZIP), BodyTooLargeError),
        (frame("a"), Sent(Media.FRAMES, Encoding.IDENTITY, "a\nb"), IdempotencyKeyError),
    ):
        with pytest.raises(error):
            take(body, sent)
    assert not bench.taker.stored


def test_too_many_frames_and_too_long_ones(bench: Bench) -> None:
    with pytest.raises(BodyTooLargeError):
        bench.send(BEGIN * 65_537, RAW)
    bench.one(frame("x" * 3000))
    assert len(bench.taker.asked[-1][0][0]) == 1071


def test_memory_for_frames_that_wait_is_bounded(bench: Bench) -> None:
    service = FramesOverHttp(
        bench.taker, bench.clock, ThreadPoolExecutor(1), body_bytes_max=10, waiting_bytes_max=40
    )
    with pytest.raises(BufferFullError):
        asyncio.run(service.batch(frame("a") * 3, RAW, KEY, ""))
    assert asyncio.run(service.batch(frame("a"), RAW, KEY, ""))
    assert service._waiting.held == 0


def test_without_a_taker_there_is_no_such_media_type(bench: Bench) -> None:
    bench.service._frames = None
    for method in (IngestService.ingest_single, IngestService.ingest_batch):
        with pytest.raises(ContentTypeError):
            asyncio.run(method(bench.service, frame("a"), RAW))


# --- frames in JSON


def test_a_frame_as_data_of_one_item(bench: Bench) -> None:
    answer = bench.single({**item("a"), "timestamp": "1999-01-01T00:00:00Z"})
    assert (answer["sensor_id"], answer["timestamp"]) == ("a", "2026-01-17T11:39:52Z")
    assert bench.single(item("a"))["duplicate"]
    assert bench.single(item("e", "event", "door"))["sensor_id"] == "door"
    assert bench.taker.asked[-1][1:] == (Source("json", ""), bench.taker.asked[-1][2], "door")
    with pytest.raises(FrameError):
        bench.single(item("m", "mac"))
    assert not bench.buffer.stored


def test_ids_come_in_the_order_of_items(bench: Bench) -> None:
    items = [item("a"), value(1), value(2), item("b", "two", "t"), value(3), item("c"), item("d")]
    answer = bench.batch(items)
    assert answer["ids"] == [1001, 1, 2, 1004, 3, 1002, 1003]
    assert answer["count"] == 7
    assert "rejected" not in answer
    assert "duplicate" not in answer
    assert [asked[3] for asked in bench.taker.asked] == ["s", "t"]


@pytest.mark.parametrize("partial", [False, True])
def test_bad_frames_cost_other_items_nothing(bench: Bench, *, partial: bool) -> None:
    answer = bench.batch([value(1), item("a", "mac"), item("b"), value(2)], partial=partial)
    assert answer["ids"] == [1, 1001, 2]
    assert [(one["item"], one["field"]) for one in answer["rejected"]] == [(1, "frame")]
    assert bench.refused() == 0


def test_bad_items_refuse_the_batch_and_no_frame_is_taken(bench: Bench) -> None:
    with pytest.raises(InvalidReadingError):
        bench.batch([item("a"), {"sensor_id": "s", "value": "x"}])
    assert not bench.taker.asked
    assert not bench.buffer.stored


def test_in_part_both_kinds_are_listed_in_order(bench: Bench) -> None:
    bad = {"sensor_id": "s", "value": "x"}
    items = [item("a", "mac"), bad, value(1), item("b"), bad, item("c", "mac")]
    answer = bench.batch(items, partial=True)
    assert answer["ids"] == [1, 1001]
    assert answer["rejected_count"] == 4
    assert [one["item"] for one in answer["rejected"]] == [0, 1, 4, 5]
    assert bench.refused() == 2
    answer = bench.batch([bad, item("d")], partial=True)
    assert (answer["ids"], answer["rejected_count"]) == ([1002], 1)
    with pytest.raises(FrameError) as caught:
        bench.batch([bad, item("e", "mac")], partial=True)
    assert [problem.item for problem in caught.value.fields] == [0, 1]
    bench.service.count_refused(caught.value)
    assert bench.refused() == 4


def test_a_frame_that_must_wait_keeps_the_other_items_back(bench: Bench) -> None:
    bench.taker.is_busy = True
    items = [value(1), item("a"), item("b", "busy")]
    with pytest.raises(BufferFullError):
        bench.batch(items)
    assert not bench.buffer.stored
    bench.taker.is_busy = False
    answer = bench.batch(items)
    assert answer["ids"] == [1, 0, 1002]
    assert answer["duplicates"] == 1


def test_other_items_that_cannot_be_stored_do_not_take_frames_back(bench: Bench) -> None:
    bench.buffer.broken = True
    with pytest.raises(DiskFullError):
        bench.batch([value(1), item("a")], "key")
    bench.buffer.broken = False
    assert bench.batch([value(1), item("a")], "key")["ids"] == [1, 0]


def test_a_repeat_by_key_is_told_the_same(bench: Bench) -> None:
    items = [value(1), item("a"), item("b", "mac"), value(2)]
    first = bench.batch(items, "key")
    assert first["ids"] == [1, 1001, 2]
    asked = len(bench.taker.asked)
    bench.taker.stored.clear()  # However much later it comes.
    again = bench.batch(items, "key")
    assert again["duplicate"]
    assert (again["ids"], again["duplicates"]) == ([1, 0, 2], 1)
    assert again["rejected"] == first["rejected"]
    assert len(bench.taker.asked) == asked
    assert len(bench.buffer.stored) == 1
    with pytest.raises(IdempotencyMismatchError):
        bench.batch([value(1), item("c")], "key")
    assert len(bench.taker.asked) == asked


def test_a_repeat_with_too_many_refused_asks_again(bench: Bench) -> None:
    items = [value(1), item("a"), *(item(str(n), "mac") for n in range(150))]
    first = bench.batch(items, "key")
    again = bench.batch(items, "key")
    assert (first["rejected_count"], again["rejected_count"]) == (150, 150)
    assert (again["ids"], again["duplicate"], again["duplicates"]) == ([1, 0], True, 1)


def test_a_body_of_frames_alone_is_told_from_its_repeat_by_them(bench: Bench) -> None:
    assert bench.batch([item("a"), item("b")], "key")["ids"] == [1001, 1002]
    again = bench.batch([item("a"), item("b")], "key")
    assert (again["ids"], again["duplicates"]) == ([0, 0], 2)
    assert bench.single(item("a"), "other")["duplicate"]
