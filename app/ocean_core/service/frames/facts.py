"""What frames tell of sensors beside readings: lab, profile and unit, kept in the sensors' records.

Told with every frame and new with few of them, so only what is new is gathered, and written now and
then. What people have written in a record stays; what came from a device follows the device, as
long as this process remembers that it did. A sensor whose metrics have different units gets none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from ocean_core.model import limits
from ocean_core.model.errors import InvalidInputError, OceanError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.pipeline.routing.profile import GENERIC
from ocean_core.service.accounts.checks import check_text
from ocean_core.service.accounts.sensors import SensorRecords
from ocean_core.service.accounts.uninterrupted import uninterrupted
from ocean_core.storage.operational import sensors
from ocean_core.storage.operational.sensors import Told
from ocean_core.storage.operational.store import OperationalStore

_NOTHING: Final = ("", "", "")


@dataclass(slots=True)
class _Facts:
    """What is known of a sensor; ``unit`` None: its metrics have several.

    ``former`` is what its record has from here.
    """

    lab: str
    profile: str
    unit: str | None = ""
    former: tuple[str, str, str] = _NOTHING

    def says(self, lab: str, profile: str, units: Mapping[str, str]) -> bool:
        """Whether a frame tells nothing new."""
        if (lab and lab != self.lab) or profile != self.profile:
            return False
        return self.unit is None or all(unit in {"", self.unit} for unit in units.values())

    def learn(self, lab: str, profile: str, units: Mapping[str, str]) -> None:
        """Take over what a frame tells."""
        self.lab = lab or self.lab
        self.profile = profile
        told = {unit for unit in (self.unit, *units.values()) if unit}
        if self.unit is not None:
            self.unit = None if len(told) > 1 else "".join(told)


class SensorFacts:
    """Gathers facts and writes them. Bounded; for the event loop alone."""

    def __init__(
        self, store: OperationalStore, clock: Clock, log: EventLog, records: SensorRecords
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._records = records
        self._known: dict[str, _Facts] = {}
        # In the order in which they became known.
        self._waiting: dict[str, _Facts] = {}
        self._is_full = False

    @property
    def waiting(self) -> int:
        """How many sensors have something to be written."""
        return len(self._waiting)

    def note(self, sensor_id: str, lab_id: str, profile: str, units: Mapping[str, str]) -> None:
        """Take what a frame tells: lab or empty, profile, units by metric. Never raises."""
        known = self._known.get(sensor_id)
        if known is not None and known.says(lab_id, profile, units):
            return
        if sensor_id not in self._waiting and len(self._waiting) >= limits.FACTS_WAITING_MAX:
            # The next frame tells it again.
            return
        if known is None:
            if len(self._known) >= limits.FACT_SENSORS_MAX:
                # It will be looked at once more when it sends again.
                del self._known[next(iter(self._known))]
            known = self._known[sensor_id] = _Facts(lab_id, profile)
        known.learn(lab_id, profile, units)
        self._waiting[sensor_id] = known

    async def tick(self) -> None:
        """Write some of what has gathered; what cannot be written now is, the next time."""
        with suppress(OceanError):
            await self.flush()

    async def close(self) -> None:
        """Write all that has gathered, as far as that works: devices tell it again."""
        with suppress(OceanError):
            while self._waiting:
                await self.flush()

    async def flush(self) -> None:
        """Write some of what has gathered. Raises the errors of the store; then it is kept."""
        if self._waiting:
            await uninterrupted(self._flush())

    async def _flush(self) -> None:
        facts = dict(islice(self._waiting.items(), limits.FACTS_WRITTEN_MAX))
        async with self._records.steady_names() as names:
            told = [
                # It may have been renamed since.
                Told(
                    names.asked(sensor_id),
                    _text(one.lab),
                    "" if one.profile == GENERIC else _text(one.profile),
                    _text(one.unit or ""),
                    one.former,
                )
                for sensor_id, one in facts.items()
            ]
            # What comes from now on is written the next time.
            for sensor_id in facts:
                self._waiting.pop(sensor_id, None)
            try:
                write = partial(sensors.learn, told=told, now_us=self._clock.now_us())
                written = await self._store.write(write)
            except BaseException:
                self._waiting = facts | self._waiting
                raise
        for one, done in zip(facts.values(), written, strict=True):
            one.former = _NOTHING if done is None else done.former
        if None in written and not self._is_full:
            self._is_full = True
            self._log.warning("nanogridata.records_full", records=limits.SENSOR_RECORDS_LEARNED_MAX)


def _text(text: str) -> str:
    """Return text that fits into a record, empty if this does not."""
    try:
        return check_text("", text, limits.SENSOR_TEXT_BYTES_MAX)
    except (InvalidInputError, UnicodeEncodeError):
        return ""
