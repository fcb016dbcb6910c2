"""`ocean keys`, `sensors`, `users`, `audit`, `ledger`: what they ask for and what they print."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocean_core.cli import keys, records, sensors, users
from ocean_core.cli.engine import opened
from ocean_core.cli.keys import curl_line
from ocean_core.cli.main import main
from ocean_core.cli.options import ConnectionOptions
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    DataDirError,
    UnknownSensorError,
    UnknownUserError,
)

USER = "b0cc5d44-8039-43fa-b9d4-090d50e5f756"
KEY = {
    "id": "0a1b", "name": "dash", "scopes": ["read"], "sensors": "", "rate": None, "user_id": None,
    "status": "active", "created_at": "2026-01-17T00:00:00Z", "expires_at": None,
    "revoked_at": None, "last_used_at": None,
}  # fmt: skip
SENSOR = {
    "sensor_id": "press-01", "display_name": "Press", "unit": "bar", "tags": {"site": "north"},
    "note": "", "updated_at": None, "aliases": [], "metrics": ["value"], "count": 1200,
    "first_reading": "2026-01-17T00:00:00Z", "last_reading": "2026-01-18T00:00:00Z",
    "last_value": 2.5, "events": 3,
}  # fmt: skip


class FakeEngine:
    """Answers from a table, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def method(*arguments: Any, **options: Any) -> Any:
            self.asked.append((name, arguments, options))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return method

    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]


class Box:
    """Runs commands on a fake engine."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._data_dir = data_dir
        self.engine = FakeEngine()
        self.may_make = False
        self.error = ""

    def run(self, *arguments: str, code: int = 0, **answers: Any) -> str:
        self.engine = FakeEngine(**answers)

        @contextmanager
        def fake(_connection: object, *, may_make: bool = False) -> Iterator[FakeEngine]:
            self.may_make = may_make
            yield self.engine

        for module in (keys, sensors, users, records):
            self._monkeypatch.setattr(module, "opened", fake)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--data-dir", str(self._data_dir)])
        out, self.error = self._capsys.readouterr()
        assert ended.value.code == code, self.error
        return out

    def json(self, *arguments: str, **answers: Any) -> Any:
        return json.loads(self.run(*arguments, "--json", **answers))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Box:
    monkeypatch.delenv("OCEAN_KEY", raising=False)
    return Box(monkeypatch, capsys, tmp_path)


# --- keys ---


def test_a_key_is_shown_once_with_the_line_that_uses_it(box: Box) -> None:
    made = {**KEY, "scopes": ["ingest"], "sensors": "press-*", "key": "ocean_abc"}
    out = box.run(
        "keys", "create", "--name", "dash", "--scope", "ingest,read", "--scope", "ingest",
        "--sensors", "press-*", "--rate", "50", "--expires", "90d", "--user", USER,
        create_key=made,
    )  # fmt: skip
    assert box.engine.asked == [
        (
            "create_key",
            ("dash", ["ingest", "read"]),
            {"sensors": "press-*", "rate": 50, "expires": "90d", "user_id": USER},
        )
    ]
    assert box.may_make
    assert "\nocean_abc\n" in out
    assert (
        "curl -H 'Authorization: Bearer ocean_abc' -H 'Content-Type: application/json' "
        '-d \'{"sensor_id": "press-1", "value": 21.5}\' '
        "http://127.0.0.1:8030/api/ocean/telemetry/ingest"
    ) in out
    assert box.json("keys", "create", "--name", "d", "--scope", "read", create_key=made) == made


def test_the_line_names_server_and_certificate() -> None:
    assert curl_line({**KEY, "key": "ocean_k"}, "https://gw:8443", Path("/d/my cert.pem")) == (
        "curl --cacert '/d/my cert.pem' -H 'Authorization: Bearer ocean_k' "
        "https://gw:8443/api/ocean/sensors"
    )
    for pattern, sensor in (("a-[xy]?*", "a-x11"), ("", "press-01"), ("[!b]c", "bc")):
        key = {**KEY, "scopes": ["ingest"], "sensors": pattern, "key": "k"}
        assert f'"sensor_id": "{sensor}"' in curl_line(key, "http://h", None)


def test_a_typed_address_is_the_one_in_the_line(box: Box) -> None:
    made = {**KEY, "key": "ocean_abc"}
    out = box.run(
        "keys", "create", "--name", "d", "--scope", "read", "--url", "http://10.0.0.9:1/",
        create_key=made,
    )  # fmt: skip
    assert "http://10.0.0.9:1/api/ocean/sensors" in out


@pytest.mark.parametrize(
    "arguments",
    [("--scope", "all"), ("--scope", "read", "--rate", "0"), ()],
    ids=["scope", "rate", "no scope"],
)
def test_a_key_that_makes_no_sense_is_wrong_usage(box: Box, arguments: tuple[str, ...]) -> None:
    box.run("keys", "create", "--name", "d", *arguments, code=2)
    assert box.engine.asked == []


def test_keys_are_listed_without_secrets(box: Box) -> None:
    out = box.run("keys", "list", list_keys=[KEY, {**KEY, "name": "old", "status": "revoked"}])
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "dash", "old"]
    assert "revoked" in out
    assert box.json("keys", "list", list_keys=[KEY]) == [KEY]
    assert "no keys" in box.run("keys", "list", list_keys=[])


@pytest.mark.parametrize("typed", ["new", "dash"])
def test_a_key_is_revoked_by_id_or_by_the_name_of_the_active_one(box: Box, typed: str) -> None:
    old = {**KEY, "id": "old", "status": "revoked"}
    box.run("keys", "revoke", typed, list_keys=[old, {**KEY, "id": "new"}], revoke_key=None)
    assert box.engine.asked[-1] == ("revoke_key", ("new",), {})


def test_an_unknown_key_is_told(box: Box) -> None:
    box.run("keys", "revoke", "none", code=1, list_keys=[KEY])
    assert "OC-8005" in box.error
    assert "ocean keys list" in box.error


# --- sensors ---


def test_sensors_are_listed_with_names_and_units(box: Box) -> None:
    out = box.run("sensors", "list", "--prefix", "press", sensors=[SENSOR])
    assert box.engine.asked == [("sensors", ("press",), {"limit": 10_000, "wait": True})]
    row = out.splitlines()[1]
    assert row.split() == [
        "press-01", "Press", "1,200", "3", "2.5", "bar", "2026-01-18T00:00:00Z", "value",
    ]  # fmt: skip
    undescribed = {name: SENSOR[name] for name in (
        "sensor_id", "count", "events", "last_value", "last_reading", "metrics",
    )}  # fmt: skip
    assert " -  " in box.run("sensors", "list", sensors=[undescribed])
    assert "starts with 'x'" in box.run("sensors", "list", "--prefix", "x", sensors=[])
    assert box.json("sensors", "list", sensors=[SENSOR]) == [SENSOR]


def test_a_sensor_is_shown_line_by_line(box: Box) -> None:
    out = box.run("sensors", "show", "press-01", get_sensor=SENSOR)
    assert "tags           site=north" in out
    assert box.json("sensors", "show", "press-01", get_sensor=SENSOR) == SENSOR


def test_what_is_set_leaves_the_rest_alone(box: Box) -> None:
    box.run(
        "sensors", "set", "press-01", "--unit", "", "--tag", "line=2", "--tag", "site=",
        "--tag", "formula=a=b", get_sensor=SENSOR, update_sensor=SENSOR,
    )  # fmt: skip
    name, arguments, options = box.engine.asked[-1]
    assert (name, arguments) == ("update_sensor", ("press-01",))
    assert options["unit"] is None
    assert options["tags"] == {"line": "2", "formula": "a=b"}
    assert str(options["note"]) == str(options["display_name"]) == "UNSET"


def test_a_sensor_that_sent_nothing_yet_can_be_described(box: Box) -> None:
    unknown = UnknownSensorError("there is no sensor")
    box.run("sensors", "set", "s", "--tag", "a=1", get_sensor=unknown, update_sensor=SENSOR)
    assert box.engine.asked[-1][2]["tags"] == {"a": "1"}


@pytest.mark.parametrize("more", [(), ("--tag", "novalue"), ("--tag", "=x")])
def test_nothing_to_set_is_wrong_usage(box: Box, more: tuple[str, ...]) -> None:
    box.run("sensors", "set", "s", *more, code=2)


def test_a_rename_says_if_it_is_still_to_come(box: Box) -> None:
    answer = {"sensor_id": "b", "renamed_from": "a", "aliases": ["a"], "pending": False}
    assert box.run("sensors", "rename", "a", "b", rename_sensor=answer) == "a is now b\n"
    assert "analytics are away" in box.run(
        "sensors", "rename", "a", "b", rename_sensor={**answer, "pending": True}
    )


FORGOTTEN = {"sensor_id": "press-01", "forgotten": 1203, "up_to_id": 9, "pending": False}


def test_forgetting_asks_for_the_id_after_saying_what_goes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "is_interactive", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_, **__: "press-01")
    out = box.run("sensors", "forget", "press-01", get_sensor=SENSOR, forget_sensor=FORGOTTEN)
    assert (
        "press-01: 1,200 readings from 2026-01-17T00:00:00Z to 2026-01-18T00:00:00Z and 3 events"
    ) in box.error
    assert out == "press-01 is forgotten, with 1,203 readings and events\n"
    assert box.engine.names() == ["get_sensor", "forget_sensor"]


def test_another_id_typed_forgets_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "is_interactive", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_, **__: "press-1")
    box.run("sensors", "forget", "press-01", code=1, get_sensor=SENSOR)
    assert "nothing was forgotten" in box.error
    assert box.engine.names() == ["get_sensor"]


def test_nobody_there_to_ask_forgets_nothing_without_yes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "is_interactive", lambda: False)
    away = {name: value for name, value in SENSOR.items() if name not in ("count", "events")}
    down = AnalyticsUnavailableError("starting")
    box.run("sensors", "forget", "press-01", code=1, get_sensor=away, sensors=down)
    assert "nobody can say how many" in box.error
    assert "--yes" in box.error
    assert box.engine.names() == ["get_sensor", "sensors"]
    box.run("sensors", "forget", "press-01", code=1, get_sensor=away, sensors=[])
    assert "press-01: 0 readings" in box.error
    box.run("sensors", "forget", "press-01", "--yes", forget_sensor=FORGOTTEN)
    assert box.engine.names() == ["forget_sensor"]


# --- users, audit, ledger ---

ADA = {
    "id": USER, "username": "ada", "email": "ada@x.example", "status": "active",
    "created_at": "2026-01-17T00:00:00Z", "updated_at": "2026-01-17T00:00:00Z",
}  # fmt: skip


def test_a_user_is_made_with_the_password_of_a_file(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\nsecond line\n", encoding="utf-8")
    out = box.run(
        "users", "create", "ada", "ada@x.example", "--password-file", str(file), create_user=ADA
    )
    assert box.engine.asked == [
        ("create_user", ("ada", "ada@x.example"), {"password": "correct horse"})
    ]
    assert USER in out
    assert "correct" not in out
    box.run("users", "create", "a", "b", "--password", "--password-file", str(file), code=2)


def test_a_password_is_asked_for_without_showing_it(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def prompt(_text: str, **options: Any) -> str:
        asked.append(options)
        return "correct horse"

    monkeypatch.setattr("click.prompt", prompt)
    box.run("users", "create", "ada", "a@x", "--password", create_user=ADA)
    assert asked[0]["hide_input"]
    assert asked[0]["confirmation_prompt"]
    assert box.engine.asked[0][2] == {"password": "correct horse"}


def test_users_are_listed(box: Box) -> None:
    out = box.run("users", "list", "--status", "active", list_users=[ADA])
    assert box.engine.asked == [("list_users", (), {"status": "active", "limit": 1000})]
    assert out.splitlines()[1].split() == [USER, "ada", "ada@x.example", "active"]
    assert box.json("users", "list", list_users=[ADA]) == [ADA]
    box.run("users", "list", "--status", "gone", code=2)


@pytest.mark.parametrize("typed", [USER, USER.upper(), "ada", "ada@x.example"])
def test_a_user_is_shown_with_the_account(box: Box, typed: str) -> None:
    found = box.json(
        "users", "show", typed, get_user=ADA, list_users=[ADA],
        get_billing={"id": "x", "plan": "free", "credits": 5, "usage": 7},
    )  # fmt: skip
    assert found == {**ADA, "plan": "free", "credits": 5, "usage": 7}


def test_a_user_is_disabled(box: Box) -> None:
    disabled = {**ADA, "status": "disabled"}
    out = box.run("users", "disable", "ada", list_users=[ADA], disable_user=disabled)
    assert box.engine.asked[-1] == ("disable_user", (USER,), {})
    assert "disabled" in out


def test_an_unknown_user_is_told(box: Box) -> None:
    box.run("users", "show", "eve", code=1, list_users=[ADA])
    assert "OC-8001" in box.error
    box.run("users", "show", USER, code=1, get_user=UnknownUserError("User not found"))
    assert "OC-8001" in box.error


def test_audit_and_ledger(box: Box) -> None:
    entry = {
        "id": 1, "created_at": "2026-01-17T00:00:00Z", "actor": "owner", "address": "127.0.0.1",
        "act": "keys.create", "subject": "0a1b", "detail": {"name": "dash"},
    }  # fmt: skip
    out = box.run("audit", "--act", "keys.create", audit=[entry])
    assert box.engine.asked == [("audit", (), {"act": "keys.create", "limit": 100})]
    assert "keys.create  0a1b" in out
    assert box.json("audit", audit=[entry]) == [entry]
    loss = {"sensor_id": "s", "class": "forgotten", "count": 5, "updated_at": "2026"}
    assert box.run("ledger", ledger=[loss]).splitlines()[1].split() == [
        "s", "forgotten", "5", "2026",
    ]  # fmt: skip
    assert "Nothing" in box.run("ledger", ledger=[])


# --- which server ---


def test_a_directory_that_does_not_exist_is_not_made_by_a_question(tmp_path: Path) -> None:
    connection = ConnectionOptions(data_dir=str(tmp_path / "typo"))
    with opened(connection) as engine, pytest.raises(DataDirError, match="does not exist"):
        engine.list_keys()
    assert not (tmp_path / "typo").exists()


def test_nobody_at_an_address_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "list", "--url", "http://127.0.0.1:9", "--data-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert "OC-7004" in capsys.readouterr().err
