"""`ocean keys nanogridata`: what it asks for, writes and prints, and that it prints no secret."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocean_core.cli import frame_keys
from ocean_core.cli.main import main
from ocean_core.obs.clock import ManualClock
from ocean_core.service.frames import key_file
from ocean_core.service.frames.key_file import FILE_NAME, read_entries

GROUP = ("--model", "0x10", "--group", "line-3")


class Box:
    """A data directory and the commands on it; at the end all that was printed is searched."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder
        self.data_dir = folder / "data"
        self.path = self.data_dir / FILE_NAME
        self.clock = ManualClock()
        self.printed: list[str] = []
        self.secrets: set[bytes] = set()

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["keys", "nanogridata", command, *arguments, "--data-dir", str(self.data_dir)])
        out, err = self._capsys.readouterr()
        self.printed += [out, err]
        assert ended.value.code == code, err
        if code == 0 and self.path.exists():
            self.secrets |= {entry.secret for entry in read_entries(self.path)}
        return err if code else out

    def out(self, name: str) -> tuple[str, str]:
        return "--out", str(self.folder / name)

    def names(self) -> list[str]:
        listed: list[dict[str, Any]] = json.loads(self.run("list", "--json"))
        return [entry["name"] for entry in listed]


@pytest.fixture
def box(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Box]:
    for variable in ("NANOGRIDATA_ESP32_SECRET", "NANOGRIDATA_STM32_SECRET"):
        monkeypatch.delenv(variable, raising=False)
    box = Box(capsys, tmp_path)
    monkeypatch.setattr(frame_keys, "clock", box.clock)
    yield box
    text = "\n".join(box.printed).lower()
    for secret in box.secrets:
        assert secret.hex()[:16] not in text
        assert secret.hex()[-16:] not in text


def test_a_secret_is_made_for_the_devices_and_never_shown(box: Box) -> None:
    out = box.run("add", "--model", "0x10", *box.out("esp.key"))
    handed = box.folder / "esp.key"
    assert handed.stat().st_mode & 0o777 == 0o600
    assert box.path.stat().st_mode & 0o777 == 0o600
    (entry,) = read_entries(box.path)
    assert bytes.fromhex(handed.read_text(encoding="ascii")) == entry.secret
    assert len(entry.secret) == 32
    assert str(handed) in out
    assert "within 10 s" in out
    made = json.loads(
        box.run("add", *GROUP, "--sensors", "press-*", "--json", *box.out("line.key"))
    )
    assert made.pop("fingerprint").isalnum()
    assert made == {
        "name": "0x10/line-3#1", "model": "0x10", "group": "line-3", "sensors": "press-*",
        "state": "current", "until": None, "created_at": "2026-05-28T20:26:40Z",
        "origin": "file", "where": str(box.path), "out": str(box.folder / "line.key"),
    }  # fmt: skip
    assert box.names() == ["0x10/line-3#1", "0x10#1"]
    assert "has a secret already" in box.run("add", "--model", "0x10", *box.out("more.key"), code=1)
    assert not (box.folder / "more.key").exists()


def test_a_secret_is_taken_from_a_file(box: Box) -> None:
    file = box.folder / "given.key"
    file.write_bytes(bytes(range(40)))
    file.chmod(0o644)
    box.run("add", "--model", "0x20", "--secret-file", str(file))
    assert [entry.secret for entry in read_entries(box.path)] == [bytes(range(40))]
    assert "other users may read the secret" in box.printed[-1]
    file.write_bytes(b"short")
    assert "OC-1006" in box.run("rotate", "--model", "0x20", "--secret-file", str(file), code=78)
    assert box.names() == ["0x20#1"]


def test_rotation_keeps_the_former_one_for_the_overlap(box: Box) -> None:
    box.run("add", "--model", "0x10", *box.out("1"))
    told = box.run("rotate", "--model", "0x10", "--overlap", "2h", *box.out("2"))
    assert "0x10#1 goes on counting until 2026-05-28T22:26:40Z" in told
    assert "former until 2026-05-28T22:26:40Z" in box.run("list")
    assert box.names() == ["0x10#2", "0x10#1"]
    assert "remove --model 0x10 --former" in box.run(
        "rotate", "--model", "0x10", *box.out("3"), code=1
    )
    assert not (box.folder / "3").exists()
    box.clock.advance(7199)
    assert box.names() == ["0x10#2", "0x10#1"]
    box.clock.advance(1)
    assert box.names() == ["0x10#2"]
    box.run("rotate", "--model", "0x10", "--overlap", "0", *box.out("3"))
    assert box.names() == ["0x10#3"]
    box.run("rotate", "--model", "0x10", *box.out("4"))
    box.clock.advance(24 * 3600 - 1)
    assert box.names() == ["0x10#4", "0x10#3"]
    assert "removed: 0x10#3" in box.run("remove", "--model", "0x10", "--former")
    assert box.names() == ["0x10#4"]


def test_removing_asks_for_the_name(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.run("add", *GROUP, "--sensors", "*", *box.out("1"))
    assert "add --yes" in box.run("remove", *GROUP, code=1)
    typed = iter(["0x10", "0x10/line-3"])
    monkeypatch.setattr(frame_keys, "is_interactive", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_, **__: next(typed))
    assert "nothing was removed" in box.run("remove", *GROUP, code=1)
    assert box.names() == ["0x10/line-3#1"]
    box.run("remove", *GROUP)
    assert box.names() == []
    assert "E_KEY" in box.run("list")
    # There is nothing to ask about what is not there.
    assert "no secret in this data directory" in box.run("remove", *GROUP, code=1)
    assert "no secret in this data directory" in box.run("remove", *GROUP, "--yes", code=1)


def test_the_list_shows_where_secrets_come_from(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.run("add", "--model", "0x10", *box.out("1"))
    secret = bytes(range(32))
    box.secrets.add(secret)
    monkeypatch.setenv("OCEAN_NANOGRIDATA_SECRET_30", secret.hex())
    file = box.folder / "four.key"
    file.write_bytes(secret)
    monkeypatch.setenv("OCEAN_NANOGRIDATA__SECRET_FILES", f"0x40={file}")
    listed = {entry["name"]: entry for entry in json.loads(box.run("list", "--json"))}
    assert {name: entry["origin"] for name, entry in listed.items()} == {
        "0x10#1": "file", "0x30 (environment)": "environment", "0x40 (setting)": "setting",
    }  # fmt: skip
    assert listed["0x30 (environment)"]["where"].endswith("OCEAN_NANOGRIDATA_SECRET_30")
    assert str(file) in listed["0x40 (setting)"]["where"]
    fingerprints = [entry["fingerprint"] for entry in listed.values()]
    assert fingerprints[1] == fingerprints[2] != fingerprints[0]
    assert "0x30 (environment)" in box.run("list")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "16"), "0x10 is meant"),
        (("--model", "0x10"), "one of --secret-file FILE and --out FILE"),
        (("--model", "0x10", "--out", "a", "--secret-file", "b"), "one of --secret-file"),
        (("--out", "a"), "--model"),
    ],
)
def test_wrong_usage(box: Box, arguments: tuple[str, ...], told: str) -> None:
    assert told in box.run("add", *arguments, code=2)
    assert not box.path.exists()


@pytest.mark.parametrize("overlap", ["1", "-1h", "1y", "367d", "", "1.5h"])
def test_wrong_overlaps(box: Box, overlap: str) -> None:
    box.run("add", "--model", "0x10", *box.out("1"))
    arguments = ("--model", "0x10", "--overlap", overlap, *box.out("2"))
    assert "--overlap" in box.run("rotate", *arguments, code=2)


def test_a_group_needs_name_and_pattern(box: Box) -> None:
    for arguments in (("--group", "g"), ("--sensors", "press-*"), ("--group", "a b")):
        told = box.run("add", "--model", "0x10", *arguments, *box.out("1"), code=78)
        assert "--group and --sensors" in told
    assert not (box.folder / "1").exists()


def test_a_file_that_is_there_is_not_written_over(box: Box) -> None:
    there = box.folder / "esp.key"
    there.write_bytes(b"precious")
    assert "is there already" in box.run("add", "--model", "0x10", *box.out("esp.key"), code=1)
    assert there.read_bytes() == b"precious"
    assert box.names() == []


def test_what_cannot_be_stored_is_not_handed_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.run("add", "--model", "0x10", *box.out("1"))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_file, "write_entries", fail)
    assert "No space left" in box.run("rotate", "--model", "0x10", *box.out("2"), code=1)
    assert not (box.folder / "2").exists()
    assert box.names() == ["0x10#1"]


def test_a_damaged_file_is_told_and_left_alone(box: Box) -> None:
    box.run("add", "--model", "0x10", *box.out("1"))
    damaged = box.path.read_bytes()[:-40]
    box.path.write_bytes(damaged)
    for arguments in (
        ("list",),
        ("add", "--model", "0x20", *box.out("2")),
        ("rotate", "--model", "0x10", *box.out("2")),
        ("remove", "--model", "0x10", "--yes"),
    ):
        assert "is damaged" in box.run(*arguments, code=78)
    assert box.path.read_bytes() == damaged
    assert not (box.folder / "2").exists()


def test_without_a_data_directory_there_is_nothing_to_list(box: Box) -> None:
    assert "there is no such directory" in box.run("list", code=1)
    assert not box.data_dir.exists()
