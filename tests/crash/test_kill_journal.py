"""kill -9 while users' readings and repeats are counted, and groups mark: all is exact afterwards."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.buffer.port import DuplicateCount
from support.journal_kit import WAIT_S, read_all, settings_for
from support.paths import REPO
from support.waiting import until

LONG = os.environ.get("OCEAN_CRASH_LONG") == "1"
SEED = int(os.environ.get("OCEAN_CRASH_SEED", "20260117"))
ROUNDS = 200 if LONG else 12
USERS = ("anna", "bert", "carl")
GROUPS = ("api", "export")

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200 if LONG else 120)]

# Posts and marks without a pause, and writes down, outside the journal, what was acknowledged.
CHILD = """
import asyncio, os, random, sys
from dataclasses import replace
from pathlib import Path
from support.journal_kit import events, intake_of, key_of, readings, settings_for
from ocean_core.buffer.embedded import EmbeddedJournal, JournalTuning
from ocean_core.model.receipt import Owner

directory, record, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
users, groups = sys.argv[4].split(), sys.argv[5].split()
rng = random.Random(seed)
record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tuning = JournalTuning(wal_pages_max=rng.choice((8, 60, 400)))
journal = EmbeddedJournal(settings_for(directory, seed=seed, tuning=tuning))

def told(*words):
    os.write(record, (" ".join(map(str, words)) + "\\n").encode())

async def post(user, number):
    while True:
        count = rng.choice((1, 1, 3, 40, 300))
        rows = events(number, count) if rng.random() < 0.2 else readings(number, count)
        rows = replace(rows, series=[(user, name[1]) for name in rows.series])
        key = key_of(f"{seed}-{user}-{number}") if rng.random() < 0.3 else None
        receipt = await journal.append(intake_of(rows), key, Owner(user, number % 2 == 0))
        told("posted", user, receipt.first_reading_id or receipt.first_event_id, count)
        while key is not None and rng.random() < 0.7:
            told("repeats", user, count)
            if rng.random() < 0.5:
                again = await journal.append(intake_of(rows), key, Owner(user, True))
            else:
                again = await journal.lookup(key, {user: count})
            assert again.duplicate
            told("repeated", user, count)
        number += 1

async def mark(group):
    while True:
        if journal.head_id:
            # Mostly in order, but with gaps that are filled later.
            low = next((g.cursor for g in journal.groups() if g.name == group), 0)
            high = min(journal.head_id, low + 200)
            ids = [i for i in range(low + 1, high + 1) if rng.random() < 0.9]
            if ids:
                await journal.acknowledge(group, ids)
                told("marked", group, *ids)
        await asyncio.sleep(0)

async def main():
    await journal.open()
    await asyncio.gather(*(post(user, 1) for user in users), *(mark(group) for group in groups))

asyncio.run(main())
"""


@dataclass
class Told:
    """What the children were told."""

    ids: dict[str, set[int]] = field(default_factory=lambda: {user: set() for user in USERS})
    marked: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in GROUPS})
    repeats: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> None:
        for line in path.read_text().splitlines(keepends=True):
            words = line.split()
            if not line.endswith("\n"):
                continue
            if words[0] == "posted":
                first, count = int(words[2]), int(words[3])
                self.ids[words[1]].update(range(first, first + count))
            elif words[0] in {"repeats", "repeated"}:
                counter = self.repeats if words[0] == "repeats" else self.repeated
                counter[words[1]] += int(words[2])
            else:
                self.marked[words[1]].update(map(int, words[2:]))


def stored_rows(directory: Path) -> tuple[Counter[str], dict[str, set[int]]]:
    """Count the rows of each user by what stands in the rows themselves."""
    counts: Counter[str] = Counter()
    ids: dict[str, set[int]] = {user: set() for user in USERS}
    for block in read_all(directory / "journal.db"):
        for place in range(block.count):
            user = block.rows.series[int(block.rows.series_index[place])][0]
            counts[user] += 1
            ids[user].add(block.first_id + place)
    return counts, ids


def check(directory: Path, told: Told) -> None:
    journal = EmbeddedJournal(settings_for(directory))

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S):
            await journal.open()
            assert journal.missing_ranges() == ()
            counts, ids = stored_rows(directory)
            for user in USERS:
                assert told.ids[user] <= ids[user]
                assert journal.usage_of(user).stored == counts[user]
                assert journal.usage_of(user).charged <= counts[user]
                # Those that were answered, and at most those that were under way.
                again = journal.duplicates().get(user, DuplicateCount(0, 0)).count
                assert told.repeated[user] <= again <= told.repeats[user]
            for name in GROUPS:
                waiting = await journal.read_unacknowledged(name, 10_000)
                unread = told.marked[name] & {row.id for row in waiting}
                assert not unread, f"{name} was told that these are marked: {sorted(unread)[:10]}"
            assert sum(group.evicted for group in journal.groups()) == 0
            await journal.close()

    asyncio.run(scenario())


def test_counters_and_marks_survive_kill_9(tmp_path: Path) -> None:
    print(f"OCEAN_CRASH_SEED={SEED}")
    rng = random.Random(SEED)
    data, told = tmp_path / "data", Told()
    data.mkdir()
    for number in range(ROUNDS):
        record = tmp_path / f"record-{number}"
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(data), str(record), str(SEED + number),
             " ".join(USERS), " ".join(GROUPS)],
            cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO / "tests")},
        )  # fmt: skip
        try:
            goal = rng.choice((1, rng.randrange(500), rng.randrange(20_000)))
            until(
                lambda record=record, goal=goal: record.exists() and record.stat().st_size >= goal,  # type: ignore[misc]
                within_s=30, every_s=0.001, what="the child got that far",
            )  # fmt: skip
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        told.read(record)
        check(data, told)
    assert all(told.ids.values())
    assert all(told.marked.values())
    assert all(told.repeated.values())
