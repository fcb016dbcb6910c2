"""Access keys: shown once, recognised from memory, gone the moment they are revoked."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocean_core.model import limits
from ocean_core.model.access import Scope
from ocean_core.model.errors import (
    ConflictError,
    DiskFullError,
    InvalidInputError,
    RecordsFullError,
    UnknownRecordError,
    UnknownUserError,
    UserDisabledError,
)
from ocean_core.service.accounts.keys import NewKey
from support.operational_kit import NAME, WAIT_S, until
from support.records_kit import ANNA, NASTY_NAMES, Records, as_json


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    records.do(records.keys.load())
    yield records
    records.close()


def create(box: Records, name: str = "k", *scopes: str, **more: Any) -> Any:
    new = NewKey(name, [Scope(scope) for scope in scopes or ("read",)], **more)
    return as_json(box.do(box.keys.create(new, ANNA)))


def listed(box: Records) -> list[Any]:
    keys: list[Any] = as_json(box.do(box.keys.page((0, ""), 1000)))["keys"]
    return keys


def revoke(box: Records, key_id: str) -> Any:
    return as_json(box.do(box.keys.revoke(key_id, ANNA)))


def add_user(box: Records, user_id: str) -> None:
    row = (user_id, "n", "n", "e", "e", None, "active", 0, 0)
    sql = "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    box.do(box.store.write(lambda db: db.execute(sql, row).fetchall()))


def test_a_key_is_shown_once_and_recognised(box: Records) -> None:
    add_user(box, "u1")
    made = create(
        box, "gateway 7", "read", "ingest", "read",
        sensors="hall-b/*", rate=100, expires="90d", user_id="u1",
    )  # fmt: skip
    key = made.pop("key")
    assert re.fullmatch(rf"ocean_{made['id']}_[A-Za-z0-9_-]{{43}}", key)
    assert made == {
        "id": made["id"],
        "name": "gateway 7",
        "scopes": ["ingest", "read"],
        "sensors": "hall-b/*",
        "rate": 100,
        "user_id": "u1",
        "status": "active",
        "created_at": "2026-05-28T20:26:40Z",
        "expires_at": "2026-08-26T20:26:40Z",
        "revoked_at": None,
        "last_used_at": None,
    }
    assert listed(box) == [made]
    for _ in range(2):
        principal = box.keys.principal_of(key)
        assert principal is not None
        assert principal.actor == f"key:{made['id']}"
        assert (principal.name, principal.user_id, principal.rate) == ("gateway 7", "u1", 100)
        assert (principal.may(Scope.INGEST), principal.may(Scope.ADMIN)) == (True, False)
        assert principal.may_touch("hall-b/press") is True
        assert principal.may_touch("hall-c/press") is False
        box.restart()


def test_nothing_else_is_a_key(box: Records) -> None:
    key = create(box)["key"]
    others = ["", key[:-1], key + "A", key.upper(), key[6:], f" {key}", "ä" * 43, "x" * 10_000]
    others += [key.replace("ocean_", "ocean-"), "\udc80", "ocean__", *NASTY_NAMES]
    # The stored hash opens nothing.
    others.append(hashlib.sha256(key.encode()).hexdigest())
    assert [other for other in others if box.keys.principal_of(other) is not None] == []


class Asked(dict[bytes, Any]):
    """Keys by hash that may only be looked up, and tell for what."""

    def __init__(self, known: dict[bytes, Any]) -> None:
        super().__init__(known)
        self.hashes: list[bytes] = []

    def get(self, key: bytes, default: Any = None) -> Any:
        self.hashes.append(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("secrets are looked up, never compared one by one")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_time_tells_nothing_because_only_a_hash_is_looked_up(box: Records) -> None:
    key = create(box)["key"]
    asked = box.keys._by_hash = Asked(box.keys._by_hash)
    almost = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert box.keys.principal_of(key) is not None
    assert box.keys.principal_of(almost) is None
    assert asked.hashes == [hashlib.sha256(text.encode()).digest() for text in (key, almost)]


def test_keys_are_known_only_after_loading(box: Records) -> None:
    key = create(box)["key"]
    box.restart()
    assert (box.keys.is_loaded, box.keys.principal_of(key) is not None) == (True, True)
    box.keys.__init__(box.store, box.clock, bytes)  # type: ignore[misc]
    assert (box.keys.is_loaded, box.keys.principal_of(key)) == (False, None)


def test_a_revoked_key_is_gone_at_once_and_after_a_restart(box: Records) -> None:
    made, other = create(box, "a"), create(box, "b")
    assert revoke(box, made["id"]) == {"id": made["id"], "revoked": True}
    assert box.keys.principal_of(made["key"]) is None
    box.clock.advance(5)
    assert revoke(box, made["id"]) == {"id": made["id"], "revoked": True}
    box.restart()
    assert box.keys.principal_of(made["key"]) is None
    assert box.keys.principal_of(other["key"]) is not None
    first = next(key for key in listed(box) if key["id"] == made["id"])
    assert (first["status"], first["revoked_at"]) == ("revoked", "2026-05-28T20:26:40Z")
    assert [entry.act for entry in box.acts()] == ["keys.create", "keys.create", "keys.revoke"]


def test_only_keys_that_exist_can_be_revoked(box: Records) -> None:
    for key_id in ("", "nobody", *NASTY_NAMES):
        with pytest.raises(UnknownRecordError, match="Key not found"):
            revoke(box, key_id)


def test_caches_are_cleared_before_anybody_is_told(box: Records) -> None:
    seen: list[bool] = []
    key = ""
    box.keys.on_change.append(lambda: seen.append(box.keys.principal_of(key) is None))
    made = create(box)
    key = made["key"]
    revoke(box, made["id"])
    assert seen == [True, True]


def test_a_caller_that_leaves_while_revoking_leaves_no_open_door(box: Records) -> None:
    made = create(box)
    changed: list[bool] = []
    box.keys.on_change.append(lambda: changed.append(True))

    async def leave() -> None:
        task = asyncio.create_task(box.keys.revoke(made["id"], ANNA))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(WAIT_S):
            await until(lambda: changed)

    box.do(leave())
    assert box.keys.principal_of(made["key"]) is None


def test_a_key_that_could_not_be_revoked_still_counts(
    box: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(box)

    async def full(_command: object) -> None:
        raise DiskFullError("no room")

    monkeypatch.setattr(box.store, "write", full)
    with pytest.raises(DiskFullError):
        revoke(box, made["id"])
    assert box.keys.principal_of(made["key"]) is not None
    with pytest.raises(DiskFullError):
        create(box, "other")
    assert len(box.keys._by_hash) == 1


def test_a_key_ends_exactly_when_it_should(box: Records) -> None:
    key = create(box, expires="2026-05-28T20:26:41.5Z")["key"]
    box.clock.advance(1.499999)
    assert box.keys.principal_of(key) is not None
    assert listed(box)[0]["status"] == "active"
    box.clock.advance(0.000001)
    assert box.keys.principal_of(key) is None
    assert listed(box)[0]["status"] == "expired"
    box.restart()
    assert box.keys.principal_of(key) is None


@pytest.mark.parametrize(
    ("expires", "at"),
    [
        ("45s", "2026-05-28T20:27:25Z"),
        ("30m", "2026-05-28T20:56:40Z"),
        ("12h", "2026-05-29T08:26:40Z"),
        ("2w", "2026-06-11T20:26:40Z"),
        ("2027-01-01", "2027-01-01T00:00:00Z"),
        ("2026-05-28T22:26:41+02:00", "2026-05-28T20:26:41Z"),
    ],
)
def test_ends_can_be_moments_or_times_from_now(box: Records, expires: str, at: str) -> None:
    assert create(box, expires=expires)["expires_at"] == at


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"scopes": []}, "scopes"),
        ({"sensors": ""}, "sensors"),
        ({"sensors": "a\x00"}, "sensors"),
        ({"sensors": "x" * 513}, "sensors"),
        ({"sensors": "a*", "scopes": [Scope.ADMIN]}, "sensors"),
        ({"rate": 0}, "rate"),
        ({"rate": -1}, "rate"),
        ({"rate": 2**70}, "rate"),
        ({"expires": ""}, "expires"),
        ({"expires": "0s"}, "expires"),
        ({"expires": "-1d"}, "expires"),
        ({"expires": "90"}, "expires"),
        ({"expires": "999999w"}, "expires"),
        ({"expires": "2026-05-28T20:26:40Z"}, "expires"),
        ({"expires": "9999999999999999999999999d"}, "expires"),
        ({"expires": "tomorrow"}, "expires"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 300}, "user_id"),
    ],
)
def test_what_does_not_fit_makes_no_key(
    box: Records, fields: dict[str, Any], at_fault: str
) -> None:
    new = NewKey(**{"name": "k", "scopes": [Scope.READ], **fields})
    with pytest.raises(InvalidInputError) as caught:
        box.do(box.keys.create(new, ANNA))
    assert caught.value.fields[0].field == at_fault
    assert listed(box) == []


def test_a_key_counts_for_users_that_exist(box: Records) -> None:
    for user_id in ("nobody", "' OR 1=1 --"):
        with pytest.raises(UnknownUserError):
            create(box, user_id=user_id)
    assert listed(box) == []
    assert box.acts() == []


def test_keys_of_a_disabled_user_count_no_longer_also_after_a_restart(box: Records) -> None:
    add_user(box, "u1")
    key = create(box, user_id="u1")["key"]
    other = create(box, "other")["key"]
    assert box.keys.principal_of(key) is not None
    box.keys.user_changed("u1", active=False)
    assert box.keys.principal_of(key) is None
    assert sorted(each["status"] for each in listed(box)) == ["active", "user disabled"]
    assert box.keys.principal_of(other) is not None
    box.keys.user_changed("u1", active=True)
    assert box.keys.principal_of(key) is not None

    def disable(db: Any) -> None:
        db.execute("UPDATE users SET status = 'disabled'")

    box.do(box.store.write(disable))
    box.restart()
    assert box.keys.principal_of(key) is None
    with pytest.raises(UserDisabledError):
        create(box, "third", user_id="u1")


def test_an_active_key_has_its_name_alone(box: Records) -> None:
    first = create(box, "k", expires="1h")
    with pytest.raises(ConflictError) as caught:
        create(box, "k")
    assert caught.value.fields[0].field == "name"
    create(box, "K")
    revoke(box, first["id"])
    second = create(box, "k", expires="1h")
    box.clock.advance(3600)
    create(box, "k")
    assert box.keys.principal_of(second["key"]) is None


@pytest.mark.parametrize("text", NASTY_NAMES)
def test_any_printable_name_and_pattern_is_just_text(box: Records, text: str) -> None:
    if len(text) > limits.KEY_NAME_BYTES_MAX:
        text = text[: limits.KEY_NAME_BYTES_MAX]
    made = create(box, text, "read", sensors=text)
    box.restart()
    assert (listed(box)[0]["name"], listed(box)[0]["sensors"]) == (text, text)
    assert box.keys.principal_of(made["key"]) is not None


def test_keys_that_opened_nothing_any_more_make_room(
    box: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEYS_MAX", 3)
    expiring = create(box, "expiring", expires="10s")
    revoked = create(box, "revoked")
    create(box, "active")
    with pytest.raises(RecordsFullError):
        create(box, "too many")
    box.clock.advance(5)
    revoke(box, revoked["id"])
    box.clock.advance(10)
    create(box, "fourth")
    assert {key["name"] for key in listed(box)} == {"expiring", "active", "fourth"}
    create(box, "fifth")
    assert {key["name"] for key in listed(box)} == {"active", "fourth", "fifth"}
    with pytest.raises(RecordsFullError):
        create(box, "sixth")
    assert box.keys.principal_of(expiring["key"]) is None


def test_the_last_use_is_shown_at_once_and_stored_by_flush(box: Records) -> None:
    made = create(box)
    box.clock.advance(60)
    box.keys.note_used(made["id"])
    assert listed(box)[0]["last_used_at"] == "2026-05-28T20:27:40Z"
    box.restart()
    assert listed(box)[0]["last_used_at"] is None
    box.keys.note_used(made["id"])
    box.do(box.keys.flush())
    box.do(box.keys.flush())
    box.restart()
    assert listed(box)[0]["last_used_at"] == "2026-05-28T20:27:40Z"
    # A clock that was set back takes nothing away.
    box.clock.advance(-3600)
    box.keys.note_used(made["id"])
    box.do(box.keys.flush())
    assert listed(box)[0]["last_used_at"] == "2026-05-28T20:27:40Z"


def test_a_use_that_could_not_be_stored_is_kept(
    box: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(box)
    write = box.store.write

    async def full(_command: object) -> None:
        raise DiskFullError("no room")

    monkeypatch.setattr(box.store, "write", full)
    box.keys.note_used(made["id"])
    with pytest.raises(DiskFullError):
        box.do(box.keys.flush())
    monkeypatch.setattr(box.store, "write", write)
    box.do(box.keys.flush())
    box.restart()
    assert listed(box)[0]["last_used_at"] is not None


def test_no_use_costs_no_transaction(box: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwanted(_command: object) -> None:
        raise AssertionError("nothing is to be stored")

    monkeypatch.setattr(box.store, "write", unwanted)
    box.do(box.keys.flush())


def test_keys_have_pages_by_age(box: Records) -> None:
    names = ["c", "a", "d", "b"]
    for name in names:
        create(box, name)
        box.clock.advance(1)
    first = box.do(box.keys.page((0, ""), 3))
    assert [key.name for key in first.keys] == names[:3]
    created, _, key_id = (first.next or "").partition("-")
    rest = box.do(box.keys.page((int(created), key_id), 3))
    assert ([key.name for key in rest.keys], rest.next) == (["b"], None)


def test_the_secret_is_nowhere_but_in_the_answer(box: Records) -> None:
    new = NewKey("k", [Scope.READ])
    made = box.do(box.keys.create(new, ANNA))
    secret = made.key[len(f"ocean_{made.id}_") :]
    assert len(secret) == 43
    digest = hashlib.sha256(made.key.encode())
    principal = box.keys.principal_of(made.key)
    with pytest.raises(ConflictError) as caught:
        create(box, "k")
    revoke(box, made.id)
    shown = [
        repr(made), str(made), repr(principal), repr(box.keys), repr(listed(box)),
        repr(box.acts()), str(caught.value), repr(caught.value),
    ]  # fmt: skip
    for text in shown:
        assert secret not in text
        assert digest.hexdigest() not in text
    box.do(box.store.close())
    stored = b"".join(path.read_bytes() for path in box.directory.iterdir())
    assert (secret.encode() in stored, digest.digest() in stored) == (False, True)
    assert (box.directory / NAME).exists()
    box.restart()


def test_the_audit_log_tells_what_a_key_is_for(box: Records) -> None:
    made = create(box, "k", "ingest", sensors="a*", rate=5, expires="1h")
    (entry,) = box.acts()
    assert (entry.act, entry.subject, entry.actor) == ("keys.create", made["id"], "session:s1")
    assert entry.detail == {
        "name": "k",
        "scopes": ["ingest"],
        "sensors": "a*",
        "rate": 5,
        "user_id": None,
        "expires_us": 1_780_003_600_000_000,
    }
