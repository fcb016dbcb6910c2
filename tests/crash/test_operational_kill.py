"""The process dies, or its disk is full, while accounts are changed."""

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocean_core.model.errors import DiskFullError
from ocean_core.storage.operational import OperationalTuning
from support import operational_child
from support.operational_child import PARTS
from support.operational_kit import (
    NAME,
    Content,
    beside,
    content,
    in_loop,
    keys,
    log_text,
    opened,
    populate,
    put,
    settings_for,
    until,
)

KILLS = 5
DISK_BYTES = 10 * 1024 * 1024

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


def child(directory: Path, run: str, fault: str = "") -> subprocess.Popen[str]:
    program = Path(operational_child.__file__)
    return subprocess.Popen(
        [sys.executable, str(program), str(directory), run],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "OCEAN_FAULT": fault},
    )  # fmt: skip


def run_until_dead(directory: Path, run: str, *, kill_after: int = 0, fault: str = "") -> set[str]:
    """Let a child work until it is killed or dies by itself; returns what it acknowledged."""
    acked: set[str] = set()
    with child(directory, run, fault) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # A line that the kill cut off says nothing.
            if line.endswith("\n") and line != "open\n":
                acked.add(line.strip())
            if kill_after and len(acked) >= kill_after:
                process.kill()
        assert process.wait(20) == -signal.SIGKILL
    return acked


def check(directory: Path, acked: set[str]) -> None:
    """All that was acknowledged is there, and what is there is whole."""
    found: dict[str, int] = {}
    for row in content(directory / NAME)["metadata"]:
        name = row[0].rpartition("/")[0]
        found[name] = found.get(name, 0) + 1
    assert not acked - found.keys()
    assert set(found.values()) <= {PARTS}


def test_kill_under_load(tmp_path: Path) -> None:
    rng = random.Random(11)
    acked: set[str] = set()
    for run in range(KILLS):
        acked |= run_until_dead(tmp_path, f"{run}", kill_after=rng.randrange(1, 500))
        check(tmp_path, acked)
    assert not beside(tmp_path, ".damaged*")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_death_at_a_commit(tmp_path: Path, moment: str) -> None:
    acked = run_until_dead(tmp_path, "a", fault=f"operational.{moment}_commit@3")
    check(tmp_path, acked)
    rows = len(content(tmp_path / NAME)["metadata"])
    assert rows >= PARTS * len(acked) + (PARTS if moment == "after" else 0)


@pytest.mark.parametrize("moment", ["before", "after"])
@in_loop
async def test_death_at_a_salvage(tmp_path: Path, moment: str) -> None:
    async with opened(settings_for(tmp_path)) as store:
        await store.write(populate)
    before = content(tmp_path / NAME)
    with (tmp_path / NAME).open("r+b") as file:
        file.write(bytes(100))
    assert not run_until_dead(tmp_path, "a", fault=f"operational.salvage_{moment}_swap")
    async with opened(settings_for(tmp_path)) as store:
        assert await store.write(put("new")) == "new"
        assert store.salvage_report is not None
    assert without(content(tmp_path / NAME), "new") == before
    assert len(beside(tmp_path, ".damaged*")) == 1
    assert not beside(tmp_path, ".salvage*")


def without(found: Content, key: str) -> Content:
    return {**found, "metadata": {row for row in found["metadata"] if row[0] != key}}


@pytest.mark.parametrize("done", ["wal moved", "main moved"])
@in_loop
async def test_death_between_the_renames_of_a_salvage(tmp_path: Path, done: str) -> None:
    """The swap is finished by the next start from wherever it stopped."""
    async with opened(settings_for(tmp_path / ".")) as store:
        await store.write(put("a"))
    main = tmp_path / NAME
    (tmp_path / (NAME + ".salvaged")).write_bytes(main.read_bytes())
    aside = tmp_path / (NAME + ".damaged-20200101T000000Z")
    kept_wal = aside.with_name(aside.name + ".wal")
    (tmp_path / (NAME + "-wal")).rename(kept_wal)
    if done == "main moved":
        main.rename(aside)
    async with opened(settings_for(tmp_path)) as store:
        assert await store.read(keys) == ["a"]
    assert not beside(tmp_path, ".salvage*")
    assert beside(tmp_path, ".damaged*") == [aside.name, kept_wal.name], "they belong together"


# --- a disk that is full, really ------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own size, mounted for this test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a size-limited file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


@in_loop
async def test_full_disk(small_disk: Path) -> None:
    settings = settings_for(
        small_disk, tuning=OperationalTuning(retry_delays_s=(0.01,), wal_pages_max=20)
    )
    acked: list[str] = []
    long = '"' + "x" * 50_000 + '"'
    async with opened(settings) as store:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(DISK_BYTES // 2))
        for i in itertools.count():
            try:
                acked.append(await store.write(put(f"{i:04}", long)))
            except DiskFullError:
                break
        assert not store.is_ready
        assert await store.read(keys) == acked, "reads go on"
        assert "accounts.failed" in log_text(settings)
        ballast.unlink()
        await until(lambda: store.is_ready)
        acked.append(await store.write(put("last")))
    assert sorted(row[0] for row in content(small_disk / NAME)["metadata"]) == acked


@in_loop
async def test_a_salvage_that_does_not_fit_waits_for_room(small_disk: Path) -> None:
    async with opened(settings_for(small_disk)) as store:
        await store.write(populate)
    before = content(small_disk / NAME)
    with (small_disk / NAME).open("r+b") as file:
        file.write(bytes(100))
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 500_000))
    async with opened(settings_for(small_disk)) as store:
        assert isinstance(store.failure, DiskFullError)
        with pytest.raises(DiskFullError):
            await store.read(keys)
        ballast.unlink()
        await until(lambda: store.is_ready)
    assert content(small_disk / NAME) == before
