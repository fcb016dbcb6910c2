"""What the routes of consumer groups say about the rows of the journal."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ocean_core.buffer.port import Acknowledged, GroupState, StoredRow
from ocean_core.model.access import LOCAL, Origin
from ocean_core.model.errors import StoreUnavailableError, UnknownRecordError
from ocean_core.model.naming import NO_RULES, Names
from ocean_core.obs.clock import ManualClock
from ocean_core.service.groups import GroupService
from ocean_core.storage.operational.store import OperationalStore
from support.renaming import forget, rename

MOMENT_US = 1_700_000_000_250_000
ORIGIN = Origin(LOCAL, "127.0.0.1")


@dataclass
class FakeGroups:
    """ConsumerGroups with rows of the test."""

    rows: list[StoredRow] = field(default_factory=list)
    states: list[GroupState] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    marked: set[int] = field(default_factory=set)

    async def acknowledge(self, group: str, ids: Sequence[int]) -> Acknowledged:
        self.marked |= set(ids)
        return Acknowledged(len(set(ids)), len(group))

    async def read_unacknowledged(self, group: str, limit: int) -> list[StoredRow]:
        return [row for row in self.rows if row.id not in self.marked][:limit]

    def groups(self) -> list[GroupState]:
        return self.states

    async def forget_group(self, group: str) -> None:
        self.forgotten.append(group)


class FakeStore:
    """Takes writes, or refuses them."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.written: list[dict[str, Any]] = []

    async def write(self, command: Callable[[Any], Any]) -> None:
        if self.fails:
            raise StoreUnavailableError("not now")
        self.written.append(cast("Any", command).keywords)


def service_of(
    groups: FakeGroups, store: FakeStore | None = None, names: Names = NO_RULES
) -> GroupService:
    return GroupService(
        groups,
        cast("OperationalStore", store or FakeStore()),
        ManualClock(MOMENT_US),
        lambda: names,
    )


def reading(value: float, id_: int = 1) -> StoredRow:
    return StoredRow(id_, "press-01", "value", MOMENT_US, 2, value=value)


def event(payload: bytes) -> StoredRow:
    return StoredRow(1, "press-01", "", MOMENT_US, 0, payload=payload)


def only_row(row: StoredRow) -> Any:
    body = asyncio.run(service_of(FakeGroups([row])).unprocessed("api", 5))
    answer = json.loads(body)
    assert (answer["group"], answer["count"]) == ("api", 1)
    return answer["data"][0]


def test_a_reading() -> None:
    assert only_row(reading(101.3)) == {
        "id": 1,
        "sensor_id": "press-01",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "metric": "value",
        "value": 101.3,
        "quality": 2,
        "data": "101.3",
        "kind": "reading",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.0, "5"), (-0.5, "-0.5"), (1e300, "1e+300"), (0.1 + 0.2, "0.30000000000000004"), (0.0, "0")],
)
def test_the_number_of_a_reading_as_text(value: float, text: str) -> None:
    row = only_row(reading(value))
    assert row["data"] == text
    assert float(row["data"]) == row["value"] == value


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'"door open"', "door open"),
        (b'"a \\"quoted\\" \\u00e9"', 'a "quoted" é'),
        (b'{"state": "on",  "n":1}', '{"state": "on",  "n":1}'),
        (b"[1, 2]", "[1, 2]"),
        (b"true", "true"),
        ("Ölstand \U0001f321".encode(), "Ölstand \U0001f321"),
        # Not to be read as JSON text: as it came.
        (b'"\\ud800"', '"\\ud800"'),
        (b'"cut off', '"cut off'),
        (b"", ""),
    ],
)
def test_the_payload_of_an_event(payload: bytes, text: str) -> None:
    row = only_row(event(payload))
    assert row["data"] == text
    assert (row["kind"], row["metric"], row["value"]) == ("event", None, None)
    assert "encoding" not in row


@pytest.mark.parametrize("payload", [b"\xff\xfe\x00", b'"\xc3"'])
def test_bytes_that_are_no_text(payload: bytes) -> None:
    row = only_row(event(payload))
    assert row["encoding"] == "base64"
    assert base64.b64decode(row["data"]) == payload


def test_a_large_page_is_the_same_off_the_loop() -> None:
    rows = [reading(i, i) for i in range(1, 2001)]
    body = json.loads(asyncio.run(service_of(FakeGroups(rows)).unprocessed("api", 2000)))
    assert body["count"] == 2000
    assert [row["id"] for row in body["data"]] == list(range(1, 2001))


def test_marks_and_groups() -> None:
    groups = FakeGroups(states=[GroupState("api", 7, 2, 3, 4)])
    service = service_of(groups)
    done = asyncio.run(service.mark("api", [1, 2, 2]))
    assert (done.processed, done.success, done.already) == (2, True, 3)
    info = service.groups().groups[0]
    assert (info.name, info.cursor, info.ahead, info.pending, info.evicted) == ("api", 7, 2, 3, 4)


def test_forgetting_is_audited() -> None:
    groups, store = FakeGroups(states=[GroupState("api", 7, 2, 3, 4)]), FakeStore()
    service = service_of(groups, store)
    assert asyncio.run(service.forget("api", ORIGIN)).forgotten
    assert groups.forgotten == ["api"]
    assert store.written == [
        {
            "now_us": MOMENT_US,
            "origin": ORIGIN,
            "act": "groups.forget",
            "subject": "api",
            "detail": {"cursor": 7, "pending": 3},
        }
    ]
    with pytest.raises(UnknownRecordError):
        asyncio.run(service.forget("other", ORIGIN))
    assert len(store.written) == 1


def test_what_cannot_be_audited_is_not_done() -> None:
    groups = FakeGroups(states=[GroupState("api", 7, 2, 3, 4)])
    with pytest.raises(StoreUnavailableError):
        asyncio.run(service_of(groups, FakeStore(fails=True)).forget("api", ORIGIN))
    assert groups.forgotten == []


def test_a_renamed_sensor_has_its_name_of_today() -> None:
    names = Names([rename(1, "press-01", "press-1a")])
    body = asyncio.run(service_of(FakeGroups([reading(1.5)]), names=names).unprocessed("api", 5))
    assert json.loads(body)["data"][0]["sensor_id"] == "press-1a"


def test_what_was_forgotten_is_not_handed_out_and_hides_nothing() -> None:
    rows = [reading(float(id_), id_) for id_ in range(1, 12)]
    groups = FakeGroups(rows)
    names = Names([forget(1, "press-01", 10)])
    body = asyncio.run(service_of(groups, names=names).unprocessed("api", 3))
    assert [row["id"] for row in json.loads(body)["data"]] == [11]
    assert groups.marked == set(range(1, 11))
