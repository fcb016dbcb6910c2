"""One appliance per data directory, and the marker of an unclean stop."""

import fcntl
import os
from pathlib import Path

import pytest

from ocean_core.model.errors import AlreadyRunningError, DataDirError
from ocean_core.runtime.lock import InstanceLock, RunInfo, prepare_data_dir, read_run_info

INFO = RunInfo(os.getpid(), "http://127.0.0.1:8030", "2.0.0", "2026-01-17T00:00:00Z", "/d")


def test_a_second_instance_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path)
    assert first.acquire()
    first.publish(INFO)
    with pytest.raises(AlreadyRunningError) as caught:
        InstanceLock(tmp_path, lambda _: None).acquire()
    assert str(os.getpid()) in caught.value.detail
    assert INFO.url in caught.value.detail
    first.release(clean=True)
    again = InstanceLock(tmp_path)
    assert again.acquire()
    again.release(clean=True)


def test_somebody_who_only_looks_is_waited_for(tmp_path: Path) -> None:
    looker = os.open(tmp_path / "lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(looker, fcntl.LOCK_SH)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            os.close(looker)

    lock = InstanceLock(tmp_path, pause)
    assert lock.acquire()
    assert len(pauses) == 2
    with pytest.raises(AlreadyRunningError):
        InstanceLock(tmp_path, pause).acquire()
    assert sum(pauses[2:]) == pytest.approx(0.2)
    lock.release(clean=True)


def test_only_a_clean_stop_removes_the_marker(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path)
    lock.acquire()
    lock.publish(INFO)
    assert read_run_info(tmp_path) == INFO
    lock.release(clean=False)
    assert not InstanceLock(tmp_path).acquire()


def test_a_broken_run_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    assert read_run_info(tmp_path) is None


def test_a_data_directory_is_made_and_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    made = prepare_data_dir(tmp_path / "a" / "b")
    assert made.is_dir()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataDirError, match="cannot be made"):
        prepare_data_dir(file)
    with pytest.raises(DataDirError, match="cannot be made"):
        prepare_data_dir(file / "below")
