"""Commands: exit codes, words on the right stream, files read with care."""

import json
import re
from pathlib import Path

import pytest

from ocean_core.cli.hints import hint_of
from ocean_core.cli.main import main
from ocean_core.cli.replay import read_rows, series_digest
from ocean_core.cli.status import status_lines
from ocean_core.model.errors import CommandError, OceanError, all_error_classes


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, out, err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "version")[:2] == (0, "2.0.0\n")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "serve" in out
    assert "_analytics" not in out


def test_help_is_what_dash_dash_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "--help")
    assert "http://127.0.0.1:8030/" in told[1]
    assert "Metadata, profiles" in told[1]
    assert run(capsys, "help") == told
    assert run(capsys, "help", "keys", "create") == run(capsys, "keys", "create", "--help")
    code, _, err = run(capsys, "help", "keys", "make")
    assert code == 2
    assert "No such command 'keys make'" in err


@pytest.mark.parametrize(
    "command",
    [
        ("status",), ("replay",), ("audit",), ("ledger",), ("verify",),
        ("keys", "create"), ("keys", "list"),
        ("sensors", "list"), ("sensors", "set"), ("users", "create"), ("users", "credits"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_a_command_is_about_stands_before_how_to_reach_a_server(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    out = run(capsys, *command, "--help")[1]
    options = [line.split()[0] for line in out.splitlines() if line.startswith("  --")]
    assert options[-5:] == ["--url", "--data-dir", "--config", "--key-file", "--cacert"]
    assert "--json" in options


@pytest.mark.parametrize(
    "command",
    [("keys", "create"), ("sensors", "set"), ("users", "create"), ("tls", "self-signed")],
    ids=" ".join,
)
def test_help_shows_examples(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    out = run(capsys, *command, "--help")[1]
    assert f"\n  Examples:\n    ocean {' '.join(command)}" in out


@pytest.mark.parametrize("cls", all_error_classes(), ids=lambda cls: cls.code)
def test_no_hint_of_the_command_line_speaks_of_requests(cls: type[OceanError]) -> None:
    never_here = {"OC-2004", "OC-2006", "OC-5003", "OC-8006"}
    hint = hint_of(cls("what happened"))
    if cls.code not in never_here:
        assert not re.search(r"\b(GET|POST|PATCH|Retry-After|Authorization)\b", hint), hint
    assert hint_of(cls("what happened", hint="for this case")) == "for this case"


def test_wrong_usage_is_2_and_wrong_configuration_78(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(capsys, "serve", "--nonsense")[0] == 2
    file = tmp_path / "ocean.toml"
    file.write_text("[server]\nprot = 1\n", encoding="utf-8")
    code, out, err = run(capsys, "config", "check", "--config", str(file))
    assert (code, out) == (78, "")
    assert "line 2" in err
    assert "OC-1002" in err


def test_config_show_tells_values_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCEAN_SERVER__PORT", "9000")
    code, out, _ = run(capsys, "config", "show", "--origin")
    assert code == 0
    assert "port = 9000" in out
    assert "# environment variable OCEAN_SERVER__PORT" in out
    table = json.loads(run(capsys, "config", "show", "--json")[1])
    assert table["server.port"] == {
        "value": 9000,
        "origin": "environment variable OCEAN_SERVER__PORT",
    }


def test_config_show_hides_a_secret_that_stands_where_its_path_belongs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = tmp_path / "esp32.key"
    key.write_text("ab" * 32)
    monkeypatch.setenv("OCEAN_NANOGRIDATA__SECRET_FILES", f"0x10={'cd' * 32},0x20={key}")
    for more in ([], ["--json"]):
        _, out, err = run(capsys, "config", "show", *more)
        assert "cdcd" not in out + err
        assert f"0x20={key}" in out
    code, out, err = run(capsys, "config", "check")
    assert code == 78
    assert "cdcd" not in out + err
    assert "OC-1006" in err


def test_config_commands_take_the_data_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCEAN_NETWORK__HOST", "0.0.0.0")
    here = ("--data-dir", str(tmp_path))
    assert run(capsys, "config", "check", *here)[0] == 78
    assert run(capsys, "tls", "self-signed", *here)[0] == 0
    code, out, _ = run(capsys, "config", "check", *here)
    assert (code, out) == (
        0,
        "The configuration is valid; 2 settings differ from their default.\n",
    )
    assert f'dir = "{tmp_path}"' in run(capsys, "config", "show", *here)[1]


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "--port", "0")], ids=" ".join)
def test_a_wrong_address_is_told_with_where_it_came_from(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    here = ("--data-dir", str(tmp_path / "data"))
    monkeypatch.setenv("OCEAN_NETWORK__HOST", "gateway")
    assert (
        "network.host comes from environment variable OCEAN_NETWORK__HOST"
        in run(capsys, *command, *here)[2]
    )
    monkeypatch.delenv("OCEAN_NETWORK__HOST")
    file = tmp_path / "ocean.toml"
    file.write_text('[network]\nhost = "gateway"\n', encoding="utf-8")
    err = run(capsys, *command, *here, "--config", str(file))[2]
    assert f"network.host comes from {file}, line 2" in err
    assert not (tmp_path / "data").exists()


def test_variables_that_mean_nothing_are_named_by_the_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ("--data-dir", str(tmp_path))
    for name in ("OCEAN_KEY", "OCEAN_URL", "OCEAN_FAULT", "OCEAN_SERVER__PORT"):
        monkeypatch.setenv(name, "8031")
    code, _, err = run(capsys, "config", "check", *here)
    assert (code, err) == (0, "")
    monkeypatch.setenv("OCEAN_PORT", "8031")
    monkeypatch.setenv("OCEAN_KYE", "x")
    code, _, err = run(capsys, "config", "check", *here)
    assert code == 0
    assert "OCEAN_PORT is no setting" in err
    assert "did you mean OCEAN_SERVER__PORT or OCEAN_NETWORK__PORT?" in err
    assert "did you mean OCEAN_KEY?" in err


def test_without_a_server_a_command_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "status", "--data-dir", str(tmp_path))
    assert code == 1
    assert "ocean serve" in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "time column"),
        ("timestamp,value\n", "no rows"),
        ("timestamp,value\n2014-01-01,x\n", "line 2, column 'value'.*no finite number"),
        ("timestamp,value\n2014-01-01,NaN\n", "no finite number"),
        ("timestamp,value\n2014-01-01\n", "line 2: 1 cells"),
        ("timestamp,value\n2014-01-01,\n", "line 2: there is no number"),
    ],
)
def test_a_broken_recording_is_refused_by_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "series.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CommandError, match=told):
        read_rows(file)


def test_a_replay_without_a_server_fails_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "series.csv"
    file.write_text("time,value\n2014-01-01,1\n", encoding="utf-8")
    code, _, err = run(capsys, "replay", str(file), "--sensor", "s", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "OC-7004" in err


def test_the_digest_of_a_series_is_that_of_file_and_sensor(tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    file.write_text("time,value\n2014-01-01,1\n", encoding="utf-8")
    assert series_digest(file, "a") == series_digest(file, "a") != series_digest(file, "b")


def test_a_recording_may_have_several_metrics_and_gaps(tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    file.write_text("time,temperature,humidity\n2014-01-01,1,2\n2014-01-02,3,\n", encoding="utf-8")
    assert [row.item("s") for row in read_rows(file)] == [
        {
            "sensor_id": "s",
            "timestamp": "2014-01-01",
            "values": {"temperature": 1, "humidity": 2},
        },
        {"sensor_id": "s", "timestamp": "2014-01-02", "values": {"temperature": 3}},
    ]


def test_status_begins_with_the_verdict_and_the_cause() -> None:
    status = {
        "status": "degraded",
        "version": "2.0.0",
        "uptime_seconds": 90_061,
        "alarms": [{"name": "disk.low", "detail": "9 MiB free", "next_step": "Free space."}],
        "buffer": {"state": "ready", "durability": "fsync", "head_id": 1234, "depth": 0},
        "analytics": {"state": "rebuilding", "series": 2, "watermark": 3, "rebuild_percent": 40.5},
        "accounts": {"state": "ready", "users": 3, "sessions": 2, "keys": 1},
        "ingest": {
            "acknowledged": 10,
            "refused": 1,
            "readings_per_second": 0.0,
            "commit_ms_p50": None,
        },
        "frames": {
            "tcp": "127.0.0.1:5678",
            "udp": "",
            "connections": 1,
            "stored": 12_345,
            "duplicates": 2,
            "refused": 3,
            "skipped_bytes": 4,
            "quarantined": 3,
        },
        "processes": {"ingest": {"cpu_percent": 0.1, "memory_mb": 50.0}},
        "files_mb": {"journal.db": 1.0},
        "flash": {
            "written_mb": 12.5,
            "written_mb_per_day": 3000.0,
            "bytes_per_reading": 1234.4,
            "device_written_mb": None,
        },
        "disk_free_mb": 9.0,
        "data_dir": "/d",
        "previous_stop": "unclean",
    }
    assert not any("listens" in line for line in status_lines(status))
    lines = status_lines(status, ["http://127.0.0.1:8030", "https://127.0.0.1:8443"])
    assert lines[3] == "  listens    http://127.0.0.1:8030, https://127.0.0.1:8443"
    assert any("3 users, 2 sessions, 1 key" in line for line in lines)
    assert lines[0] == "DEGRADED  Ocean Core 2.0.0, up 1 d 1 h"
    assert lines[1:3] == ["  ! disk.low: 9 MiB free", "    Free space."]
    assert any("rebuilding 40.5 %" in line for line in lines)
    frames = lines.index("  frames     tcp 127.0.0.1:5678, 1 connection")
    assert lines[frames + 1 : frames + 3] == [
        "             12,345 stored, 2 came again, 3 refused, 4 bytes belonged to no frame",
        "             3 refused frames in quarantine: ocean quarantine list",
    ]
    flash = "  flash      12.5 MB written since the start, 1,234 bytes per reading, 3,000 MB a day"
    assert flash in lines
    assert all(len(line) <= 110 for line in lines)
