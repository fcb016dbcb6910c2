"""Log events: a dotted name from one list, and fields. They go to standard error.

Standard output belongs to the results of commands.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Final, TextIO

from ocean_core.obs.clock import Clock, iso_utc

THROTTLE_BURST: Final = 20
THROTTLE_WINDOW_S: Final = 10.0

EVENTS: Final[dict[str, str]] = {
    "runtime.started": "The appliance listens and acknowledges readings.",
    "runtime.stopped": "Clean stop; everything in flight is stored.",
    "runtime.stopping": "A stop was asked for.",
    "runtime.unclean_stop": "The previous run did not stop cleanly.",
    "runtime.parent_gone": "The launching process is gone; this one stops.",
    "runtime.stop_forced": "A process did not stop in time and was ended.",
    "runtime.background_failed": "A background task failed; it is tried again.",
    "analytics.started": "The analytics process is up.",
    "analytics.exited": "The analytics process ended; it is started again.",
    "analytics.rebuild_started": "analytics.duckdb is built anew from the journal.",
    "analytics.rebuild_finished": "analytics.duckdb is complete again.",
    "analytics.damaged": "analytics.duckdb is damaged and was moved aside.",
    "analytics.query_failed": "A query failed.",
    "analytics.rules_applied": "Sensors were renamed or forgotten in analytics.duckdb.",
    "analytics.rules_missing": "The rules about names did not come; the last known ones are used.",
    "analytics.rules_lost": "Rules about names that were followed are no longer there; all is rebuilt.",
    "analytics.mover_failed": "Moving readings failed; it is tried again.",
    "archive.sealed": "Ids of the journal are in the archive now.",
    "archive.failed": "Work on the archive failed; it is tried again.",
    "archive.compacted": "Small files of the archive were merged into one.",
    "archive.part_damaged": "A file of the archive cannot be read; its readings are not answered.",
    "archive.swept": "A file that no manifest names was removed from the archive.",
    "archive.manifest_restored": "The archive's manifest was damaged; its copy took its place.",
    "work.started": "Long work was asked for and began.",
    "work.ended": "Long work ended.",
    "buffer.opened": "The journal is open.",
    "buffer.failed": "The journal cannot be written.",
    "buffer.recovered": "The journal can be written again.",
    "buffer.damaged": "The journal is damaged.",
    "buffer.salvaged": "What was readable of a damaged journal was saved.",
    "buffer.readings_missing": "Acknowledged readings are missing.",
    "buffer.frames_evicted": "The journal took too much of the disk; what tells repeats of stored frames went early.",
    "buffer.group_evicted": "A consumer group held readings back for too long; they were deleted.",
    "accounts.opened": "The operational store is open.",
    "accounts.failed": "The operational store cannot be written.",
    "accounts.recovered": "The operational store can be written again.",
    "accounts.damaged": "The operational store is damaged.",
    "accounts.salvaged": "What was readable of a damaged operational store was saved.",
    "alarm.raised": "An alarm was raised.",
    "alarm.cleared": "An alarm was cleared.",
    "access.refused": "A request was refused: no valid key, not for this key, or too many.",
    "api.server_message": "The HTTP server met something unusual, for example a broken request.",
    "api.internal_error": "A request met a fault of our own.",
    "network.handshake_failed": "A client did not get through the TLS handshake.",
    "network.refused": "A client found no room: all connections, or all of its address, are busy.",
    "network.accept_failed": "A connection could not be accepted; tried again a moment later.",
    "tls.reloaded": "A new certificate was taken over.",
    "tls.reload_failed": "A new certificate is broken; the old one stays in use.",
    "tls.certificate_doubtful": "Something about the certificate should be looked at.",
    "secrets.reloaded": "Nanogridata secrets changed and were taken over.",
    "secrets.reload_failed": "A file with Nanogridata secrets cannot be used; those known before go on counting.",
    "secrets.file_doubtful": "A file with Nanogridata secrets should be looked at: others may read it.",
    "nanogridata.records_full": "There are too many sensor records; labs and units of further devices are not kept.",
    "nanogridata.skipped": "Bytes between frames belonged to none; told once for each run of them.",
    "nanogridata.garbage": "A connection sent too much that is no frame, and was closed.",
    "nanogridata.connection_refused": "A device found no free connection.",
    "log.throttled": "Events of one name came too fast; some were not written.",
}
"""Every event name with its meaning."""


class EventLog:
    """Writes log events; throttles each event by its name."""

    def __init__(
        self,
        clock: Clock,
        *,
        level: str = "info",
        as_json: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._clock = clock
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._as_json = as_json
        self._stream = stream if stream is not None else sys.stderr
        self._windows: dict[str, list[float]] = {}
        self._suppressed: dict[str, int] = {}

    def debug(self, event: str, **fields: object) -> None:
        """Write an event that matters to a developer."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Write an event that matters to whoever reads the log later."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write an event that someone should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Write an event that someone must look at."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        assert event in EVENTS, event
        if level < self._level or self._is_throttled(event):
            return
        self._emit(level, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, object]) -> None:
        moment = iso_utc(self._clock.now_us())
        name = logging.getLevelName(level).lower()
        if self._as_json:
            line = json.dumps(
                {"time": moment, "level": name, "event": event, **fields}, default=str
            )
        else:
            told = " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
            line = f"{moment} {name:7} {event} {told}".rstrip()
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A closed or broken standard error must never stop the appliance.
            return

    def _is_throttled(self, event: str) -> bool:
        now = self._clock.monotonic()
        window = self._windows.setdefault(event, [now, 0])
        if now - window[0] > THROTTLE_WINDOW_S:
            suppressed = self._suppressed.pop(event, 0)
            window[:] = [now, 0]
            if suppressed:
                fields: dict[str, object] = {"throttled": event, "count": suppressed}
                self._emit(logging.WARNING, "log.throttled", fields)
        window[1] += 1
        if window[1] > THROTTLE_BURST:
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return True
        return False


class LogBridge(logging.Handler):
    """Brings warnings of libraries that use the logging module into our log."""

    def __init__(self, log: EventLog, event: str) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as an event (the logging module calls this)."""
        self._log.warning(self._event, logger=record.name, message=record.getMessage())


def _plain(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and not any(letter in text for letter in ' "=')
    return text if text and is_plain else json.dumps(text)
