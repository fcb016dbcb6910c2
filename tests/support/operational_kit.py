"""Making operational stores, filling them, and reading them without the store's own code."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

import apsw

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.storage.operational import (
    OperationalSettings,
    OperationalStore,
    OperationalTuning,
)

NAME = "clisonix_operational.db"
START_US = 1_780_000_000_000_000
WAIT_S = 20.0

P = ParamSpec("P")
Row = tuple[Any, ...]
Content = dict[str, set[Row]]
Command = Callable[[apsw.Connection], Any]


def settings_for(directory: Path, *, seed: int = 0, **changes: Any) -> OperationalSettings:
    """Settings with a repeatable source of randomness and a log that goes nowhere."""
    clock = ManualClock(START_US)
    made = OperationalSettings(
        path=directory / NAME,
        clock=clock,
        random_bytes=random.Random(seed).randbytes,
        log=EventLog(clock, stream=io.StringIO()),
        metrics=MetricsRegistry(METRICS),
        tuning=OperationalTuning(retry_delays_s=(0.005,), checkpoint_idle_s=60.0),
    )
    return replace(made, **changes)


def log_text(settings: OperationalSettings) -> str:
    stream = settings.log._stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@dataclass
class States:
    """What on_state was told."""

    told: list[tuple[bool, str]] = field(default_factory=list)

    def __call__(self, ready: bool, reason: str) -> None:
        self.told.append((ready, reason))


@contextlib.asynccontextmanager
async def opened(
    settings: OperationalSettings, states: States | None = None
) -> AsyncIterator[OperationalStore]:
    """Open a store for a block that takes at most WAIT_S."""
    store = OperationalStore(settings, on_state=states or States())
    async with asyncio.timeout(WAIT_S):
        await store.open()
        try:
            yield store
        finally:
            await store.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the writer thread does by itself; whoever calls this bounds the time."""
    while not condition():  # noqa: ASYNC110 - the thread knows no event of the loop
        await asyncio.sleep(0.001)


def put(key: str, value: str = "1") -> Command:
    """Return a command that adds one row."""
    return partial(_put, key=key, value=value)


def _put(db: apsw.Connection, key: str, value: str) -> str:
    db.execute("INSERT INTO metadata VALUES (?, ?, ?, NULL)", (key, value, START_US))
    return key


def keys(db: apsw.Connection) -> list[str]:
    """Return what ``put`` has put."""
    return [key for (key,) in db.execute("SELECT key FROM metadata ORDER BY key")]


class Blocker:
    """A command that holds up the writer, so that what comes behind it becomes one group."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, _db: apsw.Connection) -> None:
        self.begun.set()
        assert self.go_on.wait(WAIT_S)


async def one_group(store: OperationalStore, *commands: Command) -> list[Any]:
    """Have commands carried out in one transaction; returns results and exceptions."""
    blocker = Blocker()
    first = asyncio.ensure_future(store.write(blocker))
    await until(blocker.begun.is_set)
    waiting = [asyncio.ensure_future(store.write(command)) for command in commands]
    await asyncio.sleep(0)
    blocker.go_on.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


def content(path: Path) -> Content:
    """Return every row of every table, in the order of the columns."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found: list[Row] = db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        ).fetchall()
        return {
            name: set(db.execute(f"SELECT * FROM {name}").fetchall())
            for (name,) in found
            if name != "meta"
        }
    finally:
        db.close()


def beside(directory: Path, pattern: str) -> list[str]:
    """Return the names of other files that stand beside the store."""
    return sorted(path.name for path in directory.glob(NAME + pattern))


def copy_as_killed(source: Path, target: Path) -> Path:
    """Copy the files as kill -9 would leave them; returns the directory."""
    target.mkdir()
    for name in (NAME, NAME + "-wal"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return target


def populate(db: apsw.Connection, count: int = 250) -> None:
    """Fill every table; some rows are gone again, and some are longer than a page."""
    populate_first_version(db, count)
    rng = random.Random(count)
    for i in range(count):
        frame = rng.randbytes(rng.choice((40, 40, 1070, 2048)))
        db.execute(
            "INSERT INTO quarantine VALUES "
            "(?, ?, ?, ?, 1, 'boot', 5, 'tcp', '127.0.0.1:1', 'local', '', NULL, 'E_KEY', ?, 3, 16, "
            "'', '', '', ?, 'held', NULL, ?, ?, ?)",
            (i + 1, hashlib.sha256(frame).digest(), START_US, START_US + i, "d" * (i % 200),
             i % 2, frame[:20] if i % 3 else None, len(frame), frame),
        )  # fmt: skip
    db.execute("DELETE FROM quarantine WHERE id BETWEEN 5 AND 9")


def populate_first_version(db: apsw.Connection, count: int = 250) -> None:
    """Fill every table that version 1 had."""
    rng = random.Random(count)
    now = START_US
    for i in range(count):
        user = f"user-{i:05}"
        db.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (user, f"Name {i}", f"name {i}", f"n{i}@x.org", f"n{i}@x.org",
             None if i % 3 else f"$argon2id${i}", "active", now + i, now + i),
        )  # fmt: skip
        db.execute(
            "INSERT INTO billing VALUES (?, ?, 'free', ?, 0, 'epoch', 0, 0, ?)",
            (user, f"bill-{i}", i, now),
        )
        for j in range(3):
            db.execute(
                "INSERT INTO billing_ledger VALUES (NULL, ?, ?, 'grant', ?, ?, '', 'local')",
                (user, now + j, i, i * j),
            )
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (f"session-{i}-{j}", user, rng.randbytes(32), now, now + 9, now + 99, now),
            )
        value = '"' + "v" * rng.choice((3, 40, 900, 3000, 20_000)) + f'{i}"'
        db.execute("INSERT INTO metadata VALUES (?, ?, ?, ?)", (f"key-{i}", value, now, None))
        db.execute(
            "INSERT INTO profiles VALUES (?, 's', 't', ?, ?)",
            (f"p-{i}", '{"a": "' + "p" * rng.choice((5, 2000)) + '"}', now),
        )
        db.execute(
            "INSERT INTO sensors VALUES (?, 'd', 'C', '{}', ?, ?)", (f"s-{i}", "n" * 60, now)
        )
        db.execute(
            "INSERT INTO access_keys VALUES (?, 'k', ?, 'read', '', NULL, ?, ?, NULL, NULL, NULL)",
            (f"key-{i}", rng.randbytes(32), user if i % 2 else None, now),
        )
        db.execute(
            "INSERT INTO audit VALUES (NULL, ?, 'local', '', 'users.create', ?, ?)",
            (now + i, user, f'{{"username": "name {i}"}}'),
        )
        db.execute("INSERT INTO loss_ledger VALUES (?, 'evicted', ?, ?)", (f"s-{i}", i, now))
        db.execute(
            "INSERT INTO name_rules VALUES (NULL, 'forget', ?, '', ?, 'epoch', ?)",
            (f"s-{i}", i, now),
        )
        db.execute(
            "INSERT INTO request_answers VALUES ('users', ?, ?, ?, ?)",
            (f"k-{i}", rng.randbytes(32), b'{"id": 1}' + b" " * 300, now + i),
        )
    # A run of pages becomes free and keeps what it held.
    db.execute("DELETE FROM sessions WHERE user_id BETWEEN 'user-00050' AND 'user-00150'")
    db.execute("DELETE FROM metadata WHERE key BETWEEN 'key-2' AND 'key-24'")
