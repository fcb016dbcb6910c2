"""Sessions: who gets one, how long it lives to the microsecond, and how it ends."""

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from ocean_core.model import limits
from ocean_core.model.access import Origin, Principal, Scope
from ocean_core.model.errors import (
    CredentialsError,
    ForbiddenError,
    InvalidInputError,
    LoginBackoffError,
    OceanError,
    SessionError,
    StoreUnavailableError,
    UnauthenticatedError,
    UnknownRecordError,
    UnknownUserError,
    UserDisabledError,
)
from ocean_core.service.accounts.passwords import PasswordHasher
from ocean_core.service.accounts.session_answers import NewSession
from ocean_core.service.accounts.users import UserChange
from ocean_core.storage.operational import users as user_rows
from support.accounts import (
    ADMIN_ORIGIN,
    HOUR_S,
    LOCAL_ORIGIN,
    NOBODY_ORIGIN,
    PASSWORD,
    UNKNOWN_ID,
    AccountsLab,
    contents,
    on_accounts,
)

DAY_S = 24 * HOUR_S
MICROSECOND = 1e-6


async def is_valid(lab: AccountsLab, token: str) -> bool:
    try:
        await lab.sessions.validate(token)
    except SessionError:
        return False
    return True


# --- making ---


def test_session_has_the_fields_of_the_original(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        made = await lab.session(anna)
        assert re.fullmatch("[0-9a-f-]{36}", made.session_id)
        assert re.fullmatch("[0-9a-f]{12}[A-Za-z0-9_-]{43}", made.token)
        assert made.expires_at == "2026-05-29T20:26:40Z"
        lab.clock.advance(60)
        found = await lab.sessions.validate(made.token)
        session = found.session
        assert found.valid
        assert (session.id, session.user_id, session.token) == (made.session_id, anna, made.token)
        assert session.created_at == "2026-05-28T20:26:40Z"
        assert session.expires_at == "2026-05-29T20:27:40Z"
        assert session.last_activity == "2026-05-28T20:27:40Z"

    on_accounts(tmp_path, test)


def test_token_is_stored_as_hash_only(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        tokens = [(await lab.session(anna)).token, (await lab.log_in("anna", PASSWORD)).token]
        for token in tokens:
            await lab.sessions.validate(token)
        rows = await lab.rows("sessions")
        assert {row["token_hash"] for row in rows} == {
            token[:12].encode() + hashlib.sha256(token.encode()).digest() for token in tokens
        }
        await lab.sessions.flush(everything=True)
        await lab.stop()
        for content in contents(tmp_path):
            for token in tokens:
                assert token.encode() not in content
        assert not any(token in lab.log.getvalue() for token in tokens)
        await lab.start()

    on_accounts(tmp_path, test)


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewSession(), InvalidInputError),
        (NewSession(password="correct horse battery"), InvalidInputError),
        (NewSession(user_id=UNKNOWN_ID), UnknownUserError),
        (NewSession(user_id=""), UnknownUserError),
        (NewSession(username="nobody"), UnknownUserError),
        (NewSession(username="\u202e"), UnknownUserError),
        (NewSession(email="nobody@plant.example"), UnknownUserError),
        (NewSession(email="no address"), UnknownUserError),
        (NewSession(username="anna", email="ben@plant.example"), InvalidInputError),
        (NewSession(username="' OR '1'='1"), UnknownUserError),
    ],
)
def test_administrator_must_name_one_user(
    tmp_path: Path, new: NewSession, error: type[OceanError]
) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna")
        await lab.user("ben")
        with pytest.raises(error):
            await lab.sessions.create(new, LOCAL_ORIGIN)
        assert await lab.rows("sessions") == []

    on_accounts(tmp_path, test)


def test_all_that_names_the_user_must_agree(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        for new in (
            NewSession(user_id=anna),
            NewSession(username="ANNA"),
            NewSession(email="Anna@PLANT.example"),
            NewSession(user_id=anna, username="Anna", email="anna@plant.example"),
        ):
            made = await lab.sessions.create(new, ADMIN_ORIGIN)
            assert (await lab.sessions.validate(made.token)).session.user_id == anna
        for new, field in (
            (NewSession(user_id=ben, username="anna"), "username"),
            (NewSession(user_id=ben, email="anna@plant.example"), "email"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                await lab.sessions.create(new, ADMIN_ORIGIN)
            assert caught.value.fields[0].field == field
        assert (await lab.acts()).count("sessions.create") == 4

    on_accounts(tmp_path, test)


def test_without_password_only_an_administrator_gets_a_session(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        new = NewSession(user_id=anna)
        with pytest.raises(UnauthenticatedError):
            await lab.sessions.create(new, NOBODY_ORIGIN)
        for principal in (
            Principal("key", id="k", scopes=frozenset({Scope.READ, Scope.INGEST})),
            Principal("session", id="s", user_id=anna, scopes=frozenset({Scope.READ})),
        ):
            with pytest.raises(ForbiddenError):
                await lab.sessions.create(new, Origin(principal, ""))
        # An administrator who gives a password wants it checked.
        with pytest.raises(CredentialsError):
            await lab.sessions.create(NewSession(user_id=anna, password="wrong"), ADMIN_ORIGIN)
        assert await lab.rows("sessions") == []

    on_accounts(tmp_path, test)


def test_disabled_user_gets_no_session(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        await lab.users.update(anna, UserChange(status="disabled"), LOCAL_ORIGIN)
        with pytest.raises(UserDisabledError):
            await lab.session(anna)
        with pytest.raises(UserDisabledError):
            await lab.log_in("anna", PASSWORD)
        # That the account is disabled is told only to who knows the password.
        with pytest.raises(CredentialsError):
            await lab.log_in("anna", "wrong password")

    on_accounts(tmp_path, test)


def test_log_in(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        await lab.user("ben")
        for new in (
            NewSession(user_id=anna, password=PASSWORD),
            NewSession(username="Anna", password=PASSWORD),
            NewSession(email="anna@plant.example", password=PASSWORD),
        ):
            assert await is_valid(lab, (await lab.sessions.create(new, NOBODY_ORIGIN)).token)
        refused = [
            NewSession(username="anna", password="wrong horse"),
            NewSession(username="anna", password=""),
            NewSession(username="anna", password="x" * 100_000),
            NewSession(username="nobody", password=PASSWORD),
            NewSession(username="ben", password=PASSWORD),
            NewSession(username="anna", email="ben@plant.example", password=PASSWORD),
        ]
        told = set()
        for new in refused:
            with pytest.raises(CredentialsError) as caught:
                await lab.sessions.create(new, NOBODY_ORIGIN)
            told.add((caught.value.detail, caught.value.fields))
        assert len(told) == 1, "which of the two is wrong is not told"
        assert await lab.acts() == ["users.create"] * 2, "logging in is no administrative act"

    on_accounts(tmp_path, test)


def test_unknown_user_costs_as_much_work_as_a_wrong_password(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna", PASSWORD)
        await lab.user("ben")
        checked: list[bool] = []
        real = lab.passwords.verify

        async def verify(encoded: str | None, password: str) -> Any:
            checked.append(encoded is not None)
            return await real(encoded, password)

        lab.passwords.verify = verify  # type: ignore[method-assign]
        for name in ("anna", "ben", "nobody", "\u202e"):
            with pytest.raises(CredentialsError):
                await lab.log_in(name, "wrong password")
        assert checked == [True, False, False, False]

    on_accounts(tmp_path, test)


def test_weaker_hash_is_replaced_by_logging_in(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        before = (await lab.rows("users"))[0]["password_hash"]
        stronger = PasswordHasher(lab.random, memory_kib=16, time_cost=2)
        lab.sessions._passwords = stronger
        await lab.log_in("anna", PASSWORD)
        after = (await lab.rows("users"))[0]["password_hash"]
        assert before != after
        assert "m=16,t=2" in after
        await lab.log_in("anna", PASSWORD)
        assert (await lab.rows("users"))[0]["password_hash"] == after
        assert (await lab.users.get(anna)).status == "active"
        stronger.close()

    on_accounts(tmp_path, test)


def test_password_changed_while_it_is_checked_is_the_old_one(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna", PASSWORD)
        real = lab.passwords.verify

        async def verify(encoded: str | None, password: str) -> Any:
            verdict = await real(encoded, password)
            await lab.store.write(
                lambda db: user_rows.update(
                    db,
                    user_rows.UserRow(
                        anna, "anna", "anna", "anna@plant.example", "anna@plant.example",
                        "another hash", "active", 1, 2,
                    ),
                )
            )  # fmt: skip
            return verdict

        lab.passwords.verify = verify  # type: ignore[method-assign]
        with pytest.raises(CredentialsError):
            await lab.log_in("anna", PASSWORD)
        assert await lab.rows("sessions") == []

    on_accounts(tmp_path, test)


# --- brute force ---


def test_guessing_is_slowed_down_and_told_nothing(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna", PASSWORD)
        for _ in range(limits.LOGIN_FREE_FAILURES + 1):
            with pytest.raises(CredentialsError):
                await lab.log_in("anna", "wrong password")
        told = []
        for password in ("wrong password", PASSWORD):
            with pytest.raises(LoginBackoffError) as caught:
                await lab.log_in("anna", password)
            told.append((caught.value.detail, caught.value.retry_after_s))
        assert told[0] == told[1], "whether the password was right is not told"
        assert told[0][1] == 1
        # By which of the names the account is called makes no difference; another address does.
        with pytest.raises(LoginBackoffError):
            await lab.sessions.create(
                NewSession(email="anna@plant.example", password=PASSWORD), NOBODY_ORIGIN
            )
        await lab.log_in("anna", PASSWORD, "10.0.0.8")
        lab.clock.advance(1)
        await lab.log_in("anna", PASSWORD)
        for _ in range(limits.LOGIN_FREE_FAILURES):
            with pytest.raises(CredentialsError):
                await lab.log_in("anna", "wrong password")

    on_accounts(tmp_path, test)


def test_unknown_accounts_are_slowed_down_as_well(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        for _ in range(limits.LOGIN_FREE_FAILURES + 1):
            with pytest.raises(CredentialsError):
                await lab.log_in("nobody", "wrong password")
        with pytest.raises(LoginBackoffError):
            await lab.log_in("NOBODY", "wrong password")

    on_accounts(tmp_path, test)


def test_guesses_at_once_are_no_way_around(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna", PASSWORD)
        outcomes = await asyncio.gather(
            *(lab.log_in("anna", f"wrong password {n}") for n in range(20)),
            return_exceptions=True,
        )
        looked_at = sum(isinstance(one, CredentialsError) for one in outcomes)
        assert looked_at == limits.LOGIN_FREE_FAILURES + 1
        assert sum(isinstance(one, LoginBackoffError) for one in outcomes) == 20 - looked_at
        # Many right ones at once are all let in.
        lab.clock.advance(1)
        await asyncio.gather(*(lab.log_in("anna", PASSWORD) for _ in range(20)))

    on_accounts(tmp_path, test)


def test_guess_whose_sender_left_counts(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        await lab.user("anna", PASSWORD)
        started = asyncio.Event()
        real = lab.passwords.verify

        async def verify(encoded: str | None, password: str) -> Any:
            started.set()
            return await real(encoded, password)

        lab.passwords.verify = verify  # type: ignore[method-assign]
        for _ in range(limits.LOGIN_FREE_FAILURES + 1):
            started.clear()
            guess = asyncio.ensure_future(lab.log_in("anna", "wrong password"))
            await started.wait()
            guess.cancel()
            await asyncio.gather(guess, return_exceptions=True)
        with pytest.raises(LoginBackoffError):
            await lab.log_in("anna", PASSWORD)

    on_accounts(tmp_path, test)


# --- expiry ---


@pytest.mark.parametrize("hours", [1, 24, 720])
@pytest.mark.parametrize("cached", [True, False])
def test_unused_session_ends_exactly_in_time(tmp_path: Path, hours: int, *, cached: bool) -> None:
    async def test(lab: AccountsLab) -> None:
        lab.session_hours = hours
        await lab.restart()
        anna = await lab.user("anna")
        seconds = hours * HOUR_S
        for before, valid in ((1.0, True), (MICROSECOND, True), (0.0, False), (-1.0, False)):
            token = (await lab.session(anna)).token
            if not cached:
                await lab.restart()
            lab.clock.advance(seconds - before)
            assert await is_valid(lab, token) == valid, before
            assert (await lab.sessions.authenticate(token) is not None) == valid

    on_accounts(tmp_path, test)


def test_each_use_renews(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        for use in range(10):
            lab.clock.advance(DAY_S - MICROSECOND)
            if use % 2:
                assert await is_valid(lab, token)
            else:
                principal = await lab.sessions.authenticate(token)
                assert principal is not None
                assert (principal.kind, principal.user_id) == ("session", anna)
                assert principal.scopes == {Scope.READ}
                assert principal.expires_us == lab.clock.now_us() + DAY_S * 1_000_000
        lab.clock.advance(DAY_S)
        assert not await is_valid(lab, token)
        assert not await is_valid(lab, token), "it does not come back"

    on_accounts(tmp_path, test)


def test_no_renewal_goes_beyond_thirty_days(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        for _ in range(limits.SESSION_RENEWAL_DAYS_MAX * 2 - 1):
            lab.clock.advance(DAY_S / 2)
            assert await is_valid(lab, token)
        assert (await lab.sessions.validate(token)).session.expires_at == "2026-06-27T20:26:40Z"
        lab.clock.advance(DAY_S / 2 - MICROSECOND)
        assert await is_valid(lab, token)
        lab.clock.advance(MICROSECOND)
        assert not await is_valid(lab, token)
        await lab.restart()
        assert not await is_valid(lab, token)

    on_accounts(tmp_path, test)


def test_a_crash_never_lets_a_session_live_longer_and_hardly_shorter(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        slack_s = DAY_S / 20
        # Used all day, flushed every ten minutes.
        for _ in range(100):
            lab.clock.advance(600)
            assert await is_valid(lab, token)
            await lab.sessions.flush()
        used_us = lab.clock.now_us()
        await lab.restart()
        (row,) = await lab.rows("sessions")
        lost_us = used_us - row["last_activity_us"]
        assert 0 <= lost_us <= (slack_s + 600) * 1e6
        assert row["expires_us"] == row["last_activity_us"] + DAY_S * 1_000_000
        lab.clock.advance(DAY_S - lost_us / 1e6 - MICROSECOND)
        assert await is_valid(lab, token)

    on_accounts(tmp_path, test)


def test_clean_stop_loses_no_renewal(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        lab.clock.advance(60)
        assert await is_valid(lab, token)
        await lab.sessions.flush(everything=True)
        await lab.restart()
        lab.clock.advance(DAY_S - MICROSECOND)
        assert await is_valid(lab, token)

    on_accounts(tmp_path, test)


def test_renewals_are_written_in_groups_and_only_when_due(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        tokens = [(await lab.session(anna)).token for _ in range(200)]
        written: list[object] = []
        real = lab.store.write

        async def watched(command: Any) -> Any:
            written.append(command)
            return await real(command)

        lab.store.write = watched  # type: ignore[method-assign]
        for _ in range(20):
            lab.clock.advance(60)
            for token in tokens:
                assert await is_valid(lab, token)
            await lab.sessions.flush()
        assert written == []
        lab.clock.advance(HOUR_S)
        for token in tokens:
            assert await is_valid(lab, token)
        await lab.sessions.flush()
        assert len(written) == 1
        now_us = lab.clock.now_us()
        assert {row["last_activity_us"] for row in await lab.rows("sessions")} == {now_us}

    on_accounts(tmp_path, test)


def test_clock_set_back_does_not_leave_a_later_end_in_the_file(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        now_us = lab.clock.now_us()
        lab.clock.advance(6 * HOUR_S)
        assert await is_valid(lab, token)
        await lab.sessions.flush()
        lab.clock.set_wall(now_us)
        assert await is_valid(lab, token)
        await lab.sessions.flush()
        (row,) = await lab.rows("sessions")
        assert row["expires_us"] == now_us + DAY_S * 1_000_000

    on_accounts(tmp_path, test)


def test_session_that_leaves_memory_keeps_its_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_CACHED_MAX", 3)

    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        tokens = [(await lab.session(anna)).token for _ in range(3)]
        lab.clock.advance(60)
        for token in tokens:
            assert await is_valid(lab, token)
        for _ in range(3):
            await lab.session(anna)
        assert len(lab.sessions._cache) <= 6
        lab.clock.advance(DAY_S - 30)
        assert await is_valid(lab, tokens[0]), "from those that wait to be stored"
        await lab.sessions.flush()
        assert len(lab.sessions._cache) <= 4
        for token in tokens:
            assert await is_valid(lab, token), "from the file"
        lab.clock.advance(DAY_S)
        for token in tokens:
            assert not await is_valid(lab, token)
        assert len(lab.sessions._cache) <= 6

    on_accounts(tmp_path, test)


def test_session_of_a_user_disabled_by_hand_is_none(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        token = (await lab.session(await lab.user("anna"))).token

        def disable(db: Any) -> None:
            db.execute("UPDATE users SET status = 'disabled'")

        await lab.store.write(disable)
        await lab.restart()
        assert not await is_valid(lab, token)

    on_accounts(tmp_path, test)


# --- tokens that are none ---


def test_what_is_no_token(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        token = (await lab.session(anna)).token
        (row,) = await lab.rows("sessions")
        for wrong in (
            "", "x", "' OR 1=1 --", token[:-1], token + "A", token + "\n", " " + token,
            token.swapcase(), "\u0430" * 43, "\ud800" * 43, "\x00" * 43, "A" * 43, "A" * 10**6,
            row["id"], row["token_hash"].hex(), token[:-1] + ("A" if token[-1] != "A" else "E"),
        ):  # fmt: skip
            assert not await is_valid(lab, wrong), wrong
            assert lab.sessions.cached(wrong) is None
            assert await lab.sessions.authenticate(wrong) is None
            with pytest.raises(SessionError):
                await lab.sessions.revoke_token(wrong)
        assert await is_valid(lab, token)

    on_accounts(tmp_path, test)


def test_what_cannot_be_a_token_costs_no_look_at_the_disk(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        async def read(query: Any) -> Any:
            raise AssertionError

        real, lab.store.read = lab.store.read, read  # type: ignore[method-assign]
        assert not await is_valid(lab, "x" * 42)
        lab.store.read = real  # type: ignore[method-assign]

    on_accounts(tmp_path, test)


def test_valid_session_needs_no_disk(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        token = (await lab.session(await lab.user("anna"))).token

        async def fail(_command: Any) -> Any:
            raise StoreUnavailableError("gone")

        read, write = lab.store.read, lab.store.write
        lab.store.read = lab.store.write = fail  # type: ignore[method-assign,assignment]
        assert await is_valid(lab, token)
        assert lab.sessions.cached(token) is not None
        with pytest.raises(StoreUnavailableError):
            await lab.sessions.validate("a" * 55)
        lab.clock.advance(2 * HOUR_S)
        assert await is_valid(lab, token)
        with pytest.raises(StoreUnavailableError):
            await lab.sessions.flush()
        lab.store.read, lab.store.write = read, write  # type: ignore[method-assign]
        await lab.sessions.flush()
        await lab.restart()
        assert await is_valid(lab, token)

    on_accounts(tmp_path, test)


# --- ending ---


def test_revoking(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        one, two, three = [await lab.session(anna) for _ in range(3)]
        bens = await lab.session(ben)
        acts = len(await lab.acts())
        own = Origin(
            Principal("session", id=one.session_id, user_id=anna, scopes=frozenset({Scope.READ})),
            "",
        )
        # Own ones.
        assert (await lab.sessions.revoke(two.session_id, own)).id == two.session_id
        assert not await is_valid(lab, two.token)
        assert (await lab.sessions.revoke_token(three.token)).id == three.session_id
        assert not await is_valid(lab, three.token)
        assert len(await lab.acts()) == acts
        # Others are not there for them.
        for session_id in (bens.session_id, two.session_id, UNKNOWN_ID, "", "' OR 1=1 --"):
            with pytest.raises(UnknownRecordError):
                await lab.sessions.revoke(session_id, own)
        for principal in (
            Principal("key", id="k", scopes=frozenset({Scope.READ}), user_id=ben),
            Principal("nobody"),
        ):
            with pytest.raises(ForbiddenError):
                await lab.sessions.revoke(bens.session_id, Origin(principal, ""))
        assert await is_valid(lab, bens.token)
        # An administrator's.
        await lab.sessions.revoke(bens.session_id, ADMIN_ORIGIN)
        assert not await is_valid(lab, bens.token)
        entry = (await lab.rows("audit"))[-1]
        assert (entry["act"], entry["subject"]) == ("sessions.revoke", ben)
        with pytest.raises(SessionError):
            await lab.sessions.revoke_token(bens.token)
        await lab.restart()
        assert [await is_valid(lab, each.token) for each in (one, two, three, bens)] == [
            True, False, False, False,
        ]  # fmt: skip

    on_accounts(tmp_path, test)


def test_revoked_session_does_not_come_back_by_a_renewal(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        anna = await lab.user("anna")
        made = await lab.session(anna)
        lab.clock.advance(2 * HOUR_S)
        assert await is_valid(lab, made.token)
        flushing = asyncio.ensure_future(lab.sessions.flush())
        await lab.sessions.revoke(made.session_id, LOCAL_ORIGIN)
        await flushing
        await lab.sessions.flush(everything=True)
        assert not await is_valid(lab, made.token)
        assert await lab.rows("sessions") == []

    on_accounts(tmp_path, test)


def test_session_read_before_it_was_revoked_is_not_kept_after_it(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        made = await lab.session(await lab.user("anna"))
        await lab.restart()
        real = lab.store.read

        async def slow_read(query: Any) -> Any:
            found = await real(query)
            lab.store.read = real  # type: ignore[method-assign]
            await lab.sessions.revoke(made.session_id, LOCAL_ORIGIN)
            return found

        lab.store.read = slow_read  # type: ignore[method-assign]
        await lab.sessions.find(made.token)
        assert not await is_valid(lab, made.token)

    on_accounts(tmp_path, test)


def test_oldest_session_ends_for_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_PER_USER_MAX", 3)

    async def test(lab: AccountsLab) -> None:
        anna, ben = await lab.user("anna"), await lab.user("ben")
        bens = (await lab.session(ben)).token
        tokens = []
        for _ in range(5):
            lab.clock.advance(1)
            tokens.append((await lab.session(anna)).token)
        assert [await is_valid(lab, token) for token in tokens] == [False, False, True, True, True]
        assert await is_valid(lab, bens)
        assert len(await lab.rows("sessions")) == 4

    on_accounts(tmp_path, test)


def test_list_shows_what_is_valid_as_it_is_now(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        users = sorted([await lab.user(name) for name in ("anna", "ben")])
        made = []
        for number in range(9):
            lab.clock.advance(60)
            made.append(await lab.session(users[number % 2]))
        lab.clock.advance(60)
        await lab.sessions.validate(made[0].token)
        lab.clock.advance(DAY_S - 180)
        # made[1] to made[6] have expired, made[0] was renewed.
        left = {made[0].session_id, made[7].session_id, made[8].session_id}

        async def walk(user_id: str | None, limit: int) -> list[str]:
            found: list[str] = []
            after = None
            while True:
                page = await lab.sessions.page(user_id=user_id, limit=limit, after=after)
                assert len(page.sessions) <= limit
                found += [session.id for session in page.sessions]
                if page.next is None:
                    return found
                of_user, created, session_id = page.next.split(".")
                after = (of_user, int(created), session_id)

        for limit in (1, 2, 100):
            assert set(await walk(None, limit)) == left
            assert len(await walk(None, limit)) == 3
            assert await walk(users[0], limit) == [made[0].session_id, made[8].session_id]
            assert await walk(users[1], limit) == [made[7].session_id]
            assert await walk(UNKNOWN_ID, limit) == []
        shown = (await lab.sessions.page(user_id=users[0], limit=1, after=None)).sessions[0]
        assert shown.last_activity == "2026-05-28T20:36:40Z", "not yet stored, but known"

    on_accounts(tmp_path, test)


def test_expired_sessions_are_removed_in_the_background(tmp_path: Path) -> None:
    async def test(lab: AccountsLab) -> None:
        users = [await lab.user("anna"), await lab.user("ben")]
        made = [await lab.session(users[number % 2]) for number in range(1500)]
        used, lives = made[0], made[1]
        lab.clock.advance(HOUR_S)
        # Renewed by less than is written at once: the row says less than memory knows.
        assert await is_valid(lab, used.token)
        await lab.sessions.flush()
        lab.clock.advance(DAY_S - HOUR_S + 60)
        await lab.sessions.flush()
        assert await is_valid(lab, used.token), "a row that has expired was not removed too soon"
        assert len(await lab.rows("sessions")) == 1500
        lab.clock.advance(2 * HOUR_S)
        await lab.sessions.flush()
        assert [row["id"] for row in await lab.rows("sessions")] == [used.session_id]
        assert not await is_valid(lab, lives.token)

    on_accounts(tmp_path, test)
