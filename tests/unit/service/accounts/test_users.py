"""Users: made once, unique, changed, disabled; what of it is stored, audited and remembered."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from ocean_core.model import limits
from ocean_core.model.access import Origin, Principal
from ocean_core.model.errors import (
    ConflictError,
    IdempotencyKeyError,
    IdempotencyMismatchError,
    InvalidInputError,
    RecordsFullError,
    SessionError,
    UnknownUserError,
)
from ocean_core.service.accounts.users import NewUser, User, UserChange
from support.accounts import (
    ADMIN_ORIGIN,
    LOCAL_ORIGIN,
    PASSWORD,
    UNKNOWN_ID,
    AccountsLab,
    contents,
    on_accounts,
)


def user_in(answer: bytes) -> User:
    return msgspec.json.decode(answer, type=User)


def test_user_is_made_with_an_account_and_found(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        user = user_in(await lab.users.create(NewUser("Anna", "Anna@Plant.example"), ADMIN_ORIGIN))
        assert (user.username, user.email, user.status) == ("Anna", "Anna@plant.example", "active")
        assert user.created_at == user.updated_at == "2026-05-28T20:26:40Z"
        assert msgspec.json.encode(user).startswith(b'{"id":"')
        assert await lab.users.get(user.id) == user
        await lab.restart()
        assert await lab.users.get(user.id) == user
        account = await lab.billing.get(user.id)
        assert (account.plan, account.credits, account.usage) == ("free", 0, 0)
        (entry,) = await lab.rows("audit")
        assert (entry["act"], entry["actor"], entry["address"], entry["subject"]) == (
            "users.create", "key:k1", "10.0.0.9", user.id,
        )  # fmt: skip

    on_accounts(tmp_path, test)


@pytest.mark.parametrize(
    ("username", "email", "fields"),
    [
        ("ANNA", "other@plant.example", ["username"]),
        ("other", "ANNA@PLANT.EXAMPLE", ["email"]),
        ("\uff41nna", "Anna@plant.example", ["username", "email"]),
    ],
)
def test_conflict_names_what_is_taken(
    tmp_path: Path, username: str, email: str, fields: list[str]
) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna")
        ben = await lab.user("ben")
        with pytest.raises(ConflictError) as caught:
            await lab.users.create(NewUser(username, email), LOCAL_ORIGIN)
        assert [problem.field for problem in caught.value.fields] == fields
        with pytest.raises(ConflictError) as caught:
            await lab.users.update(ben, UserChange(username, email), LOCAL_ORIGIN)
        assert [problem.field for problem in caught.value.fields] == fields
        assert (await lab.users.get(ben)).username == "ben"
        # Nothing of what was refused is left behind.
        for table in ("users", "billing"):
            assert len(await lab.rows(table)) == 2
        assert await lab.acts() == ["users.create"] * 2

    on_accounts(tmp_path, test)


def test_of_many_at_once_one_gets_the_name(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        made = await asyncio.gather(
            *(
                lab.users.create(NewUser("anna", f"anna{number}@plant.example"), LOCAL_ORIGIN)
                for number in range(50)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(one, ConflictError) for one in made) == 49
        assert len(await lab.rows("users")) == len(await lab.rows("billing")) == 1

    on_accounts(tmp_path, test)


def test_pages_have_every_user_once_in_the_order_of_creation(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        made = []
        for number in range(25):
            made.append(await lab.user(f"user{number}"))
            lab.clock.advance(0 if number % 3 else 1)
        for number in (3, 4, 20):
            await lab.users.update(made[number], UserChange(status="disabled"), LOCAL_ORIGIN)

        async def walk(limit: int, status: str | None) -> list[str]:
            found: list[str] = []
            after: tuple[int, str] | None = None
            while True:
                page = await lab.users.page(limit=limit, after=after, status=status)
                assert len(page.users) == limit or page.next is None
                found += [user.id for user in page.users]
                if page.next is None:
                    return found
                created, _, user_id = page.next.partition(".")
                after = (int(created), user_id)

        for limit in (1, 4, 25, 1000):
            assert sorted(await walk(limit, None)) == sorted(made)
            assert sorted(await walk(limit, "disabled")) == sorted(made[n] for n in (3, 4, 20))
            assert len(await walk(limit, "active")) == 22
        moments = [user.created_at for user in (await lab.users.page(
            limit=100, after=None, status=None)).users]  # fmt: skip
        assert moments == sorted(moments)

    on_accounts(tmp_path, test)


def test_change_is_stored_remembered_and_audited(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        before = await lab.users.get(anna)
        lab.clock.advance(5)
        changed = await lab.users.update(anna, UserChange(email="a@hall-b.example"), ADMIN_ORIGIN)
        assert (changed.username, changed.email) == ("anna", "a@hall-b.example")
        assert changed.created_at == before.created_at
        assert changed.updated_at == "2026-05-28T20:26:45Z"
        assert await lab.users.get(anna) == changed
        # One's own name in other letters is no conflict; the old address is free again.
        await lab.users.update(anna, UserChange(username="ANNA"), ADMIN_ORIGIN)
        await lab.users.create(NewUser("ben", "anna@plant.example"), ADMIN_ORIGIN)
        await lab.restart()
        assert (await lab.users.get(anna)).username == "ANNA"
        acts = [(row["act"], row["detail"]) for row in await lab.rows("audit")]
        assert acts[1] == ("users.update", '{"changed":["email"]}')

    on_accounts(tmp_path, test)


def test_unknown_user(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        for user_id in (UNKNOWN_ID, "", "x", "x" * 36, "' OR 1=1 --", "\x00", "../etc/passwd"):
            with pytest.raises(UnknownUserError):
                await lab.users.get(user_id)
            with pytest.raises(UnknownUserError):
                await lab.users.update(user_id, UserChange(status="disabled"), LOCAL_ORIGIN)
        assert await lab.acts() == []

    on_accounts(tmp_path, test)


def test_disabling_ends_all_sessions_at_once(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        tokens = [(await lab.session(anna)).token for _ in range(3)]
        others = (await lab.session(ben)).token
        for token in (*tokens, others):
            assert (await lab.sessions.validate(token)).valid
        user = await lab.users.update(anna, UserChange(status="disabled"), LOCAL_ORIGIN)
        assert user.status == "disabled"
        for token in tokens:
            assert lab.sessions.cached(token) is None
            with pytest.raises(SessionError):
                await lab.sessions.validate(token)
        assert (await lab.sessions.validate(others)).valid
        assert [row["user_id"] for row in await lab.rows("sessions")] == [ben]
        assert (await lab.acts())[-1] == "users.disable"
        # Enabled again, the user needs a new session.
        await lab.users.update(anna, UserChange(status="active"), LOCAL_ORIGIN)
        with pytest.raises(SessionError):
            await lab.sessions.validate(tokens[0])
        assert (await lab.sessions.validate((await lab.session(anna)).token)).valid

    on_accounts(tmp_path, test)


def test_disabling_ends_sessions_though_the_caller_left(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        leaving = asyncio.ensure_future(
            lab.users.update(anna, UserChange(status="disabled"), LOCAL_ORIGIN)
        )
        await asyncio.sleep(0)
        leaving.cancel()
        await lab.rows("users")
        await lab.user("later")
        with pytest.raises(SessionError):
            await lab.sessions.validate(token)

    on_accounts(tmp_path, test)


@pytest.mark.parametrize("password", ["another password", None])
def test_another_password_ends_sessions(tmp_path: Path, password: str | None) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        token = (await lab.log_in("anna", PASSWORD)).token
        await lab.users.update(anna, UserChange(email="new@plant.example"), LOCAL_ORIGIN)
        assert (await lab.sessions.validate(token)).valid
        await lab.users.update(anna, UserChange(password=password), LOCAL_ORIGIN)
        with pytest.raises(SessionError):
            await lab.sessions.validate(token)
        (row,) = await lab.rows("users")
        assert (row["password_hash"] is None) == (password is None)

    on_accounts(tmp_path, test)


def test_password_is_stored_as_hash_only(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        await lab.users.update(anna, UserChange(password="S3CRET secret"), LOCAL_ORIGIN)
        answer = await lab.users.create(
            NewUser("ben", "ben@plant.example", "S3CRET too"), LOCAL_ORIGIN, "key"
        )
        assert b"password" not in answer
        assert b"S3CRET" not in answer
        await lab.stop()
        for content in contents(tmp_path):
            assert b"S3CRET" not in content
            assert PASSWORD.encode() not in content
        assert "S3CRET" not in lab.log.getvalue()
        await lab.start()

    on_accounts(tmp_path, test)


def test_password_cannot_be_guessed_from_what_a_repeat_is_told_by(tmp_path: Path) -> None:
    """A stored plain hash of a request with a password would be a fast way to try passwords."""

    async def test(lab: AccountsLab) -> None:
        await lab.users.create(
            NewUser("anna", "a@plant.example", "password one"), LOCAL_ORIGIN, "k1"
        )
        (kept,) = await lab.rows("request_answers")
        again = await lab.users.create(
            NewUser("anna", "a@plant.example", "password two"), LOCAL_ORIGIN, "k1"
        )
        assert again == bytes(kept["answer"])
        await lab.log_in("anna", "password one")

    on_accounts(tmp_path, test)


def test_repeat_makes_no_second_user(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        new = NewUser("anna", "anna@plant.example")
        first = await lab.users.create(new, LOCAL_ORIGIN, "k1")
        at_once = await asyncio.gather(
            *(lab.users.create(new, LOCAL_ORIGIN, "k1") for _ in range(5))
        )
        await lab.restart()
        assert {first, *at_once, await lab.users.create(new, LOCAL_ORIGIN, "k1")} == {first}
        assert len(await lab.rows("users")) == 1
        with pytest.raises(IdempotencyMismatchError):
            await lab.users.create(NewUser("ben", "ben@plant.example"), LOCAL_ORIGIN, "k1")
        # Somebody else's key of the same text is another key.
        other = Origin(Principal("key", id="k2"), "")
        await lab.users.create(NewUser("ben", "ben@plant.example"), other, "k1")
        lab.clock.advance(limits.IDEMPOTENCY_KEPT_S)
        with pytest.raises(ConflictError):
            await lab.users.create(new, LOCAL_ORIGIN, "k1")

    on_accounts(tmp_path, test)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\u00e9"])
def test_key_of_a_repeat_is_checked(tmp_path: Path, key: str) -> None:
    async def test(lab: AccountsLab) -> None:
        with pytest.raises(IdempotencyKeyError):
            await lab.users.create(NewUser("anna", "anna@plant.example"), LOCAL_ORIGIN, key)
        assert await lab.rows("users") == []

    on_accounts(tmp_path, test)


def test_invalid_input_changes_nothing(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        for change in (
            UserChange(username=""),
            UserChange(email="nowhere"),
            UserChange(password="short"),
            UserChange(username="fine", email="not@@fine"),
        ):
            with pytest.raises(InvalidInputError):
                await lab.users.update(anna, change, LOCAL_ORIGIN)
            new = NewUser(
                "ben" if change.username is UNSET else change.username,
                "ben@plant.example" if change.email is UNSET else change.email,
                None if change.password is UNSET else change.password,
            )
            with pytest.raises(InvalidInputError):
                await lab.users.create(new, LOCAL_ORIGIN)
        assert [row["username"] for row in await lab.rows("users")] == ["anna"]
        assert await lab.acts() == ["users.create"]

    on_accounts(tmp_path, test)


def test_no_more_users_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USERS_MAX", 2)
    monkeypatch.setattr(limits, "USERS_CACHED_MAX", 1)

    async def test(lab: AccountsLab) -> None:
        first = await lab.user("one")
        await lab.user("two")
        with pytest.raises(RecordsFullError):
            await lab.user("three")
        await lab.restart()
        with pytest.raises(RecordsFullError):
            await lab.user("three")
        # A user beyond the memory is found in the file.
        assert (await lab.users.get(first)).username == "one"
        assert len(lab.users._known) == 1

    on_accounts(tmp_path, test)


def test_what_was_read_before_a_change_is_not_remembered_after_it(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        await lab.restart()
        real = lab.store.read

        async def slow_read(query: Any) -> Any:
            found = await real(query)
            lab.store.read = real  # type: ignore[method-assign]
            await lab.users.update(anna, UserChange(username="other"), LOCAL_ORIGIN)
            return found

        lab.store.read = slow_read  # type: ignore[method-assign]
        assert (await lab.users.get(anna)).username == "anna"
        assert (await lab.users.get(anna)).username == "other"

    on_accounts(tmp_path, test)


def test_initial_credits_are_in_the_ledger(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        assert (await lab.billing.get(anna)).credits == 100
        assert lab.billing.balance_of(anna) == 100
        (entry,) = (await lab.billing.ledger(anna, limit=10, after=None)).entries
        assert (entry.kind, entry.amount, entry.credits, entry.actor) == (
            "grant",
            100,
            100,
            "local",
        )

    on_accounts(tmp_path, test, initial_credits=100, enforce=True)
