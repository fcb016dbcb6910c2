"""Commands: exit codes, words on the right stream, files read with care."""

import json
from pathlib import Path

import pytest

from ocean_core.cli.main import main
from ocean_core.cli.replay import read_rows, series_digest
from ocean_core.cli.status import status_lines
from ocean_core.model.errors import CommandError


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
        "processes": {"ingest": {"cpu_percent": 0.1, "memory_mb": 50.0}},
        "files_mb": {"journal.db": 1.0},
        "disk_free_mb": 9.0,
        "data_dir": "/d",
        "previous_stop": "unclean",
    }
    lines = status_lines(status)
    assert lines[0] == "DEGRADED  Ocean Core 2.0.0, up 1 d 1 h"
    assert lines[1:3] == ["  ! disk.low: 9 MiB free", "    Free space."]
    assert any("rebuilding 40.5 %" in line for line in lines)
    assert all(len(line) <= 110 for line in lines)
