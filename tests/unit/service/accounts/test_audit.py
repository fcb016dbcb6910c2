"""Reading the audit log: newest first, page by page, by act."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.records_kit import ANNA, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    for i in range(5):
        records.do(records.metadata.set(f"k{i}", msgspec.Raw(b"1"), None))
        records.clock.advance(1)
        records.do(records.metadata.delete(f"k{i}", ANNA))
    yield records
    records.close()


def test_entries_tell_who_did_what_from_where(box: Records) -> None:
    newest = as_json(box.do(box.audit.page(None, None, 1)))["entries"]
    assert newest == [
        {
            "id": 5,
            "created_at": "2026-05-28T20:26:45Z",
            "actor": "session:s1",
            "address": "10.0.0.7",
            "act": "metadata.delete",
            "subject": "k4",
            "detail": {},
        }
    ]


def test_pages_follow_each_other(box: Records) -> None:
    subjects: list[str] = []
    before: int | None = None
    while True:
        page = box.do(box.audit.page(None, before, 2))
        subjects += [entry.subject for entry in page.entries]
        if page.next is None:
            break
        before = int(page.next)
    assert subjects == ["k4", "k3", "k2", "k1", "k0"]


def test_acts_can_be_chosen(box: Records) -> None:
    assert len(box.do(box.audit.page("metadata.delete", None, 9)).entries) == 5
    assert box.do(box.audit.page("metadata", None, 9)).entries == []
    assert box.do(box.audit.page("' OR 1=1 --", None, 9)).entries == []
    assert box.do(box.audit.page("metadata.delete", 3, 1)).next == "2"


def test_numbers_beyond_any_id_find_all_or_nothing(box: Records) -> None:
    assert len(box.do(box.audit.page(None, 10**18 - 1, 9)).entries) == 5
    assert box.do(box.audit.page(None, 0, 9)).entries == []
