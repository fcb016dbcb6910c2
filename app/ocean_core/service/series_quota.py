"""How many series there may be, per sensor and in total."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ocean_core.config.settings import IngestSettings
from ocean_core.model.block import SeriesName
from ocean_core.model.errors import SeriesQuotaError


class SeriesQuota:
    """Knows every series, and refuses new ones beyond the quota, naming the sensor.

    ``shown`` returns the name of today for a sensor that was renamed.
    """

    def __init__(
        self, settings: IngestSettings, shown: Callable[[str], str] = lambda sensor_id: sensor_id
    ) -> None:
        self._settings = settings
        self._shown = shown
        self._known: set[SeriesName] = set()
        self._per_sensor: dict[str, int] = {}
        # Series of rows that are on their way to the disk, with how many there are of each.
        self._promised: dict[SeriesName, int] = {}
        self._promised_per_sensor: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, names: Iterable[SeriesName]) -> None:
        """Take over series that are stored already; no quota applies to them."""
        for name in names:
            if name not in self._known:
                self._forget_promise(name)
                self._known.add(name)
                self._per_sensor[name[0]] = self._per_sensor.get(name[0], 0) + 1

    def promise(self, names: Iterable[SeriesName]) -> None:
        """Count what ``check`` found new against the quota from now on, though it is not stored yet.

        ``learn`` fulfils a promise, ``release`` takes it back.
        """
        for name in names:
            count = self._promised.get(name, 0)
            self._promised[name] = count + 1
            if not count:
                promised = self._promised_per_sensor
                promised[name[0]] = promised.get(name[0], 0) + 1

    def release(self, names: Iterable[SeriesName]) -> None:
        """Take promises back: rows of these series could not be stored."""
        for name in names:
            count = self._promised.get(name, 0)
            if count > 1:
                self._promised[name] = count - 1
            else:
                self._forget_promise(name)

    def _forget_promise(self, name: SeriesName) -> None:
        if self._promised.pop(name, None) is not None:
            left = self._promised_per_sensor.pop(name[0]) - 1
            if left:
                self._promised_per_sensor[name[0]] = left

    def knows(self, name: SeriesName) -> bool:
        """Whether a series is stored already."""
        return name in self._known

    def by_known_sensor(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts by today's names of sensors; all that are not known under an empty name."""
        known: dict[str, int] = {}
        for sensor_id, count in counts.items():
            name = self._shown(sensor_id)
            if name not in self._per_sensor and sensor_id not in self._per_sensor:
                name = ""
            known[name] = known.get(name, 0) + count
        return known

    def counted_as(self, sensor_id: str) -> str:
        """Return today's name of a sensor that is known, else an empty text."""
        return next(iter(self.by_known_sensor({sensor_id: 1})))

    def check(self, names: Iterable[SeriesName]) -> list[SeriesName]:
        """Return those of ``names`` that are new, or raise SeriesQuotaError. Changes nothing."""
        known, shown = self._known, self._shown
        new = [name for name in names if name not in known]
        if not new:
            return new
        # Only here, because hardly a request gets as far.
        present = dict.fromkeys((shown(sensor_id), metric) for sensor_id, metric in new)
        new = [name for name in present if name not in known]
        settings = self._settings
        added_to = [name for name in new if name not in self._promised]
        if len(self._known) + len(self._promised) + len(added_to) > settings.series_total_max:
            raise SeriesQuotaError(
                f"sensor {new[0][0]!r} would bring the box above "
                f"{settings.series_total_max} series (sensors times metrics)"
            )
        added: dict[str, int] = {}
        for sensor_id, _ in added_to:
            added[sensor_id] = added.get(sensor_id, 0) + 1
            present_ones = self._per_sensor.get(sensor_id, 0)
            promised = self._promised_per_sensor.get(sensor_id, 0)
            if present_ones + promised + added[sensor_id] > settings.series_per_sensor_max:
                raise SeriesQuotaError(
                    f"sensor {sensor_id!r} would have more than "
                    f"{settings.series_per_sensor_max} metrics"
                )
        return new
