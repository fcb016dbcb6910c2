"""The alarm book: raised once, cleared by itself when the cause is gone, listed."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

import msgspec

from ocean_core.model import limits
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry

Severity = Literal["warning", "critical"]


class AlarmKind(msgspec.Struct, frozen=True):
    """What an alarm of a name means and what to do about it."""

    name: str
    severity: Severity
    meaning: str
    next_step: str


ALARM_KINDS: Final = {
    kind.name: kind
    for kind in (
        AlarmKind(
            "readings.missing",
            "critical",
            "Acknowledged readings are missing from the journal.",
            "Keep the *.damaged-* files in the data directory; note the id ranges; "
            "check the disk or SD card (dmesg) and replace it if it fails again.",
        ),
        AlarmKind(
            "buffer.failed",
            "critical",
            "The journal cannot be written; readings are refused, none acknowledged is lost.",
            "Free space or check the disk; the box tries again by itself.",
        ),
        AlarmKind(
            "buffer.salvaged",
            "warning",
            "The journal was damaged; what was readable was saved into a new one.",
            "Check the disk or SD card; then remove the damaged file, which ends this alarm.",
        ),
        AlarmKind(
            "accounts.failed",
            "warning",
            "The operational store cannot be written: accounts cannot be changed; readings go on.",
            "Free space or check the disk; the box tries again by itself.",
        ),
        AlarmKind(
            "accounts.damaged",
            "warning",
            "The operational store was damaged; some accounts, sessions or records may be gone.",
            "Compare the counts in the detail; check the disk or SD card; then remove the damaged "
            "file, which ends this alarm.",
        ),
        AlarmKind(
            "accounts.lost",
            "critical",
            "The operational store is not the one that was here before: users, keys, records and "
            "what was renamed or forgotten are gone, or others'.",
            "Stop the server and put clisonix_operational.db back, for example from a backup (without "
            "a -wal of another one). Or go on with the one that is there: remove accounts.id, which "
            "ends this alarm.",
        ),
        AlarmKind(
            "sensors.unforgotten",
            "warning",
            "Analytics followed rules about sensors that the operational store no longer has: what was "
            "renamed or forgotten under them shows again. Until the next start.",
            "Rename or forget again what the detail names.",
        ),
        AlarmKind(
            "durability.reduced",
            "warning",
            'journal.durability is "os": a power cut may lose acknowledged readings.',
            'Set journal.durability = "fsync" and restart.',
        ),
        AlarmKind(
            "analytics.down",
            "warning",
            "The analytics process is not running; readings are accepted, queries are not.",
            "It is started again by itself; if this lasts, look at the log.",
        ),
        AlarmKind(
            "analytics.rebuilding",
            "warning",
            "analytics.duckdb is being built anew from the journal.",
            "Wait; `ocean status` shows the progress. Nothing is lost.",
        ),
        AlarmKind(
            "archive.stuck",
            "warning",
            "Work on the archive fails; readings stay in the journal, nothing is lost.",
            "It is tried again by itself; the detail says why it fails. A damaged or foreign archive: "
            "`ocean verify`.",
        ),
        AlarmKind(
            "clock.untrusted",
            "warning",
            "Readings came from the future, and this box cannot tell whose clock is wrong.",
            "Compare the sensor's clock and this box's (date); set the wrong one. "
            "With a time service on the box (timedatectl set-ntp true) such readings are refused.",
        ),
        AlarmKind(
            "frames.early",
            "warning",
            "Frames were refused for their time while this box's own clock was not trusted.",
            "Set the clock (date, or timedatectl set-ntp true): they are tried again by themselves. "
            "If the device's clock is wrong, or they came before the machine was started anew: "
            "`ocean quarantine list`, then `ocean quarantine retry ID --any-time` or "
            "`ocean quarantine forget --outcome E_STALE`.",
        ),
        AlarmKind(
            "sensor.clock",
            "warning",
            "A sensor sends times from before 2000; its readings are kept with quality 2.",
            "Set the sensor's clock, or let it send no timestamp: then the time of arrival counts.",
        ),
        AlarmKind(
            "analytics.stuck",
            "warning",
            "Readings are accepted, but cannot be moved into analytics at the moment.",
            "The cause is in the detail; it is tried again by itself. Nothing is lost.",
        ),
        AlarmKind(
            "disk.low",
            "warning",
            "The data directory's disk has little room left.",
            "Free space, or move the data directory to a larger disk.",
        ),
        AlarmKind(
            "network.plain",
            "warning",
            "Other machines are served without TLS: keys and readings cross the network in the clear.",
            "Make a certificate (`ocean tls self-signed`), unset network.allow_plain, restart.",
        ),
        AlarmKind(
            "tls.expiring",
            "warning",
            "The certificate has expired, is about to, or is not valid yet.",
            "Renew it (`ocean tls self-signed --force`, or put new files in its place); it is taken "
            "over without a restart. If only the date is wrong, set this machine's clock.",
        ),
        AlarmKind(
            "nanogridata.secrets",
            "warning",
            "A file with Nanogridata secrets cannot be used; the secrets known before go on counting.",
            "Correct the file that the detail names before the next start; it is taken over within "
            "10 s. `ocean keys nanogridata list` checks them all.",
        ),
        AlarmKind(
            "idempotency.shortened",
            "warning",
            "Idempotency-Keys were forgotten before their time; a late retry may be stored twice.",
            "Raise ingest.idempotency_keys_max, or let clients send fewer, larger batches.",
        ),
    )
}
"""Every alarm, by name."""


class Alarm(msgspec.Struct):
    """One alarm that was raised."""

    name: str
    severity: Severity
    detail: str
    meaning: str
    next_step: str
    raised_at: str
    cleared_at: str | None = None


class AlarmBook:
    """Open alarms by name, and the last ones that were cleared."""

    def __init__(self, clock: Clock, log: EventLog, metrics: MetricsRegistry) -> None:
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._open: dict[str, Alarm] = {}
        self._cleared: deque[Alarm] = deque(maxlen=limits.ALARMS_KEPT_MAX)

    def raise_alarm(self, name: str, detail: str) -> None:
        """Raise an alarm; if it is open already, only its detail is renewed."""
        kind = ALARM_KINDS[name]
        present = self._open.get(name)
        if present is not None:
            present.detail = detail
            return
        self._open[name] = Alarm(
            name, kind.severity, detail, kind.meaning, kind.next_step,
            iso_utc(self._clock.now_us()),
        )  # fmt: skip
        self._log.warning("alarm.raised", alarm=name, detail=detail)
        self._metrics.set("ocean_runtime_alarms_open", len(self._open))

    def clear_alarm(self, name: str) -> None:
        """Clear an alarm if it is open."""
        alarm = self._open.pop(name, None)
        if alarm is None:
            return
        alarm.cleared_at = iso_utc(self._clock.now_us())
        self._cleared.append(alarm)
        self._log.info("alarm.cleared", alarm=name)
        self._metrics.set("ocean_runtime_alarms_open", len(self._open))

    def set_alarm(self, name: str, *, active: bool, detail: str = "") -> None:
        """Raise or clear by a condition."""
        if active:
            self.raise_alarm(name, detail)
        else:
            self.clear_alarm(name)

    def open_alarms(self) -> list[Alarm]:
        """Return the open alarms, critical ones first."""
        return sorted(self._open.values(), key=lambda alarm: (alarm.severity, alarm.raised_at))

    def cleared_alarms(self) -> list[Alarm]:
        """Return the alarms cleared since the start, newest first."""
        return list(reversed(self._cleared))
