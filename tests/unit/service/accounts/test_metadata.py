"""JSON values under keys: kept exactly, gone at their end, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import InvalidInputError, RecordsFullError, UnknownRecordError
from ocean_core.service.accounts.metadata import MetadataSet
from support.records_kit import ANNA, NASTY_TEXTS, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    yield records
    records.close()


def put(box: Records, key: str, value: str = "1", ttl_s: float | None = None) -> MetadataSet:
    return box.do(box.metadata.set(key, msgspec.Raw(value.encode()), ttl_s))


def value_of(box: Records, key: str) -> str:
    """The value as JSON text, as it stands in the answer."""
    answer = msgspec.json.encode(box.do(box.metadata.get(key)))
    return bytes(msgspec.json.decode(answer, type=dict[str, msgspec.Raw])["value"]).decode()


def test_answers_have_the_originals_fields(box: Records) -> None:
    assert as_json(put(box, "shift", '"early"')) == {"key": "shift", "set": True}
    assert as_json(box.do(box.metadata.get("shift"))) == {
        "key": "shift",
        "value": "early",
        "updated_at": "2026-05-28T20:26:40Z",
    }


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "false",
        '""',
        "[]",
        "{}",
        "9007199254740993",
        "-123456789012345678901234567890",
        "0.1000",
        "1e-7",
        '{"z":1,"a":{"b":[1,2,{}]},"Z":null}',
        '{"a":1,"a":2}',
        '"\\u0000\\ud83d\\ude00 \\u00e4"',
        '"\'; DROP TABLE metadata; --"',
    ],
)
def test_a_value_comes_back_byte_by_byte(box: Records, text: str) -> None:
    put(box, "k", text)
    assert value_of(box, "k") == text
    box.restart()
    assert value_of(box, "k") == text


def test_only_white_space_between_the_parts_goes(box: Records) -> None:
    put(box, "k", '{ "b c" : [ 1 ,\n 2 ] ,\t"a" : " x " }')
    assert value_of(box, "k") == '{"b c":[1,2],"a":" x "}'


@pytest.mark.parametrize("key", NASTY_TEXTS)
def test_any_printable_key_is_just_a_key(box: Records, key: str) -> None:
    put(box, "other", "0")
    put(box, key, "1")
    assert value_of(box, key) == "1"
    assert [entry.key for entry in box.do(box.metadata.page(key, "", 10)).metadata] == [key]
    box.do(box.metadata.delete(key, ANNA))
    with pytest.raises(UnknownRecordError, match="Key not found"):
        box.do(box.metadata.get(key))
    assert value_of(box, "other") == "0"


@pytest.mark.parametrize("key", ["", "a\nb", "a\x00b", "\x7f", "a\u2028b", "k" * 257, "ä" * 129])
def test_other_keys_are_refused(box: Records, key: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, key)
    assert caught.value.fields[0].field == "key"


@pytest.mark.parametrize(
    "text",
    [
        '"' + "x" * (limits.METADATA_VALUE_BYTES_MAX - 1) + '"',
        '"' + "x" * (20 * limits.METADATA_VALUE_BYTES_MAX) + '"',
        "[" * 65 + "]" * 65,
        "[" * 5_000 + "]" * 5_000,
        "1e999",
        "1" * 5_000,
        '"\\ud800"',
    ],
)
def test_values_that_are_too_large_or_that_nobody_can_read_are_refused(
    box: Records, text: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, "k", text)
    assert caught.value.fields[0].field == "value"
    with pytest.raises(UnknownRecordError):
        box.do(box.metadata.get("k"))


def test_a_value_that_is_no_utf8_is_refused(box: Records) -> None:
    with pytest.raises(InvalidInputError):
        box.do(box.metadata.set("k", msgspec.Raw(b'"\xff"'), None))


def test_the_largest_and_deepest_values_are_taken(box: Records) -> None:
    largest = '"' + "x" * (limits.METADATA_VALUE_BYTES_MAX - 2) + '"'
    put(box, "large", largest)
    assert value_of(box, "large") == largest
    put(box, "deep", "[" * 64 + "]" * 64)
    put(box, "wide", "[" + "[]," * 20_000 + "[]]")


def test_a_value_is_gone_at_its_end_and_not_before(box: Records) -> None:
    put(box, "k", "1", ttl_s=1.5)
    assert as_json(box.do(box.metadata.get("k")))["expires_at"] == "2026-05-28T20:26:41.500Z"
    box.clock.advance(1.499999)
    assert value_of(box, "k") == "1"
    box.clock.advance(0.000001)
    with pytest.raises(UnknownRecordError):
        box.do(box.metadata.get("k"))
    with pytest.raises(UnknownRecordError):
        box.do(box.metadata.delete("k", ANNA))
    assert box.do(box.metadata.page("", "", 10)).metadata == []


def test_setting_again_takes_the_end_away(box: Records) -> None:
    put(box, "k", "1", ttl_s=1)
    put(box, "k", "2")
    box.clock.advance(2)
    assert value_of(box, "k") == "2"


@pytest.mark.parametrize("ttl_s", [0, -1, limits.METADATA_TTL_S_MAX + 1, float("nan"), 1e300])
def test_ends_that_make_no_sense_are_refused(box: Records, ttl_s: float) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, "k", "1", ttl_s=ttl_s)
    assert caught.value.fields[0].field == "ttl_s"


def test_purging_deletes_what_has_ended_and_nothing_else(box: Records) -> None:
    put(box, "ends", ttl_s=1)
    put(box, "ends later", ttl_s=3)
    put(box, "stays")
    assert box.do(box.metadata.purge()) == 0
    box.clock.advance(1)
    assert box.do(box.metadata.purge()) == 1
    assert box.do(box.metadata.purge()) == 0
    assert [entry.key for entry in box.do(box.metadata.page("", "", 9)).metadata] == [
        "ends later",
        "stays",
    ]


def test_purging_is_done_in_steps(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORDS_PURGED_MAX", 2)
    for i in range(5):
        put(box, f"k{i}", ttl_s=1)
    box.clock.advance(1)
    assert [box.do(box.metadata.purge()) for _ in range(4)] == [2, 2, 1, 0]


def test_the_number_of_keys_is_bounded(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METADATA_KEYS_MAX", 3)
    for key in ("a", "b", "c"):
        put(box, key)
    put(box, "a", "2")
    with pytest.raises(RecordsFullError):
        put(box, "d")
    box.do(box.metadata.delete("b", ANNA))
    put(box, "d")
    with pytest.raises(RecordsFullError):
        put(box, "e")
    box.restart()
    with pytest.raises(RecordsFullError):
        put(box, "e")


def test_what_has_ended_makes_room(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METADATA_KEYS_MAX", 2)
    put(box, "a", ttl_s=1)
    put(box, "b")
    box.clock.advance(1)
    put(box, "c")
    with pytest.raises(RecordsFullError):
        put(box, "d")


def test_pages_follow_each_other_by_code_point(box: Records) -> None:
    keys = ["a", "a.1", "a.2", "a.\U0010ffff", "a/", "b", "Z", "ä", "\U0001f321"]
    for key in keys:
        put(box, key)

    def walk(prefix: str, limit: int) -> list[str]:
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = box.do(box.metadata.page(prefix, after, limit))
            assert 0 < len(page.metadata) <= limit
            found += [entry.key for entry in page.metadata]
            after = page.next
        return found

    for limit in (1, 2, 100):
        assert walk("", limit) == sorted(keys)
        assert walk("a.", limit) == ["a.1", "a.2", "a.\U0010ffff"]
    assert box.do(box.metadata.page("%", "", 10)).metadata == []
    assert box.do(box.metadata.page("a.", "b", 10)).metadata == []


def test_a_page_of_large_values_is_shorter(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORDS_PAGE_BYTES_MAX", 3_000)
    for i in range(5):
        put(box, f"k{i}", json.dumps("x" * 1_400))
    first = box.do(box.metadata.page("", "", 5))
    assert [entry.key for entry in first.metadata] == ["k0", "k1"]
    assert first.next == "k1"
    monkeypatch.setattr(limits, "RECORDS_PAGE_BYTES_MAX", 10)
    assert len(box.do(box.metadata.page("", "k1", 5)).metadata) == 1


def test_deleting_is_audited_and_setting_is_not(box: Records) -> None:
    put(box, "k", '"secret value"')
    box.do(box.metadata.delete("k", ANNA))
    with pytest.raises(UnknownRecordError):
        box.do(box.metadata.delete("k", ANNA))
    (entry,) = box.acts()
    assert (entry.act, entry.subject, entry.actor, entry.address) == (
        "metadata.delete",
        "k",
        "session:s1",
        "10.0.0.7",
    )
    assert entry.detail == {}
