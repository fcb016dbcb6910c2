"""From typed items to columns, one item after the other. Decides what is accepted.

``columns`` does the same for whole batches of one kind; when in doubt it leaves them to this.
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import UNSET

from ocean_core.model import limits
from ocean_core.model.block import EVENT_METRIC, Events, Readings, SeriesName
from ocean_core.model.errors import BodyTooLargeError, FieldProblem
from ocean_core.model.receipt import CarriedFrame, Intake
from ocean_core.protocol.readings.attribution import NAMES_MAX, UNNAMED
from ocean_core.protocol.readings.contents import Metrics, content_of
from ocean_core.protocol.readings.framed import frame_in
from ocean_core.protocol.readings.names import name_is_good, name_problem
from ocean_core.protocol.readings.shapes import ARRAY_ROWS_MIN, DecodeContext, Item
from ocean_core.protocol.readings.timestamps import TimestampError, resolve
from ocean_core.protocol.readings.wording import RefusedError, found_value, invalid_reading


class Assembler:
    """Gathers the rows of one request, and the problems of the items that it refuses."""

    def __init__(self, context: DecodeContext) -> None:
        self._context = context
        self._series: dict[SeriesName, int] = {}
        self._index: list[int] = []
        self._timestamp: list[int] = []
        self._value: list[float] = []
        self._quality: list[int] = []
        self._event_series: dict[SeriesName, int] = {}
        self._event_index: list[int] = []
        self._event_timestamp: list[int] = []
        self._event_quality: list[int] = []
        self._payload: list[bytes] = []
        self._layout: list[int] = []
        self._good_sensors: set[str] = set()
        self._problems: list[FieldProblem] = []
        self._problems_total = 0
        self._refused_items = 0
        self._refused_items_listed = 0
        self._refused_sensors: dict[str, int] = {}
        self._carried: list[CarriedFrame] = []

    def add(self, item: Item, position: int | None) -> None:
        """Take an item, or note its problems. ``position`` in the batch, None if alone.

        Raises BodyTooLargeError when the request makes more rows than a block may hold, or has
        more frames than may come at once.
        """
        if item.data is not UNSET and self._context.frames and self._is_frame(item, position):
            return
        examined = self.examine(item)
        if isinstance(examined, list):
            self.refuse(examined, position, item.sensor_id)
        else:
            self._add_rows(item.sensor_id, *examined)

    def _is_frame(self, item: Item, position: int | None) -> bool:
        """Set an item apart that is a good one but for the frame in it, which is judged later."""
        if item.value is not UNSET or item.values is not UNSET or item.metric is not UNSET:
            return False
        assert item.data is not UNSET
        frame = frame_in(bytes(item.data))
        if frame is None or not name_is_good(item.sensor_id, limits.SENSOR_ID_BYTES_MAX):
            return False
        if len(self._carried) >= limits.FRAMES_PER_REQUEST_MAX:
            raise BodyTooLargeError(
                f"The request holds more than {limits.FRAMES_PER_REQUEST_MAX} frames.",
                hint="Send smaller batches.",
            )
        self._carried.append(CarriedFrame(position, len(self._layout), item.sensor_id, frame))
        return True

    def examine(self, item: Item) -> tuple[int, int, Metrics | bytes] | list[FieldProblem]:
        """Return (timestamp, quality, content), or every problem of the item."""
        problems: list[FieldProblem] = []
        sensor_id = item.sensor_id
        if sensor_id not in self._good_sensors:
            if name_is_good(sensor_id, limits.SENSOR_ID_BYTES_MAX):
                self._good_sensors.add(sensor_id)
            else:
                problems.append(name_problem("sensor_id", sensor_id, limits.SENSOR_ID_BYTES_MAX))
        moment = quality = 0
        content: Metrics | bytes = b""
        context = self._context
        try:
            moment, quality = resolve(
                item.timestamp, context.arrival_us, clock_trusted=context.clock_trusted
            )
        except TimestampError as error:
            assert item.timestamp is not None
            found = found_value(item.timestamp)
            problems.append(FieldProblem("timestamp", found, str(error)))
        try:
            content = content_of(item, context)
        except RefusedError as error:
            problems.extend(error.problems)
        return problems or (moment, quality, content)

    def _add_rows(
        self, sensor_id: str, moment: int, quality: int, content: Metrics | bytes
    ) -> None:
        if isinstance(content, bytes):
            series = self._event_series
            self._event_index.append(series.setdefault((sensor_id, EVENT_METRIC), len(series)))
            self._event_timestamp.append(moment)
            self._event_quality.append(quality)
            self._payload.append(content)
            self._layout.append(0)
            return
        series = self._series
        for metric, value in content.items():
            self._index.append(series.setdefault((sensor_id, metric), len(series)))
            self._timestamp.append(moment)
            self._value.append(value)
            self._quality.append(quality)
        self._layout.append(len(content))
        if len(self._value) > self._context.rows_max:
            raise BodyTooLargeError(
                f"The request holds more than {self._context.rows_max} readings.",
                hint="Send smaller batches.",
            )

    def refuse(
        self, problems: list[FieldProblem], position: int | None, sensor_id: str = UNNAMED
    ) -> None:
        """Note an item that is not accepted, with its problems; a list of bounded length."""
        self._refused_items += 1
        refused = self._refused_sensors
        if sensor_id not in refused and len(refused) >= NAMES_MAX:
            sensor_id = UNNAMED
        refused[sensor_id] = refused.get(sensor_id, 0) + 1
        self._problems_total += len(problems)
        if len(self._problems) < limits.REJECTS_LISTED_MAX:
            self._refused_items_listed += 1
            self._problems.extend(
                msgspec.structs.replace(problem, item=position)
                for problem in problems[: limits.REJECTS_LISTED_MAX]
            )

    @property
    def has_enough_problems(self) -> bool:
        """Whether more problems would not be listed: a request refused anyhow needs no more."""
        return len(self._problems) >= limits.REJECTS_LISTED_MAX

    def finish(self, *, partial: bool) -> Intake:
        """Return the columns.

        Raises InvalidReadingError when an item was refused and the request is not partial, or
        when no item is good and there is no frame.
        """
        if self._problems and not (partial and (self._layout or self._carried)):
            raise invalid_reading(self._problems, self._problems_total)
        layout = None if self._layout.count(1) == len(self._layout) else tuple(self._layout)
        return Intake(
            self._readings(),
            self._events(),
            len(self._layout),
            layout,
            self._rejects(),
            refused=self._refused_sensors or None,
            carried=tuple(self._carried),
        )

    def _rejects(self) -> tuple[FieldProblem, ...]:
        listed = self._problems[: limits.REJECTS_LISTED_MAX]
        unlisted = self._refused_items - self._refused_items_listed
        if unlisted:
            listed.append(unlisted_items(unlisted))
        return tuple(listed)

    def _readings(self) -> Readings | None:
        if not self._value:
            return None
        series = list(self._series)
        if len(self._value) < ARRAY_ROWS_MIN:
            return Readings(series, self._index, self._timestamp, self._value, self._quality)
        return Readings(
            series,
            np.array(self._index, dtype=np.uint32),
            np.array(self._timestamp, dtype=np.int64),
            np.array(self._value, dtype=np.float64),
            np.array(self._quality, dtype=np.uint8),
        )

    def _events(self) -> Events | None:
        if not self._payload:
            return None
        return Events(
            list(self._event_series),
            self._event_index,
            self._event_timestamp,
            self._event_quality,
            self._payload,
        )


_UNLISTED_EXPECTED = f"only the problems of the first items are listed, {limits.REJECTS_LISTED_MAX}"


def unlisted_items(count: int) -> FieldProblem:
    """Return the entry that ends a list of rejects which could not hold all refused items."""
    return FieldProblem("", f"{count} more refused items", _UNLISTED_EXPECTED)


def rejected_items(rejects: tuple[FieldProblem, ...]) -> int:
    """Return how many items were refused, including those that ``rejects`` no longer lists."""
    listed = {problem.item for problem in rejects if problem.item is not None}
    last = rejects[-1] if rejects else None
    unlisted = int(last.found.split(" ", 1)[0]) if last is not None and last.item is None else 0
    return len(listed) + unlisted
