"""Users, billing and sessions on a real operational store, with a clock that stands still."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ocean_core.buffer.port import UsageCounts
from ocean_core.config.settings import BillingSettings
from ocean_core.model.access import LOCAL, Origin, Principal, Scope
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.service.accounts.billing import BillingService
from ocean_core.service.accounts.passwords import PasswordHasher
from ocean_core.service.accounts.session_answers import NewSession, SessionCreated
from ocean_core.service.accounts.sessions import SessionService
from ocean_core.service.accounts.users import NewUser, UserService
from ocean_core.storage.operational.settings import OperationalSettings
from ocean_core.storage.operational.store import OperationalStore

T = TypeVar("T")

LOCAL_ORIGIN = Origin(LOCAL, "127.0.0.1")
ADMIN_ORIGIN = Origin(Principal("key", id="k1", scopes=frozenset({Scope.ADMIN})), "10.0.0.9")
NOBODY_ORIGIN = Origin(Principal("nobody"), "10.0.0.7")
PASSWORD = "correct horse battery"
HOUR_S = 3600
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


class Journal:
    """Counts as the journal does; ``lost`` and a new epoch stand for what may become of it."""

    def __init__(self) -> None:
        self.epoch = "epoch-1"
        self.counts: dict[str, UsageCounts] = {}

    def usage_of(self, user_id: str) -> UsageCounts:
        return self.counts.get(user_id, UsageCounts(0, 0))

    def counted_users(self) -> Iterable[str]:
        return list(self.counts)

    def store(self, user_id: str, readings: int, *, charged: bool = False) -> None:
        known = self.usage_of(user_id)
        self.counts[user_id] = UsageCounts(
            known.stored + readings, known.charged + (readings if charged else 0)
        )


class Bytes:
    """Random bytes that are the same every time."""

    def __init__(self) -> None:
        self._at = 0

    def __call__(self, size: int) -> bytes:
        self._at += 1
        return hashlib.shake_128(b"%d" % self._at).digest(size)


class AccountsLab:
    """The services over one file. ``restart`` makes new ones over the same file."""

    def __init__(self, folder: Path, **billing: Any) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.random = Bytes()
        self.log = io.StringIO()
        self.journal = Journal()
        self.settings = BillingSettings(**billing)
        self.session_hours = 24
        self.store: OperationalStore
        self.passwords: PasswordHasher
        self.users: UserService
        self.billing: BillingService
        self.sessions: SessionService

    async def start(self) -> None:
        settings = OperationalSettings(
            self.folder / "clisonix_operational.db",
            self.clock,
            self.random,
            EventLog(self.clock, stream=self.log),
            MetricsRegistry(METRICS),
            durability="os",
        )
        self.store = OperationalStore(settings, on_state=lambda _ready, _reason: None)
        await self.store.open()
        # As weak as argon2 allows: what is tested is not its strength.
        self.passwords = PasswordHasher(self.random, memory_kib=8, time_cost=1)
        self.users = UserService(self.store, self.clock, self.random, self.passwords, self.settings)
        self.billing = BillingService(self.store, self.clock, self.journal, self.settings)
        self.users.on_new_account(self.billing.knows)
        self.sessions = SessionService(
            self.store, self.clock, self.random, self.passwords, self.users, self.session_hours
        )
        await self.billing.load()

    async def stop(self) -> None:
        self.passwords.close()
        await self.store.close()

    async def restart(self, **billing: Any) -> None:
        """Stop without flushing or settling, as kill -9 does, and start again."""
        await self.stop()
        if billing:
            self.settings = BillingSettings(**billing)
        await self.start()

    async def user(self, name: str = "anna", password: str | None = None) -> str:
        """Make a user; return its id."""
        made = await self.users.create(
            NewUser(name, f"{name}@plant.example", password), LOCAL_ORIGIN
        )
        return str(msgspec.json.decode(made)["id"])

    async def session(self, user_id: str) -> SessionCreated:
        """Make a session as an administrator does."""
        return await self.sessions.create(NewSession(user_id=user_id), LOCAL_ORIGIN)

    async def log_in(self, name: str, password: str, address: str = "10.0.0.7") -> SessionCreated:
        origin = Origin(Principal("nobody"), address)
        return await self.sessions.create(NewSession(username=name, password=password), origin)

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table as they are stored."""

        def query(db: Any) -> list[dict[str, Any]]:
            cursor = db.execute(f"SELECT * FROM {table}")
            found = []
            for row in cursor:
                names = [column[0] for column in cursor.get_description()]
                found.append(dict(zip(names, row, strict=True)))
            return found

        return await self.store.read(query)

    async def acts(self) -> list[str]:
        return [row["act"] for row in await self.rows("audit")]


@asynccontextmanager
async def accounts(folder: Path, **billing: Any) -> AsyncIterator[AccountsLab]:
    lab = AccountsLab(folder, **billing)
    await lab.start()
    try:
        yield lab
    finally:
        await lab.stop()


def on_accounts(folder: Path, test: Callable[[AccountsLab], Awaitable[T]], **billing: Any) -> T:
    """Run a test on services of its own."""

    async def run() -> T:
        async with accounts(folder, **billing) as lab:
            return await test(lab)

    return asyncio.run(run())


def contents(folder: Path) -> list[bytes]:
    """What every file of a folder holds."""
    return [file.read_bytes() for file in folder.iterdir()]
