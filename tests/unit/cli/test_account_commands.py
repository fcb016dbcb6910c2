"""`ocean keys`, `sensors`, `users`, `audit`, `ledger`: what they ask for and what they print."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocean_core.cli import asking, keys, quarantine, records, sensors, users
from ocean_core.cli.engine import opened
from ocean_core.cli.frame_advice import NEXT_STEPS
from ocean_core.cli.keys import curl_line
from ocean_core.cli.main import main
from ocean_core.cli.options import ConnectionOptions
from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    ConflictError,
    CreditsError,
    DataDirError,
    UnknownUserError,
)
from ocean_core.protocol.nanogridata.encode import encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import Outcome
from ocean_core.runtime.lock import RunInfo
from support.paths import PACKAGE

KINDS = "billing|groups|keys|metadata|profiles|quarantine|sensors|sessions|users"
ENDED = ("expired", "revoked")
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

        for module in (keys, quarantine, sensors, users, records):
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


# --- quarantine ---

FRAME = {
    "id": 1017, "first_seen_at": "2026-01-17T00:00:00Z", "last_seen_at": "2026-01-17T00:00:00.5Z",
    "seen": 3, "transport": "tcp", "address": "10.0.0.9:40122", "sender": "local",
    "outcome": "E_KEY", "detail": "no secret for model 0x10\x1b[2J", "offset": 17, "model": "0x10",
    "sensor_id": "", "given": "", "early": False, "state": "held", "size": 20,
}  # fmt: skip
RETRIED = {
    "id": 1017, "outcome": "E_MAC", "detail": "wrong", "released": False, "sensor_id": "",
    "rows": 0,
}  # fmt: skip


def test_refused_frames_are_listed(box: Box) -> None:
    out = box.run("quarantine", "list", "--outcome", "E_KEY", quarantined_frames=[FRAME])
    assert box.engine.asked == [("quarantined_frames", (), {"outcome": "E_KEY", "limit": 100})]
    assert re.search(
        r"^1017 +2026-01-17T00:00:00Z +E_KEY +0x10 +- +tcp 10.0.0.9:40122 +3", out, re.MULTILINE
    )
    assert "\x1b" not in out
    assert "No frame is in quarantine." in box.run("quarantine", "list", quarantined_frames=[])


def test_a_refused_frame_is_explained(box: Box) -> None:
    header = {"magic": "c153", "model": "0x10", "payload_type_name": None, "timestamp": 1780000000}
    whole = {
        **FRAME, "frame": "c15301" + "00" * 17, "header": header, "meaning": "No secret.",
        "next_step": "Add it.",
    }  # fmt: skip
    out = box.run("quarantine", "show", "1017", quarantined_frame=whole)
    assert "why         No secret.\n" in out
    assert f"what to do  {NEXT_STEPS[Outcome.KEY]}\n" in out, "what decode says, too"
    assert "3 times, first 2026-01-17T00:00:00Z, last 2026-01-17T00:00:00Z" in out
    assert "no access key" in out
    assert not re.search(r" (-|yes|no)$", out, re.MULTILINE)
    assert "  0000  c1 53 01" in out
    assert "\n  0016  00 00 00 00\n           ^^\n" in out
    assert f"\nocean decode --now 1768608000 {whole['frame']}\n" in out
    assert "timestamp  1780000000" in out
    short = {**whole, "header": None, "frame": "", "offset": None}
    assert "header: none" in box.run("quarantine", "show", "1017", quarantined_frame=short)
    assert box.json("quarantine", "show", "1017", quarantined_frame=whole) == whole


def test_frames_are_tried_again(box: Box) -> None:
    answer = {"stored": 2, "duplicate": 1, "kept": 1, "frames": [RETRIED]}
    out = box.run("quarantine", "retry", "1017", "5", retry_frames=answer)
    assert box.engine.asked == [
        ("retry_frames", ((1017, 5),), {"outcome": None, "any_time": False})
    ]
    assert out.splitlines() == [
        "1017: E_MAC: wrong", "2 frames stored, 1 stored before, 1 refused again"
    ]  # fmt: skip
    assert "no frame 5 is in quarantine" in box.error
    box.run("quarantine", "retry", "--all", "--any-time", retry_frames=answer)
    assert box.engine.asked == [("retry_frames", (None,), {"outcome": None, "any_time": True})]
    for wrong in ((), ("1", "--all"), ("--all", "--outcome", "E_KEY")):
        box.run("quarantine", "retry", *wrong, code=2)


def test_refused_frames_are_deleted(box: Box) -> None:
    assert box.run("quarantine", "forget", "3", "4", "3", forget_frame=None) == "2 frames deleted\n"
    assert box.engine.names() == ["forget_frame"] * 2


def test_all_refused_frames_of_a_kind_are_deleted(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = ("quarantine", "forget")
    out = box.run(*forget, "--outcome", "E_STALE", "--yes", forget_frames=[3, 4])
    assert out == "2 frames deleted\n"
    assert box.engine.asked == [("forget_frames", (), {"outcome": "E_STALE"})]
    assert box.json(*forget, "--all", "--yes", forget_frames=[5]) == {"forgotten": [5]}
    assert box.engine.asked == [("forget_frames", (), {"outcome": None})]
    for wrong in ((), ("1", "--all"), ("--all", "--outcome", "E_KEY")):
        box.run(*forget, *wrong, "--yes", code=2)
    box.run(*forget, "--all", code=1)
    assert "nobody is there to confirm it; nothing was deleted" in box.error
    assert box.engine.asked == []
    monkeypatch.setattr(quarantine, "is_interactive", lambda: True)
    for typed, code in (("E_KEY", 1), ("E_STALE", 0)):
        monkeypatch.setattr("click.prompt", lambda *_, said=typed, **__: said)
        box.run(*forget, "--outcome", "E_STALE", forget_frames=[3], code=code)
        assert bool(box.engine.asked) == (code == 0)


@pytest.mark.parametrize("sent", ["short", "trailing", "stale"])
def test_a_refused_frame_gets_the_advice_of_decode(box: Box, sent: str) -> None:
    good = encode(0x10, 1, pressure_payload("p", "", 10**9, 1), level=0, timestamp=1_768_608_000)
    frame, outcome, advised = {
        "short": (good[:-1], Outcome.SHORT, None),
        "trailing": (good + b"\n", Outcome.TRAILING, "an end of line that a shell"),
        "stale": (good[:8] + bytes(4) + good[12:], Outcome.STALE, "its clock was never set"),
    }[sent]
    if sent == "stale":
        frame = encode(0x10, 1, pressure_payload("p", "", 10**9, 1), level=0, timestamp=0)
    whole = {
        **FRAME, "frame": frame.hex(), "size": len(frame), "outcome": str(outcome), "header": None,
        "offset": len(good) - 1 if sent == "short" else 8,
        "meaning": "M.", "next_step": "the box's own words",
    }  # fmt: skip
    out = box.run("quarantine", "show", "1017", quarantined_frame=whole)
    assert NEXT_STEPS[outcome] in out
    assert advised is None or advised in out
    assert ("^^  the frame ends here" in out) == (sent == "short")
    assert "the box's own words" not in out
    assert ("retry 1017 --any-time" in out) == (sent == "stale")
    unsure = {**whole, "state": "unsure", "given": "gate"}
    out = box.run("quarantine", "show", "1017", quarantined_frame=unsure)
    assert "the box's own words" in out
    assert "gate was named beside the frame" in out


# --- keys ---


def test_a_key_is_shown_once_with_the_line_that_uses_it(box: Box) -> None:
    made = {
        **KEY, "scopes": ["ingest"], "sensors": "press-*", "key": "ocean_abc", "rate": 50,
        "user_id": USER, "expires_at": "2026-04-17T00:00:00.123456Z",
    }  # fmt: skip
    out = box.run(
        "keys", "create", "--name", "dash", "--scope", "ingest,read", "--scope", "ingest",
        "--sensors", "press-*", "--rate", "50", "--expires", "90d", "--user", "ADA",
        create_key=made, list_users=[ADA],
    )  # fmt: skip
    assert box.engine.asked[1:] == [
        (
            "create_key",
            ("dash", ["ingest", "read"]),
            {"sensors": "press-*", "rate": 50, "expires": "90d", "user_id": USER},
        )
    ]
    assert box.may_make
    assert "\nocean_abc\n" in out
    for line in (
        "sensors  press-*", "rate     at most 50 readings/s", "user     ada",
        "expires  2026-04-17T00:00:00Z",
    ):  # fmt: skip
        assert f"\n{line}\n" in out
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
    press = {**KEY, "name": "press", "rate": 1500, "user_id": USER, "sensors": "press-*"}
    keys = [KEY, press, *[{**KEY, "name": status, "status": status} for status in ENDED]]
    out = box.run("keys", "list", list_keys=keys, get_user=ADA)
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "dash", "press"]
    assert out.splitlines()[2].split()[:6] == [
        "press", "read", "press-*", "1,500/s", "ada", "active",
    ]  # fmt: skip
    assert "2 revoked or expired keys not shown" in box.error
    out = box.run("keys", "list", "--all", list_keys=keys, get_user=ADA)
    assert [line.split()[0] for line in out.splitlines()[3:]] == list(ENDED)
    assert box.error == ""
    assert box.json("keys", "list", list_keys=keys) == [KEY, press]
    assert "no keys" in box.run("keys", "list", list_keys=[])


@pytest.mark.parametrize("typed", ["new", "dash"])
def test_a_key_is_revoked_by_id_or_by_the_name_of_the_active_one(box: Box, typed: str) -> None:
    old = {**KEY, "id": "old", "status": "revoked"}
    box.run("keys", "revoke", typed, list_keys=[old, {**KEY, "id": "new"}], revoke_key=None)
    assert box.engine.asked[-1] == ("revoke_key", ("new",), {})


def test_a_name_that_a_key_has_is_told_with_both_ways_out(box: Box) -> None:
    taken = ConflictError("an active key has the name")
    box.run("keys", "create", "--name", "my key", "--scope", "read", code=1, create_key=taken)
    assert "ocean keys revoke 'my key'" in box.error


def test_a_box_about_to_serve_the_network_shows_the_line_for_that_too(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = {**KEY, "key": "ocean_abc"}
    cert = tmp_path / "tls" / "cert.pem"
    cert.parent.mkdir()
    cert.write_text("", encoding="ascii")
    (cert.parent / "key.pem").write_text("", encoding="ascii")

    def lines(url: str, network_url: str = "") -> list[str]:
        info = RunInfo(1, url, "2", "now", "", network_url=network_url)
        monkeypatch.setattr(keys, "find_server", lambda _: info)
        out = box.run("keys", "create", "--name", "d", "--scope", "read", create_key=made)
        return [line.strip() for line in out.splitlines() if "curl" in line]

    local, outside = lines("http://127.0.0.1:8030")
    assert "http://127.0.0.1:8030/" in local
    assert outside.startswith(f"curl --cacert {cert} ")
    assert outside.endswith("https://GATEWAY:8443/api/ocean/sensors")
    assert len(lines("http://127.0.0.1:8030", "https://127.0.0.1:8443")) == 1


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
    assert out.split()[5:7] == ["VALUE", "UNIT"]
    several = {**SENSOR, "metrics": ["t", "h"]}
    row = box.run("sensors", "list", sensors=[several]).splitlines()[1]
    assert "2 metrics" in row
    assert "2.5" not in row
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
    assert box.engine.names() == ["get_sensor", "update_sensor", "get_sensor"]
    name, arguments, options = box.engine.asked[1]
    assert (name, arguments) == ("update_sensor", ("press-01",))
    assert box.error == ""
    assert options["unit"] is None
    assert options["tags"] == {"line": "2", "formula": "a=b"}
    assert str(options["note"]) == str(options["display_name"]) == "UNSET"


def test_a_sensor_that_sent_nothing_yet_can_be_described(box: Box) -> None:
    silent = {**SENSOR, "tags": {}, "count": 0, "events": 0}
    box.run(
        "sensors", "set", "zz9", "--tag", "a=1", get_sensor=silent, update_sensor=SENSOR, sensors=[]
    )
    assert box.engine.asked[1][2]["tags"] == {"a": "1"}
    assert box.error == "ocean: zz9 has sent nothing yet; check the id\n"
    # Readings that analytics did not see yet are waited for.
    assert box.engine.names()[2:] == ["get_sensor", "sensors", "get_sensor"]


@pytest.mark.parametrize(
    "more",
    [
        ("set", "", "--unit", "x"),
        ("show", ""),
        ("rename", "a", ""),
        ("rename", "", "a"),
        ("forget", ""),
    ],
    ids=str,
)
def test_an_empty_id_is_wrong_usage(box: Box, more: tuple[str, ...]) -> None:
    box.run("sensors", *more, code=2)
    assert "the sensor id is empty" in box.error
    assert box.engine.asked == []


@pytest.mark.parametrize("more", [(), ("--tag", "novalue"), ("--tag", "=x")])
def test_nothing_to_set_is_wrong_usage(box: Box, more: tuple[str, ...]) -> None:
    box.run("sensors", "set", "s", *more, code=2)


def test_a_rename_says_if_it_is_still_to_come(box: Box) -> None:
    answer = {"sensor_id": "b", "renamed_from": "a", "aliases": ["a"], "pending": False}
    assert box.run("sensors", "rename", "a", "b", rename_sensor=answer) == "a is now b\n"
    assert "analytics are away" in box.run(
        "sensors", "rename", "a", "b", rename_sensor={**answer, "pending": True}
    )


def test_a_rename_tells_who_sits_there_what_becomes_of_the_old_name(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"sensor_id": "b", "renamed_from": "a", "aliases": ["a"], "pending": False}
    box.run("sensors", "rename", "a", "b", rename_sensor=answer)
    assert box.error == ""
    monkeypatch.setattr(sensors, "is_interactive", lambda: True)
    box.run("sensors", "rename", "a", "b", rename_sensor=answer)
    assert box.error == "a keeps working as a name, and stays reserved\n"


def test_a_rename_to_the_same_name_changes_nothing(box: Box) -> None:
    same = ("sensors", "rename", "press-01", "press-01")
    out = box.run(*same, get_sensor=SENSOR)
    assert out == "press-01: it has this name already; nothing was changed\n"
    assert box.json(*same, get_sensor=SENSOR) == {
        "sensor_id": "press-01", "renamed_from": "press-01", "aliases": [], "pending": False,
    }  # fmt: skip
    # Whose name of today is another, the server answers for.
    taken = ConflictError("taken")
    box.run(*same, code=1, get_sensor={**SENSOR, "sensor_id": "x"}, rename_sensor=taken)
    assert "no sensor has or had" in box.error


FORGOTTEN = {"sensor_id": "press-01", "forgotten": 1203, "up_to_id": 9, "pending": False}


def test_forgetting_asks_for_the_id_after_saying_what_goes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "is_interactive", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_, **__: "press-01")
    out = box.run("sensors", "forget", "press-01", get_sensor=SENSOR, forget_sensor=FORGOTTEN)
    assert (
        "press-01: 1,200 readings from 2026-01-17T00:00:00Z to 2026-01-18T00:00:00Z and 3 events, "
        "with its name, unit, tags and note."
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
    out = box.run(
        "sensors", "forget", "press-01", "--yes", forget_sensor={**FORGOTTEN, "forgotten": 1}
    )
    assert out == "press-01 is forgotten, with 1 reading or event\n"
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
    monkeypatch.setattr(asking, "is_interactive", lambda: True)
    box.run("users", "create", "ada", "a@x", "--password", create_user=ADA)
    assert asked[0]["hide_input"]
    assert asked[0]["confirmation_prompt"]
    assert box.engine.asked[0][2] == {"password": "correct horse"}


@pytest.mark.parametrize(
    "more", [("create", "ada", "a@x", "--password"), ("passwd", "ada")], ids=str
)
def test_without_a_terminal_nobody_is_asked_for_a_password(
    box: Box, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(asking, "is_interactive", lambda: False)
    box.run("users", *more, code=2)
    assert "no terminal to ask at; use --password-file" in box.error
    assert box.engine.asked == []


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
    others = [KEY, {**KEY, "name": "a", "user_id": USER, "status": "revoked"}]
    suspended = {**KEY, "name": "press", "user_id": USER, "status": "user disabled"}
    entries = [
        {"subject": "another", "detail": {"sessions_ended": 9}},
        {"subject": USER, "detail": {"changed": ["status"], "sessions_ended": 2}},
    ]
    answers: dict[str, Any] = {
        "disable_user": disabled,
        "audit": entries,
        "list_keys": [*others, suspended],
    }
    out = box.run("users", "disable", "Ada", list_users=[ADA], **answers)
    assert box.engine.asked[1] == ("disable_user", (USER,), {})
    assert out == (
        "ada is disabled; 2 sessions ended\n1 key suspended until `ocean users enable ada`: press\n"
    )
    assert box.json("users", "disable", "ada", list_users=[ADA], **answers) == disabled
    assert box.run("users", "disable", "ada", list_users=[disabled]) == (
        "ada is disabled already; nothing was changed\n"
    )


def test_a_user_is_enabled_again(box: Box) -> None:
    disabled = {**ADA, "status": "disabled"}
    keys_of_ada = [{**KEY, "name": "press", "user_id": USER}]
    out = box.run(
        "users", "enable", "ada", list_users=[disabled], update_user=ADA, list_keys=keys_of_ada
    )
    assert box.engine.asked[1] == ("update_user", (USER,), {"status": "active"})
    assert out == "ada is active again; what works again, too: 1 key (press)\n"
    out = box.run("users", "enable", "ada", list_users=[ADA])
    assert out == "ada is active already; nothing was changed\n"


def test_a_user_gets_another_password(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("battery staple\n", encoding="utf-8")
    out = box.run(
        "users", "passwd", "ada", "--password-file", str(file), list_users=[ADA], update_user=ADA,
        audit=[{"subject": USER, "detail": {"sessions_ended": 1}}],
    )  # fmt: skip
    assert box.engine.asked[1] == ("update_user", (USER,), {"password": "battery staple"})
    assert out == "ada has a new password; 1 session ended\n"


@pytest.mark.parametrize("amount", [1000, -500])
def test_credits_are_given_and_taken(box: Box, amount: int) -> None:
    out = box.run(
        "users", "credits", "ada", str(amount), "--note", "January", list_users=[ADA],
        add_credits={"user_id": USER, "credits": 1},
    )  # fmt: skip
    assert box.engine.asked[1] == ("add_credits", (USER, amount), {"note": "January"})
    assert out == "ada has 1 credit now\n"
    box.run("users", "credits", "ada", "much", code=2)
    broke = CreditsError("3000 were to be taken")
    box.run("users", "credits", "ada", "-3000", code=1, list_users=[ADA], add_credits=broke)
    assert "ocean users credits" in box.error


def test_changes_of_credits_are_listed(box: Box) -> None:
    entry = {
        "id": 2, "created_at": "2026-01-17T00:00:00.5Z", "kind": "grant", "amount": 1000,
        "credits": 1500, "note": "January", "actor": "owner",
    }  # fmt: skip
    out = box.run("users", "ledger", "ada", list_users=[ADA], billing_ledger=[entry])
    assert out.splitlines()[1].split() == [
        "2026-01-17T00:00:00Z", "grant", "+1,000", "1,500", "January", "owner",
    ]  # fmt: skip
    out = box.run("users", "ledger", "ada", list_users=[ADA], billing_ledger=[])
    assert out == "The credits of ada never changed.\n"


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
    assert "keys.create  0a1b     name=dash" in out
    assert box.json("audit", audit=[entry]) == [entry]


def test_the_ledger_tells_in_words_what_became_of_everything(box: Box) -> None:
    losses = [
        {"sensor_id": "", "class": "refused OC-2002", "count": 1200, "updated_at": "2026"},
        {"sensor_id": "s", "class": "forgotten", "count": 5, "updated_at": "2026"},
    ]
    totals = {
        "stored": 1_000_000, "missing": 3, "duplicate": 12, "forgotten": 5, "new class": 1,
        "refused OC-2002": 1200, "refused OC-9999": 1,
    }  # fmt: skip
    exact = {"totals": totals, "approximate": None}
    out = box.run("ledger", ledger=losses, ledger_totals=exact).splitlines()
    assert box.engine.asked[1] == ("ledger", (), {"sensor_id": None, "limit": 20})
    assert out[0].startswith("stored           1,000,000  readings and events acknowledged")
    assert out[4:7] == [
        "new class                1",
        "refused OC-2002      1,200  A reading is not valid",
        "refused OC-9999          1",
    ]
    assert out[9].split("  ")[0] == "(no known sensor)"
    assert out[10].split() == ["s", "forgotten", "5", "2026"]
    assert out[-1] == "All figures are exact."
    unsure = {"since": "2026-01-17T08:00:00.5Z", "until": "2026-01-17T09:00:00Z", "stops": 2}
    sums = {"totals": totals, "approximate": unsure}
    out = box.run("ledger", "--sensor", "s", ledger=losses[1:], ledger_totals=sums).splitlines()
    assert box.engine.asked[1][2] == {"sensor_id": "s", "limit": 20}
    assert [line.split()[0] for line in out[:2]] == ["SENSOR", "s"]
    assert "2 unclean stops between 2026-01-17T08:00:00Z and 2026-01-17T09:00:00Z" in out[-1]
    assert box.json("ledger", ledger=losses, ledger_totals=sums) == {**sums, "sensors": losses}
    hidden = {"totals": None, "approximate": None}
    assert "Nothing" in box.run("ledger", ledger=[], ledger_totals=hidden)
    told = box.run("ledger", "--limit", "2", ledger=losses, ledger_totals=exact)
    assert "At most 2 lines are shown" in told


def test_the_audit_tells_what_is_set_in_words_and_dates_within_the_width(box: Box) -> None:
    detail = {
        "name": "dash", "scopes": ["read", "ingest"], "sensors": "", "rate": None, "user_id": USER,
        "expires_us": 1_780_000_000_123_456, "up_to_id": 1234567, "amount": -1500,
    }  # fmt: skip
    entry = {
        "id": 1, "created_at": "2026-01-17T00:00:00.123456Z", "actor": "key:0a1b2c3d4e5f",
        "address": "192.168.1.20", "act": "billing.add_credits", "subject": USER, "detail": detail,
    }  # fmt: skip
    out = box.run("audit", audit=[entry])
    assert all(len(line) <= 100 for line in out.splitlines())
    assert "2026-01-17T00:00:00Z  key:0a1b2c3d4e5f  billing.add_credits" in out
    told = " ".join(out.split())
    assert (
        f"name=dash, scopes=read, ingest, user_id={USER}, expires=2026-05-28T20:26:40Z, "
        "up_to_id=1234567, amount=-1,500, from=192.168.1.20"
    ) in told


def test_an_act_that_nobody_knows_is_told_with_those_that_are_known(box: Box) -> None:
    box.run("audit", "--act", "keys.make", code=2, audit=[])
    assert "no act of the kind 'keys.make'; kinds are billing.add_credits" in box.error
    assert box.run("audit", "--act", "keys.create", audit=[]) == "No keys.create was done yet.\n"


def test_every_act_that_is_recorded_is_a_kind_to_ask_for() -> None:
    written = set()
    for file in [*(PACKAGE / "service").rglob("*.py"), *(PACKAGE / "storage").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        if "audit.record(" in text or "act=" in text:
            written |= set(re.findall(rf'"((?:{KINDS})\.[a-z_]+)"', text))
    assert written == set(records.ACTS)


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
