"""Wires what concerns accounts: the operational store, its services, access, the ingest policy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.config.settings import Settings
from ocean_core.model.errors import OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.faults import Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime.local_key import make_owner_key, write_local_key
from ocean_core.service.access import AccessService
from ocean_core.service.accounts.audit import AuditService
from ocean_core.service.accounts.billing import BillingService
from ocean_core.service.accounts.keys import KeyService
from ocean_core.service.accounts.metadata import MetadataService
from ocean_core.service.accounts.passwords import PasswordHasher
from ocean_core.service.accounts.profiles import ProfileService
from ocean_core.service.accounts.sensor_analytics import LinkedAnalytics
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.accounts.sessions import SessionService
from ocean_core.service.accounts.users import UserService
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.analytics_link import AnalyticsLink
from ocean_core.service.frames.quarantine import Quarantine
from ocean_core.service.ledger import LedgerService
from ocean_core.service.policy import IngestPolicy
from ocean_core.storage.operational.settings import OperationalSettings
from ocean_core.storage.operational.store import OperationalStore
from ocean_core.storage.operational.summary import counts

OPERATIONAL_FILE: Final = "clisonix_operational.db"
OPEN_FIRST_S: Final = 2.0
ALARM_LOST: Final = "accounts.lost"


class Accounts:
    """Everything about accounts that the ingest process holds."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        journal: EmbeddedJournal,
        link: AnalyticsLink,
        was_clean: bool,
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._alarms = alarms
        self._journal = journal
        self._link = link
        self._are_rules_told = False
        self._was_away = False
        self._is_followed = False
        self._catching_up: set[asyncio.Task[None]] = set()
        self._ticking = asyncio.Lock()
        faults = Faults.from_environment()
        self.store = store = OperationalStore(
            OperationalSettings(
                path=data_dir / OPERATIONAL_FILE,
                clock=clock,
                random_bytes=os.urandom,
                log=log,
                metrics=metrics,
                faults=faults,
                durability=settings.journal.durability,
                was_clean=was_clean,
            ),
            on_state=self._store_changed,
        )
        self._passwords = PasswordHasher(os.urandom)
        self.users = UserService(store, clock, os.urandom, self._passwords, settings.billing)
        self.billing = BillingService(store, clock, journal, settings.billing)
        self.users.on_new_account(self.billing.knows)
        self.sessions = SessionService(
            store, clock, os.urandom, self._passwords, self.users, settings.access.session_hours
        )
        self.metadata = MetadataService(store, clock)
        self.sensors = SensorRecords(
            store, clock, LinkedAnalytics(link, lambda: journal.head_id, lambda: journal.epoch)
        )
        self.ledger = LedgerService(
            store, clock, self.sensors, journal, lambda: link.names, was_clean=was_clean
        )
        self.quarantine = _quarantine(self, settings, alarms, journal, faults)
        self.profiles = ProfileService(store, clock, self.sensors.current_name)
        self.keys = KeyService(store, clock, os.urandom)
        self.users.on_status(lambda user_id, active: self.keys.user_changed(user_id, active=active))
        self.audit = AuditService(store)
        self._owner_key = make_owner_key(os.urandom)
        self.access = AccessService(
            settings.access, clock, self.keys, self.sessions, self._owner_key
        )
        self.policy = IngestPolicy(clock, self.billing)

    async def open(self) -> None:
        """Open the store and take into memory what every request needs; the journal is open.

        A store that takes long, because it is being salvaged, or cannot be opened, does not keep
        readings out: what is missing is made up for by ``tick``. Raises StoreVersionError.
        """
        try:
            write_local_key(self._data_dir, self._owner_key)
        except OSError as error:
            self._log.warning("runtime.background_failed", task="local.key", error=str(error))
        opening = asyncio.ensure_future(self.store.open())
        await asyncio.wait({opening}, timeout=OPEN_FIRST_S)
        if opening.done():
            await opening
        else:
            # It goes on by itself; until then is_ready is false, and what needs it is refused.
            opening.add_done_callback(_taken_note_of)
        self._is_followed = True
        await self.tick()

    async def close(self) -> None:
        """Bring what is only in memory into the store, and close it."""
        self._is_followed = False
        await asyncio.gather(*self._catching_up, return_exceptions=True)
        await self._attempt("sessions", lambda: self.sessions.flush(everything=True))
        await self._attempt("keys", self.keys.flush)
        if self._journal.epoch:
            await self._attempt("billing", self.billing.settle)
        await self._attempt("quarantine", self.quarantine.close)
        await self._attempt("ledger", self.ledger.flush)
        self._passwords.close()
        await self.store.close()

    async def count(self) -> None:
        """Bring the gauges up to date; what cannot be read now keeps its last figure."""
        self._metrics.set("ocean_accounts_ready", int(self.store.is_ready))
        try:
            found = await self.store.read(partial(counts, now_us=self._clock.now_us()))
        except OceanError:
            return
        self._metrics.set("ocean_accounts_users", found.users)
        self._metrics.set("ocean_accounts_sessions", found.sessions)
        self._metrics.set("ocean_accounts_keys", found.keys)

    async def tick(self) -> None:
        """Do what is due now and then; what fails is tried again the next time."""
        async with self._ticking:
            if self.store.is_ready:
                await self._catch_up()
                await self._attempt(ALARM_LOST, self._look_for_loss)
                await self._attempt("sessions", self.sessions.flush)
                await self._attempt("keys", self.keys.flush)
                await self._attempt("metadata", self.metadata.purge)
                await self._attempt("sensors", self.sensors.settle)
                await self._attempt("ledger", self.ledger.flush)
                await self._attempt("quarantine", self.quarantine.tick)
            report = self.store.salvage_report
            damaged = report is not None and any(
                self._data_dir.glob(f"{OPERATIONAL_FILE}.damaged-*")
            )
            self._alarms.set_alarm(
                "accounts.damaged",
                active=damaged,
                detail=report.detail if report is not None else "",
            )

    async def _catch_up(self) -> None:
        """Load what could not be loaded yet, in the order in which others wait for it."""
        if not self._are_rules_told:
            # What was forgotten is told by ids of the journal: whose they are must be known.
            if self._journal.epoch and await self._attempt("sensors", self.sensors.load):
                self._link.set_rules(self.sensors.rules)
                self._are_rules_told = True
        elif self._was_away:
            self._was_away = False
            if not await self._attempt("sensors", self.sensors.put_back):
                self._was_away = True
        if not self.keys.is_loaded:
            await self._attempt("keys", self.keys.load)
        # Without the journal's counts there is nothing to compare accounts with.
        if self._journal.epoch:
            work = self.billing.settle if self.billing.is_loaded else self.billing.load
            await self._attempt("billing", work)

    async def _look_for_loss(self) -> None:
        former = await self.store.former_id()
        detail = f"accounts.id names the store {former}, found was {self.store.store_id}"
        self._alarms.set_alarm(ALARM_LOST, active=bool(former), detail=detail)

    async def _attempt(self, task: str, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except OceanError as error:
            self._log.warning("runtime.background_failed", task=task, error=error.detail)
            return False
        return True

    def _store_changed(self, is_ready: bool, reason: str) -> None:  # noqa: FBT001 - a callback
        self._alarms.set_alarm("accounts.failed", active=not is_ready, detail=reason)
        self._was_away |= not is_ready
        if is_ready and self._is_followed:
            # At once: until then keys and rules are not known, or those that a salvage has lost
            # are in memory only.
            task = asyncio.get_running_loop().create_task(self.tick())
            self._catching_up.add(task)
            task.add_done_callback(self._catching_up.discard)


def _quarantine(
    accounts: Accounts,
    settings: Settings,
    alarms: AlarmBook,
    journal: EmbeddedJournal,
    faults: Faults,
) -> Quarantine:
    return Quarantine(
        accounts.store,
        accounts._clock,
        accounts._metrics,
        alarms,
        accounts.sensors,
        frames_max=settings.nanogridata.quarantine_frames_max,
        newest_arrival_us=lambda: journal.newest_arrival_us,
        markers_kept_s=settings.ingest.idempotency_hours * 3600,
        faults=faults,
    )


def _taken_note_of(opening: asyncio.Future[None]) -> None:
    if not opening.cancelled():
        opening.exception()
