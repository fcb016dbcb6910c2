"""Which server of a data directory is asked, and what becomes of one that was started."""

import os
from pathlib import Path
from typing import Any

import pytest

from ocean_core.client.connection import Target
from ocean_core.facade import source as module
from ocean_core.facade.source import DataDirSource
from ocean_core.model.errors import CommandError, DataDirError, NotRunningError
from ocean_core.obs.clock import ManualClock
from ocean_core.runtime.lock import InstanceLock, RunInfo
from ocean_core.runtime.private_server import PrivateServer


class FakeServer(PrivateServer):
    """One that was started, without a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


class Starts:
    """Stands for ``open_server``: gives one new server after the other."""

    def __init__(self) -> None:
        self.servers: list[FakeServer] = []

    def __call__(self, data_dir: Path, **_options: Any) -> PrivateServer:
        assert data_dir.is_dir()
        self.servers.append(FakeServer(f"http://127.0.0.1:{len(self.servers) + 1}"))
        return self.servers[-1]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(module, "open_server", starts)
    return starts


def source_on(data_dir: Path, told: list[str] | None = None, **options: Any) -> DataDirSource:
    heard = told if told is not None else []
    clock = ManualClock()
    return DataDirSource(
        data_dir, clock=clock, pause=clock.advance, tell=heard.append, warn=heard.append, **options
    )


def running(data_dir: Path, url: str = "http://127.0.0.1:8030", cert: str = "") -> InstanceLock:
    lock = InstanceLock(data_dir)
    lock.acquire()
    lock.publish(RunInfo(os.getpid(), url, "2.0.0", "now", str(data_dir), cert=cert))
    return lock


def test_a_server_that_runs_is_used_with_the_key_of_the_owner(
    tmp_path: Path, starts: Starts
) -> None:
    told: list[str] = []
    lock = running(tmp_path)
    source = source_on(tmp_path, told)
    first = source.target()
    assert first == Target("http://127.0.0.1:8030")
    for key, mode in (("owner_a", 0o600), ("owner_b", 0o644)):
        (tmp_path / "local.key").write_text(f"{key}\n", encoding="ascii")
        (tmp_path / "local.key").chmod(mode)
        first = source.renewed(first)
        assert first.key == key
    assert len(told) == 1
    assert "other users may read it" in told[0]
    assert source_on(tmp_path, key="ocean_mine").target().key == "ocean_mine"
    source.close()
    lock.release(clean=True)
    assert starts.servers == []


def test_one_is_started_once_and_stopped_at_the_end(tmp_path: Path, starts: Starts) -> None:
    told: list[str] = []
    source = source_on(tmp_path / "new", told)
    assert source.target().url == "http://127.0.0.1:1"
    assert told == [f"no server runs on {tmp_path / 'new'}; started one for this command"]
    source.close()
    source.close()
    assert starts.servers[0].stops == 1


def test_one_that_has_gone_is_replaced(tmp_path: Path, starts: Starts) -> None:
    source = source_on(tmp_path)
    first = source.target()
    assert source.renewed(first).url == "http://127.0.0.1:2"
    assert starts.servers[0].stops == 1
    source.close()
    assert starts.servers[1].stops == 1


def test_where_none_may_be_started_the_next_is_waited_for(tmp_path: Path, starts: Starts) -> None:
    source = source_on(tmp_path, may_start=False)
    with pytest.raises(NotRunningError):
        source.target()
    lock = running(tmp_path)
    first = source.target()
    lock.release(clean=True)
    assert source.renewed(first) == first
    lock = running(tmp_path, "http://127.0.0.1:9000")
    assert source.renewed(first).url == "http://127.0.0.1:9000"
    lock.release(clean=True)
    assert starts.servers == []


def test_a_directory_is_made_only_where_that_is_meant(tmp_path: Path, starts: Starts) -> None:
    with pytest.raises(DataDirError, match="does not exist"):
        source_on(tmp_path / "typo", may_make=False).target()
    assert not (tmp_path / "typo").exists()
    assert starts.servers == []


def test_a_certificate_that_is_gone_is_told(tmp_path: Path) -> None:
    lock = running(tmp_path, "https://10.0.0.1:8030", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="none: No such file"):
        source_on(tmp_path).target()
    lock.release(clean=True)
