"""The power goes while accounts are changed: what was acknowledged is there, nothing is halved."""

import asyncio
import contextlib
import os
import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import apsw
import pytest

from ocean_core.model.errors import ConflictError, OceanError
from ocean_core.storage.operational import OperationalStore, OperationalTuning, opening
from ocean_core.storage.operational.settings import Durability
from support.forgetful_vfs import Disk
from support.operational_kit import NAME, WAIT_S, States, content, opened, settings_for

pytestmark = pytest.mark.crash

ROUNDS = 1000 if os.environ.get("OCEAN_CRASH_LONG") == "1" else 60
OS_ROUNDS = 60


def change(db: apsw.Connection, name: str, rows: int, size: int) -> None:
    for part in range(rows):
        value = '"' + "x" * (size if part % 2 else 5) + '"'
        db.execute("INSERT INTO metadata VALUES (?, ?, ?, NULL)", (f"{name}/{part}", value, rows))


def refused(db: apsw.Connection, name: str) -> None:
    change(db, name, 2, 5000)
    raise ConflictError("no")


@dataclass
class Load:
    """Random changes until the power goes."""

    rng: random.Random
    sent: int = 0
    acked: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    async def client(self, store: OperationalStore, disk: Disk) -> None:
        while not disk.is_off:
            self.sent += 1
            name = f"{self.sent:05}"
            rows, size = self.rng.choice((1, 1, 2, 5)), self.rng.choice((10, 500, 9000))
            command = partial(change, name=name, rows=rows, size=size)
            if self.rng.random() < 0.2:
                command = partial(refused, name=name)
            try:
                await store.write(command)
                self.acked.add(name)
            except OceanError:
                # What is refused because the power is going may have been stored.
                if not disk.is_off:
                    self.refused.add(name)
                await asyncio.sleep(0)


def run_until_power_cut(
    directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> tuple[Load, Disk]:
    rng = random.Random(seed)
    load = Load(rng)
    tuning = OperationalTuning(
        retry_delays_s=(0.001,),
        wal_pages_max=rng.choice((8, 30, 200)),
        checkpoint_idle_s=60,
        group_max=rng.choice((1, 4, 2000)),
    )
    directory.mkdir()
    with Disk(rng, cut_at=rng.choice((rng.randrange(1, 150), rng.randrange(150, 900)))) as disk:
        monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)
        settings = settings_for(
            directory, seed=seed, durability=durability, vfs=disk.name, exclusive=True,
            tuning=tuning,
        )  # fmt: skip
        store = OperationalStore(settings, on_state=States())

        async def scenario() -> None:
            async with asyncio.timeout(WAIT_S):
                await store.open()
                await asyncio.gather(
                    *(load.client(store, disk) for _ in range(rng.choice((1, 3, 12))))
                )
                await store.close()

        asyncio.run(scenario())
        monkeypatch.undo()
    return load, disk


class LostError(AssertionError):
    """Something that was acknowledged is gone."""


def one_round(
    directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> int:
    load, disk = run_until_power_cut(directory / f"{seed}", seed, monkeypatch, durability)
    after = directory / f"{seed}-after"
    after.mkdir()
    disk.write_survivors(after)

    async def reopen() -> bool:
        async with opened(settings_for(after, was_clean=False, durability=durability)) as store:
            assert store.is_ready, store.failure
            return store.salvage_report is not None

    was_salvaged = asyncio.run(reopen())
    assert not (was_salvaged and load.acked), "a power cut is no damage"
    found: dict[str, set[int]] = {}
    for key, _, rows, _ in content(after / NAME)["metadata"]:
        name, part = key.split("/")
        found.setdefault(name, {-1 - i for i in range(rows)}).add(int(part))
    lost = load.acked - found.keys()
    if lost:
        raise LostError(f"{sorted(lost)} of {len(load.acked)}")
    assert not load.refused & found.keys()
    for name, parts in found.items():
        assert all(-1 - part in parts for part in parts if part >= 0), name
        assert len(parts) % 2 == 0, f"only a part of {name} is there"
    return len(load.acked)


@pytest.mark.parametrize("part", range(4))
def test_nothing_acknowledged_is_lost_and_nothing_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    seeds = range(part * ROUNDS // 4, (part + 1) * ROUNDS // 4)
    acked = sum(one_round(tmp_path, seed, monkeypatch, "fsync") for seed in seeds)
    assert acked > len(seeds)


def test_without_syncs_a_power_cut_is_no_damage_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(OS_ROUNDS):
        with contextlib.suppress(LostError):
            one_round(tmp_path, seed, monkeypatch, "os")


def test_the_harness_finds_losses_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 0
    for seed in range(OS_ROUNDS):
        try:
            one_round(tmp_path, seed, monkeypatch, "os")
        except LostError:
            lost += 1
        if lost >= 3:
            return
    pytest.fail(f"only {lost} losses without fsync: the harness is blind")
