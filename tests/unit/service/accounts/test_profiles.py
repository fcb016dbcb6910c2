"""Profiles come back as they were stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ocean_core.model import limits
from ocean_core.model.errors import InvalidInputError, RecordsFullError, UnknownRecordError
from ocean_core.service.accounts.profiles import NewProfile
from support.records_kit import ANNA, NASTY_NAMES, NASTY_TEXTS, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    yield records
    records.close()


def put(
    box: Records,
    profile_id: str,
    sensor_id: str = "s",
    timestamp: str | float | None = None,
    metadata: str = "{}",
) -> Any:
    new = NewProfile(profile_id, sensor_id, timestamp, msgspec.Raw(metadata.encode()))
    return as_json(box.do(box.profiles.put(new)))


def get(box: Records, profile_id: str) -> Any:
    return as_json(box.do(box.profiles.get(profile_id)))


def test_answers_have_the_originals_fields(box: Records) -> None:
    answer = put(box, "p", "press-01", "2026-01-17T08:00:00Z", '{"offset": -0.2}')
    assert answer == {"profile_id": "p", "stored": True}
    assert get(box, "p") == {
        "profile_id": "p",
        "sensor_id": "press-01",
        "timestamp": "2026-01-17T08:00:00Z",
        "metadata": {"offset": -0.2},
    }
    box.restart()
    assert get(box, "p")["metadata"] == {"offset": -0.2}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, "2026-05-28T20:26:40Z"),
        ("2026-01-17", "2026-01-17"),
        ("2026-01-17 08:00:00,5+01:00", "2026-01-17 08:00:00,5+01:00"),
        ("1780000000", "1780000000"),
        (1_780_000_000, "2026-05-28T20:26:40Z"),
        (1_780_000_000_123, "2026-05-28T20:26:40.123Z"),
    ],
)
def test_a_moment_is_kept_as_given(box: Records, given: str | float | None, kept: str) -> None:
    put(box, "p", timestamp=given)
    assert get(box, "p")["timestamp"] == kept


@pytest.mark.parametrize("given", ["", "yesterday", "2026-02-30", "0" * 100, -1, 1e30, "' OR 1"])
def test_what_is_no_moment_is_refused(box: Records, given: str | float) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, "p", timestamp=given)
    assert caught.value.fields[0].field == "timestamp"


@pytest.mark.parametrize("metadata", ["[]", "1", '"x"', "null", " [1]"])
def test_metadata_is_an_object(box: Records, metadata: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, "p", metadata=metadata)
    assert caught.value.fields[0].field == "metadata"


def test_metadata_is_bounded_and_kept_exactly(box: Records) -> None:
    exact = '{"z":9007199254740993,"a":[1.50],"ä":"\\u0000"}'
    put(box, "p", metadata=exact)
    answer = msgspec.json.encode(box.do(box.profiles.get("p")))
    assert exact.encode() in answer
    with pytest.raises(InvalidInputError):
        put(box, "p", metadata='{"a": "' + "x" * limits.PROFILE_BYTES_MAX + '"}')
    with pytest.raises(InvalidInputError):
        put(box, "p", metadata='{"a": ' * 70 + "1" + "}" * 70)


@pytest.mark.parametrize("profile_id", NASTY_TEXTS)
def test_any_printable_id_is_just_an_id(box: Records, profile_id: str) -> None:
    put(box, "other")
    put(box, profile_id)
    assert get(box, profile_id)["profile_id"] == profile_id
    box.do(box.profiles.delete(profile_id, ANNA))
    with pytest.raises(UnknownRecordError, match="Profile not found"):
        get(box, profile_id)
    get(box, "other")


@pytest.mark.parametrize(
    ("profile_id", "sensor_id", "field"),
    [
        ("", "s", "profile_id"),
        ("a\tb", "s", "profile_id"),
        ("p" * 257, "s", "profile_id"),
        ("p", "", "sensor_id"),
        ("p", " s", "sensor_id"),
        ("p", "s\n", "sensor_id"),
        ("p", "s" * 257, "sensor_id"),
    ],
)
def test_other_names_are_refused(box: Records, profile_id: str, sensor_id: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        put(box, profile_id, sensor_id)
    assert caught.value.fields[0].field == field


def test_profiles_are_listed_by_id_and_by_sensor(box: Records) -> None:
    for i in range(5):
        put(box, f"p{i}", "odd" if i % 2 else "even")
    page = box.do(box.profiles.page(None, "", 3))
    assert [profile.profile_id for profile in page.profiles] == ["p0", "p1", "p2"]
    rest = box.do(box.profiles.page(None, page.next or "", 3))
    assert [profile.profile_id for profile in rest.profiles] == ["p3", "p4"]
    assert rest.next is None
    odd = box.do(box.profiles.page("odd", "", 1))
    assert ([profile.profile_id for profile in odd.profiles], odd.next) == (["p1"], "p1")
    for name in NASTY_NAMES:
        assert box.do(box.profiles.page(name, "", 9)).profiles == []


def test_the_number_of_profiles_is_bounded(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROFILES_MAX", 2)
    put(box, "a")
    put(box, "b")
    put(box, "b", "t")
    with pytest.raises(RecordsFullError):
        put(box, "c")
    box.do(box.profiles.delete("a", ANNA))
    put(box, "c")


def test_a_profile_stays_with_a_sensor_that_is_renamed(box: Records) -> None:
    box.analytics.readings["old"] = 1
    put(box, "before", "old")
    box.do(box.sensors.rename("old", "new", ANNA))
    put(box, "after", "old")
    for name in ("old", "new"):
        page = box.do(box.profiles.page(name, "", 9))
        assert [profile.profile_id for profile in page.profiles] == ["after", "before"]
        assert {profile.sensor_id for profile in page.profiles} == {"new"}
