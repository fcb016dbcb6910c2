"""`ocean status --watch`: exact intervals, alarms as they come and go, restarts survived."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import click
import pytest

from ocean_core.cli import status as status_module
from ocean_core.cli.main import main
from ocean_core.cli.watch import HEADER, Watch
from ocean_core.model.errors import CommandError, NotRunningError, OceanError
from ocean_core.obs.clock import ManualClock

NOON_US = 1_780_056_000_000_000  # 2026-05-29T12:00:00Z


def alarm(name: str) -> dict[str, str]:
    return {"name": name, "detail": f"{name} it is", "next_step": f"Mend {name}."}


def snapshot(acknowledged: int = 0, uptime: float = 100.0, **changes: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "status": "operational",
        "uptime_seconds": uptime,
        "alarms": [],
        "buffer": {"depth": 5},
        "ingest": {
            "acknowledged": acknowledged,
            "refused": 0,
            "duplicates": 0,
            "readings_per_second": 7.0,
            "commits_within_ms": {"0.5": 0, "1": 0, "more": 0},
        },
        "processes": {
            "ingest": {"pid": 1, "cpu_percent": 12.3, "memory_mb": 61.0},
            "analytics": {"pid": 2, "cpu_percent": 3.4, "memory_mb": 102.0},
        },
    }
    for key, value in changes.items():
        if isinstance(value, dict) and key != "processes":
            status[key] |= value
        else:
            status[key] = value
    return status


class Stage:
    """Plays snapshots (or failures) to a watch; a second passes with each pause."""

    def __init__(self, *scenes: dict[str, Any] | OceanError, took_s: float = 0.0) -> None:
        self.clock = ManualClock(NOON_US)
        self.pauses: list[float] = []
        self.lines: list[str] = []
        self._scenes = iter(scenes)
        self._count = len(scenes)
        self._took_s = took_s

    def ask(self) -> dict[str, Any]:
        self.clock.advance(self._took_s)
        scene = next(self._scenes)
        if isinstance(scene, OceanError):
            raise scene
        return scene

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def run(self, *, interval_s: float = 2.0, **options: Any) -> list[str]:
        watch = Watch(
            self.ask,
            clock=self.clock,
            pause=self.pause,
            tell=self.lines.append,
            zone=dt.timezone(dt.timedelta(hours=2)),
            **options,
        )
        watch.run(interval_s, self._count)
        return self.lines

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(as_json=True)]


def test_a_line_tells_the_interval_in_local_time() -> None:
    counts = {"commits_within_ms": {"0.5": 90, "1": 100, "more": 100}}
    later = {"refused": 3, "duplicates": 1, "commits_within_ms": {"0.5": 90, "1": 199, "more": 200}}
    lines = Stage(
        snapshot(1000, ingest=counts), snapshot(9000, 102.0, ingest=later, buffer={"depth": 1234})
    ).run()
    assert lines[0] == HEADER
    assert lines[1].split()[:5] == ["14:00:00", "OK", "7", "-", "-"]
    assert lines[1].split()[6] == "0.5/1"
    told = lines[2].split()
    assert told[:6] == ["14:00:02", "OK", "4,000", "3", "1", "1,234"]
    assert told[6] == "1/1", "the commits of this interval alone"
    assert told[7:] == ["12+3", "163", "0"]
    assert {len(line) for line in lines} == {80}


def test_alarms_are_told_when_they_come_and_when_they_go() -> None:
    lines = Stage(
        snapshot(alarms=[alarm("disk.low")], status="degraded"),
        snapshot(uptime=102.0, alarms=[alarm("disk.low")], status="degraded"),
        snapshot(uptime=104.0, alarms=[alarm("buffer.failed")], status="refusing"),
    ).run()[1:]
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == [
        "DEGRADED", "!", "DEGRADED", "REFUSING", "!", "cleared:",
    ]  # fmt: skip
    assert lines[1:3] == ["14:00:00  ! disk.low: disk.low it is", "            Mend disk.low."]
    assert lines[-1] == "14:00:04  cleared: disk.low"


def test_a_restart_is_survived_and_told() -> None:
    gone = NotRunningError("/d: no server runs on this data directory")
    lines = Stage(
        snapshot(5000), gone, gone, snapshot(40, uptime=1.5), snapshot(60, uptime=3.5)
    ).run()
    assert lines[2:4] == [
        "14:00:02  not reachable since 14:00:02: /d: no server runs on this data directory",
        "14:00:04  not reachable since 14:00:02: /d: no server runs on this data directory",
    ]
    assert lines[4] == "14:00:06  the server was started again"
    assert lines[5].split()[2:5] == ["7", "-", "-"], "no negative figures"
    assert lines[6].split()[2:5] == ["10", "0", "0"]


def test_it_may_begin_before_the_server_does() -> None:
    lines = Stage(NotRunningError("nobody"), snapshot(), took_s=1.0).run()
    assert lines[1] == "14:00:01  not reachable since 14:00:00: nobody"
    assert lines[2].split()[1] == "OK"


def test_what_time_does_not_heal_ends_it_at_once_but_not_later() -> None:
    with pytest.raises(CommandError):
        Stage(CommandError("no such address")).run()
    lines = Stage(snapshot(), CommandError("odd"), snapshot(uptime=104.0)).run()
    assert "not reachable since 14:00:02: odd" in lines[2]


def test_the_header_comes_again_only_for_a_terminal() -> None:
    scenes = [snapshot(uptime=100.0 + 2 * i) for i in range(45)]
    assert Stage(*scenes).run().count(HEADER) == 1
    assert Stage(*scenes).run(is_terminal=True).count(HEADER) == 3


def test_moments_that_passed_are_left_out() -> None:
    stage = Stage(*[snapshot(uptime=100.0 + i) for i in range(3)], took_s=0.5)
    stage.run(interval_s=2.0)
    assert stage.pauses == [1.5, 1.5]
    slow = Stage(*[snapshot(uptime=100.0 + i) for i in range(3)], took_s=5.0)
    slow.run(interval_s=2.0)
    assert slow.pauses == []


def test_json_is_an_object_per_line() -> None:
    first, second, third = Stage(
        snapshot(1000),
        NotRunningError("gone"),
        snapshot(9000, 104.0, alarms=[alarm("disk.low")], processes={}),
    ).objects()
    assert (first["time"], first["status"]) == ("2026-05-29T12:00:00Z", "operational")
    assert (first["refused"], first["restarted"]) == (None, False)
    assert second == {
        "time": "2026-05-29T12:00:02Z",
        "status": "unreachable",
        "since": "2026-05-29T12:00:02Z",
        "reason": "gone",
        "code": "OC-7004",
    }
    assert (third["readings_per_second"], third["waiting"]) == (2000.0, 5)
    assert third["alarms"] == ["disk.low"]
    assert third["raised"][0]["next_step"] == "Mend disk.low."


def test_a_process_that_is_down_is_told() -> None:
    lines = Stage(snapshot(processes={})).run()
    assert lines[1].split()[-3:] == ["-+-", "0", "0"]


# --- the command ----------------------------------------------------------------------------------


def run_command(
    monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], pause: Callable[[float], None]
) -> int:
    monkeypatch.setattr(status_module, "data_dir_of", lambda _: Path("/"))

    class Engine:
        status = staticmethod(lambda: snapshot(1))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return

    monkeypatch.setattr(status_module, "opened", lambda *_, **__: Engine())
    monkeypatch.setattr("ocean_core.cli.status.time.sleep", pause)
    with pytest.raises(SystemExit) as ended:
        main(["status", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_ctrl_c_is_the_ordinary_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    assert run_command(monkeypatch, ["--watch"], interrupted) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == HEADER
    assert err == ""


def test_the_command_counts_and_speaks_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    arguments = ["--watch", "--json", "--interval", "0.5", "--count", "3"]
    assert run_command(monkeypatch, arguments, pauses.append) == 0
    out = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["status"] for line in out] == ["operational"] * 3
    assert len(pauses) == 2
    assert 0 < pauses[0] <= 0.5


def test_a_directory_that_does_not_exist_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--watch", "--data-dir", str(tmp_path / "typo")])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "OC-7002" in err


def test_options_of_the_watch_alone_are_wrong_usage_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, ["--count", "3"], lambda _: None) == click.UsageError.exit_code
    assert "belong to --watch" in capsys.readouterr().err
