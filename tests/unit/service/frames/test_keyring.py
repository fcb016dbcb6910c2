"""The secrets: where they come from, which count, and that nobody gets to see one."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocean_core.model import limits
from ocean_core.model.errors import (
    CommandError,
    ConflictError,
    OceanError,
    SecretError,
    UnknownRecordError,
)
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.service.frames.key_file import (
    FILE_NAME,
    Entry,
    change_entries,
    read_entries,
    write_entries,
)
from ocean_core.service.frames.keyring import SecretStore
from ocean_core.service.frames.secret_changes import added, removed, rotated
from ocean_core.service.frames.secret_source import (
    Place,
    of_environment,
    parse_content,
    read_secret_file,
)

S1, S2, S3, S4 = (bytes(range(start, start + 32)) for start in (0, 40, 80, 120))
ALL = (S1, S2, S3, S4)
MODEL, GROUP = Place(0x10), Place(0x10, "line-3", "press-*")
HOUR = 3_600_000_000


class Lab:
    """A data directory with a store, on a clock of its own; nothing it says may hold a secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        self.clock = ManualClock()
        self.told = io.StringIO()

    def store(
        self, files: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> SecretStore:
        log = EventLog(self.clock, stream=self.told)
        return SecretStore(self.folder, files, environment or {}, self.clock, log)

    def entry(
        self, place: Place, secret: bytes, number: int = 1, until_us: int | None = None
    ) -> Entry:
        return Entry(place, number, secret, self.clock.now_us(), until_us)

    def write(self, *entries: Entry) -> None:
        write_entries(self.path, entries)

    def file(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def assert_secret_free(text: str, *secrets: bytes) -> None:
    for secret in secrets or ALL:
        assert secret.hex()[:16] not in text.lower()
        assert secret.hex()[-16:] not in text.lower()
        assert repr(secret)[2:-1] not in text


def never(_seconds: float) -> None:
    raise AssertionError("nobody else has the lock")


def names(store: SecretStore, model_id: int = 0x10) -> list[str]:
    return [secret.name for secret in store.candidates(model_id)]


# --- which count ---


def test_without_any_there_are_none(lab: Lab) -> None:
    store = lab.store()
    assert store.candidates(0x10) == ()
    assert not store.has_any(0x10)
    assert store.models_with_secrets() == frozenset()
    assert lab.told.getvalue() == ""


def test_groups_come_first_then_the_model_the_present_before_the_former(lab: Lab) -> None:
    until = lab.clock.now_us() + HOUR
    lab.write(
        lab.entry(MODEL, S1, 1, until), lab.entry(MODEL, S2, 2), lab.entry(GROUP, S3),
        lab.entry(Place(0x20), S4),
    )  # fmt: skip
    store = lab.store()
    assert names(store) == ["0x10/line-3#1", "0x10#2", "0x10#1"]
    assert [secret.sensors for secret in store.candidates(0x10)] == ["press-*", "", ""]
    assert store.models_with_secrets() == {0x10, 0x20}
    assert store.has_any(0x20)
    assert not store.has_any(0x30)


def test_the_former_one_stops_at_its_time_and_stays_so_if_the_clock_goes_back(lab: Lab) -> None:
    start = lab.clock.now_us()
    lab.write(*rotated([lab.entry(MODEL, S1)], MODEL, S2, start, 3600))
    store = lab.store()
    lab.clock.advance(3599)
    assert store.reload_if_changed() == ""
    assert names(store) == ["0x10#2", "0x10#1"]
    version = store.version
    lab.clock.advance(1)
    store.reload_if_changed()
    assert names(store) == ["0x10#2"]
    assert store.version == version + 1
    lab.clock.set_wall(start)
    store.reload_if_changed()
    assert names(store) == ["0x10#2"]
    assert store.version == version + 1


def test_the_same_secret_from_two_places_is_tried_once(lab: Lab) -> None:
    lab.write(lab.entry(MODEL, S1))
    environment = {"NANOGRIDATA_ESP32_SECRET": S1.hex(), "OCEAN_NANOGRIDATA_SECRET_10": S1.hex()}
    assert names(lab.store(environment=environment)) == ["0x10#1"]


def test_no_more_are_kept_than_are_tried(lab: Lab) -> None:
    def entries(number: int) -> list[Entry]:
        return [
            lab.entry(Place(0x10, f"g{index}", "*"), bytes([index]) + S1) for index in range(number)
        ]

    lab.write(*entries(limits.SECRETS_TRIED_MAX))
    store = lab.store()
    assert len(store.candidates(0x10)) == limits.SECRETS_TRIED_MAX
    with pytest.raises(SecretError, match="0x10 has 33 secrets"):
        store.check(entries(limits.SECRETS_TRIED_MAX + 1))
    lab.write(*entries(limits.SECRETS_TRIED_MAX + 1))
    assert "33 secrets" in store.reload_if_changed()
    assert len(store.candidates(0x10)) == limits.SECRETS_TRIED_MAX


# --- changes of the file ---


def test_a_changed_file_is_taken_over_and_tells_the_version(lab: Lab) -> None:
    store = lab.store()
    before = store.version
    assert store.reload_if_changed() == ""
    assert store.version == before
    lab.write(lab.entry(MODEL, S1))
    assert store.reload_if_changed() == ""
    assert (names(store), store.version) == (["0x10#1"], before + 1)
    # Written again with the same: nothing has changed for anybody.
    lab.write(lab.entry(MODEL, S1))
    store.reload_if_changed()
    assert store.version == before + 1
    lab.path.unlink()
    store.reload_if_changed()
    assert (names(store), store.version) == ([], before + 2)
    assert_secret_free(lab.told.getvalue())
    assert "secrets.reloaded" in lab.told.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"\0" * 700, b"[]", b'{"format": 1, "secrets": [{"model": "0x10"',
        b'{"format": 2, "secrets": []}', b'{"format": 1, "secrets": "' + S1.hex().encode() + b'"}',
        b'{"format": 1, "secrets": [{"model": "0x10", "number": 1, "created_us": 1, "secret": "'
        + S1.hex().encode()[:-1] + b'"}]}',
        b'{"format": 1, "secrets": [{"model": "' + S1.hex().encode()
        + b'", "number": 1, "created_us": 1, "secret": "aa"}]}',
        b'{"format": 1, "secrets": [{"model": "0x10", "number": "' + S1.hex().encode()
        + b'", "created_us": 1, "secret": "aa"}]}',
        b"\xff" + S1.hex().encode(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_told_once_and_what_was_known_goes_on(lab: Lab, damage: bytes) -> None:
    lab.write(lab.entry(MODEL, S1))
    store = lab.store()
    lab.path.write_bytes(damage)
    problems = {store.reload_if_changed() for _ in range(3)}
    assert len(problems) == 1
    problem = problems.pop()
    assert str(lab.path) in problem
    assert names(store) == ["0x10#1"]
    assert lab.told.getvalue().count("secrets.reload_failed") == 1
    with pytest.raises(SecretError) as caught:
        lab.store()
    assert_secret_free(problem + lab.told.getvalue() + str(caught.value) + caught.value.hint)
    # Nor is it in what a traceback would show.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    lab.write(lab.entry(MODEL, S2))
    assert store.reload_if_changed() == ""


def test_a_file_that_others_may_read_is_used_and_told(lab: Lab) -> None:
    lab.write(lab.entry(MODEL, S1))
    lab.path.chmod(0o640)
    store = lab.store()
    assert names(store) == ["0x10#1"]
    assert f"{lab.path}: other users may read" in lab.told.getvalue()
    store.reload_if_changed()
    assert lab.told.getvalue().count("secrets.file_doubtful") == 1
    named = lab.file("esp.key", S2, 0o604)
    lab.store((f"0x20={named}",))
    assert f"{named}: other users may read" in lab.told.getvalue()


def test_the_file_is_for_its_owner_alone_whatever_was_there_before(lab: Lab) -> None:
    lab.file(FILE_NAME + ".new", b"left behind", 0o666)
    lab.file(FILE_NAME, b'{"format": 1, "secrets": []}', 0o644)
    lab.write(lab.entry(MODEL, S1))
    assert lab.path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in lab.folder.iterdir()) == [FILE_NAME]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    lab.write(lab.entry(MODEL, S1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(CommandError, match="No space left"):
        change_entries(lab.folder, lambda entries: [*entries[:0]], pause=fail)
    monkeypatch.undo()
    assert [entry.secret for entry in read_entries(lab.path)] == [S1]
    assert not lab.path.with_name(FILE_NAME + ".new").exists()


_KILLED = """
import os, signal, sys
from pathlib import Path
from ocean_core.service.frames import key_file
from ocean_core.service.frames.secret_source import Place
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
step, folder = sys.argv[1], Path(sys.argv[2])
setattr(Path if step == "replace" else os, step, die)
entry = key_file.Entry(Place(0x20), 1, bytes(range(40, 72)), 0)
key_file.change_entries(folder, lambda entries: [*entries, entry], pause=die)
"""


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_who_is_killed_while_writing_leaves_the_old_file(lab: Lab, step: str) -> None:
    lab.write(lab.entry(MODEL, S1))
    command = [sys.executable, "-c", _KILLED, step, str(lab.folder)]
    done = subprocess.run(command, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    left = lab.path.with_name(FILE_NAME + ".new")
    assert left.stat().st_mode & 0o777 == 0o600
    assert [entry.secret for entry in read_entries(lab.path)] == [S1]
    # Its lock went with it, and what it left is in nobody's way.
    change_entries(lab.folder, lambda found: [*found, lab.entry(GROUP, S3)], pause=never)
    assert [entry.secret for entry in read_entries(lab.path)] == [S1, S3]
    assert not left.exists()


_ADDING = """
import sys, time
from pathlib import Path
from ocean_core.service.frames.key_file import Entry, change_entries
from ocean_core.service.frames.secret_source import Place
model, folder = int(sys.argv[1]), Path(sys.argv[2])
for number in range(1, 11):
    entry = Entry(Place(model), number, bytes([model, 100 + number] * 16), 0)
    change_entries(folder, lambda found: [*found, entry], pause=time.sleep)
"""


def test_commands_at_once_lose_nothing(lab: Lab) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _ADDING, str(model), str(lab.folder)])
        for model in (1, 2, 3)
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert len(read_entries(lab.path)) == 30


def test_who_waits_too_long_for_the_lock_is_told(lab: Lab) -> None:
    def inner(entries: list[Entry]) -> list[Entry]:
        waits: list[float] = []
        with pytest.raises(CommandError, match="another command is changing the secrets"):
            change_entries(lab.folder, lambda found: found, pause=waits.append)
        assert 5 <= sum(waits) <= 30
        return entries

    change_entries(lab.folder, inner, pause=never)


# --- adding, rotating, removing ---


def test_of_one_place_there_is_one_and_two_during_a_rotation(lab: Lab) -> None:
    now = lab.clock.now_us()
    entries = added([], MODEL, S1, now)
    with pytest.raises(ConflictError, match="0x10 has a secret already: 0x10#1") as caught:
        added(entries, MODEL, S2, now)
    assert "rotate --model 0x10`" in caught.value.hint
    entries = added(entries, GROUP, S3, now)
    entries = rotated(entries, Place(0x10, "line-3"), S4, now, 60)
    assert [(entry.name, entry.until_us) for entry in entries] == [
        ("0x10#1", None), ("0x10/line-3#1", now + 60_000_000), ("0x10/line-3#2", None),
    ]  # fmt: skip
    assert entries[-1].place == GROUP
    with pytest.raises(ConflictError, match="two secrets already") as caught:
        rotated(entries, GROUP, S2, now, 60)
    assert "remove --model 0x10 --group line-3 --former`" in caught.value.hint
    assert len(rotated(entries, GROUP, S2, now + 60_000_000, 60)) == 3
    assert [e.name for e in removed(entries, GROUP, now, former=True)] == [
        "0x10#1", "0x10/line-3#2",
    ]  # fmt: skip
    assert [e.name for e in removed(entries, GROUP, now, former=False)] == ["0x10#1"]
    with pytest.raises(UnknownRecordError, match="0x10 has no former secret"):
        removed(entries, MODEL, now, former=True)
    with pytest.raises(UnknownRecordError, match="0x20 has no secret"):
        rotated(entries, Place(0x20), S2, now, 60)


def test_without_overlap_the_former_one_is_gone_at_once(lab: Lab) -> None:
    entries = rotated([lab.entry(MODEL, S1)], MODEL, S2, lab.clock.now_us(), 0)
    assert [(entry.name, entry.secret) for entry in entries] == [("0x10#2", S2)]


def test_a_secret_serves_one_place_of_a_model(lab: Lab) -> None:
    entries = [lab.entry(MODEL, S1)]
    with pytest.raises(ConflictError, match="known already, as 0x10#1") as caught:
        rotated(entries, MODEL, S1, 0, 60)
    assert_secret_free(str(caught.value))
    with pytest.raises(ConflictError, match="known already, as 0x10#1"):
        added(entries, GROUP, S1, 0)
    assert len(added(entries, Place(0x20), S1, 0)) == 2


# --- settings and environment ---


def test_files_of_settings_hold_hex_or_raw_bytes_and_are_watched(lab: Lab) -> None:
    hexed = lab.file("a=b.key", S1.hex(" ").upper().encode() + b"\n")
    raw = lab.file("raw.key", S2)
    store = lab.store((f"0x10={hexed}", f"0x10/line-3:press-[ab]*={raw}"))
    assert names(store) == ["0x10/line-3 (setting)", "0x10 (setting)"]
    assert [known.secret for known in store.known()] == [S2, S1]
    assert store.candidates(0x10)[0].sensors == "press-[ab]*"
    raw.write_bytes(S3)
    assert store.reload_if_changed() == ""
    assert [known.secret for known in store.known()] == [S3, S1]
    raw.unlink()
    assert str(raw) in store.reload_if_changed()
    assert [known.secret for known in store.known()] == [S3, S1]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("0x10", "is not of the form"),
        ("0x10=", "is not of the form"),
        (S1.hex(), "is not of the form"),
        ("16=/x", "0x10 is meant"),
        ("0x1=/x", "two hex digits"),
        ("0x10/g=/x", "is not of the form"),
        ("0x10/g:=/x", "is not of the form"),
        ("0x10/a b:*=/x", "the group's name"),
        (f"0x10/g:{'*' * 600}=/x", "600 bytes"),
        (f"0x10={S1.hex()}", "may be a secret itself"),
        (f"0x10=/a/{S1.hex()}", "may be a secret itself"),
        ("0x10=AAECAwQFBgcICQoL/A0ODxAREhMUFRYXGBkaGxwdHh8=", "may be a secret itself"),
        ("0x10=/no/such/file.key", "cannot be read: No such file"),
        ("0x10=/dev/null", "no regular file"),
        ("0x10=/", "Is a directory"),
    ],
)
def test_a_wrong_entry_of_the_setting_is_told_without_what_may_be_secret(
    lab: Lab, entry: str, told: str
) -> None:
    with pytest.raises(SecretError) as caught:
        lab.store(("0x20=" + str(lab.file("good.key", S4)), entry))
    assert told in caught.value.detail
    assert "nanogridata.secret_files, entry 2" in caught.value.detail
    assert_secret_free(str(caught.value) + caught.value.hint)
    assert "AAECAwQFB" not in caught.value.detail


def test_the_environment_holds_hex_or_names_files(lab: Lab) -> None:
    environment = {
        "OCEAN_NANOGRIDATA_SECRET_30": S1.hex(),
        "OCEAN_NANOGRIDATA_SECRET_fF_FILE": str(lab.file("ff.key", S2)),
        "NANOGRIDATA_ESP32_SECRET": S3.hex(),
        "NANOGRIDATA_STM32_SECRET": S4.hex(),
        "OCEAN_NANOGRIDATA_SECRET_40": "",
        "OCEAN_NANOGRIDATA__MIN_LEVEL": "1",
        "PATH": "/bin",
    }
    store = lab.store(environment=environment)
    assert store.models_with_secrets() == {0x10, 0x20, 0x30, 0xFF}
    assert {known.place.model_id: known.secret for known in store.known()} == {
        0x10: S3, 0x20: S4, 0x30: S1, 0xFF: S2,
    }  # fmt: skip
    assert names(store) == ["0x10 (environment)"]


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("OCEAN_NANOGRIDATA_SECRET_10", S1.hex()[:62], "31 bytes; expected: 32 to 1024"),
        ("OCEAN_NANOGRIDATA_SECRET_10", S1.hex()[:63], "63 hex digits, an odd number"),
        ("OCEAN_NANOGRIDATA_SECRET_10", f"0x{S1.hex()}", "other characters than hex"),
        ("OCEAN_NANOGRIDATA_SECRET_10", "é" + S1.hex(), "other characters than hex"),
        ("OCEAN_NANOGRIDATA_SECRET_10", "aa" * 32, "one byte again and again"),
        ("OCEAN_NANOGRIDATA_SECRET_10", "ab" * 2000, "2000 bytes"),
        ("OCEAN_NANOGRIDATA_SECRET_0x10", S1.hex(), "names no model"),
        ("OCEAN_NANOGRIDATA_SECRET_ESP32", S1.hex(), "names no model"),
        ("OCEAN_NANOGRIDATA_SECRET_10_FILE", S1.hex(), "may be a secret itself"),
        ("OCEAN_NANOGRIDATA_SECRET_10_FILE", S1.hex() * 20, "may be a secret itself"),
        ("NANOGRIDATA_ESP32_SECRET", "secret", "other characters than hex"),
    ],
)
def test_a_wrong_variable_is_named_and_not_shown(
    lab: Lab, variable: str, text: str, told: str
) -> None:
    with pytest.raises(SecretError) as caught:
        lab.store(environment={variable: text})
    assert variable in caught.value.detail
    assert told in caught.value.detail
    assert_secret_free(str(caught.value) + caught.value.hint)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (S1[:31], "31 bytes"),
        (S1.hex(":").encode(), "write the digits alone"),
        (b"0x" + S1.hex().encode(), "write the digits alone"),
        (b"correct horse battery staple and more\n", "text with a line end"),
        (b"\xaa" * 32, "again and again"),
        (bytes(range(256)) * 5, "1280 bytes"),
        (b"a1" * 3000, "is it another file?"),
    ],
)
def test_a_wrong_file_is_named_and_not_shown(lab: Lab, content: bytes, told: str) -> None:
    path = lab.file("esp.key", content)
    with pytest.raises(SecretError) as caught:
        read_secret_file(path)
    assert told in caught.value.detail
    assert str(path) in caught.value.detail
    assert_secret_free(str(caught.value))
    assert "horse" not in str(caught.value)


def test_text_is_a_secret_byte_by_byte() -> None:
    text = b"correct horse battery staple and more"
    assert parse_content(text, "file") == text


def test_a_pipe_holds_nobody_up(lab: Lab) -> None:
    os.mkfifo(lab.folder / "pipe")
    with pytest.raises(SecretError, match="no regular file"):
        read_secret_file(lab.folder / "pipe")


def test_a_file_of_another_user_is_told_as_such(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    lab.write(lab.entry(MODEL, S1))
    store = lab.store()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SecretError, match="Permission denied") as caught:
        read_entries(lab.path)
    assert "user that runs the server" in caught.value.hint
    assert names(store) == ["0x10#1"]


def test_nothing_of_a_secret_is_in_what_is_printed(lab: Lab) -> None:
    lab.write(lab.entry(MODEL, S1), lab.entry(GROUP, S2))
    environment = {"OCEAN_NANOGRIDATA_SECRET_30": S3.hex()}
    store = lab.store((f"0x40={lab.file('x.key', S4)}",), environment)
    shown = [
        repr(store), repr(store.known()), repr(read_entries(lab.path)),
        repr(of_environment(environment)), repr([store.candidates(n) for n in range(256)]),
        " ".join(known.fingerprint for known in store.known()), lab.told.getvalue(),
    ]  # fmt: skip
    assert_secret_free(" ".join(shown))
    assert {len(known.fingerprint) for known in store.known()} == {8}
    assert issubclass(SecretError, OceanError)
