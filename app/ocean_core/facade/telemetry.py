"""Readings in, and readings for whoever works them off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, Final

import msgspec

from ocean_core.client.http import to_json
from ocean_core.facade.base import API, Json, Moment, Part, given, moment_json, segment
from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidReadingError, OceanError

GROUP: Final = "api"
CHUNK_ITEMS: Final = 1_000
CHUNK_BYTES_MAX: Final = limits.BODY_BYTES_MAX // 4

Reading = Any
"""A number; or what the original called data: text, a dict of numbers, anything that JSON has."""
Item = Mapping[str, Any] | tuple[str, Reading] | tuple[str, Reading, Moment | None]
"""One item: a dict with the fields of docs/ingest-format.md, or (sensor_id, reading[, timestamp])."""


class Telemetry(Part):
    """Everything returns after it is on disk."""

    def ingest(
        self,
        sensor_id: str,
        reading: Reading,
        timestamp: Moment | None = None,
        metric: str | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Json:
        """Store one item; return its ``id``, ``sensor_id``, ``timestamp``.

        ``reading`` is a number, or what the original called data (docs/ingest-format.md says what
        becomes of it; bytes are UTF-8 text). Stored once, also when the connection is lost
        meanwhile. Raises InvalidReadingError naming the field, BufferFullError, RateLimitError and
        other transient errors once ``timeout_s`` is over.
        """
        item = _item(sensor_id, reading, timestamp, metric)
        key = idempotency_key or self._fresh_key()
        return dict(self._post("/telemetry/ingest", item, idempotency_key=key))

    def ingest_many(
        self,
        items: Iterable[Item],
        *,
        partial: bool = False,
        idempotency_prefix: str | None = None,
    ) -> Json:
        """Store any number of items, some thousand at a time; return ``count`` and ``ids``.

        With ``partial`` good items are stored and the others told in ``rejected`` (the first
        hundred of each thousand) and ``rejected_count``; ``item`` counts from 0 over all items.
        Without, the first bad one raises InvalidReadingError: what stood in earlier requests is
        stored, and ``detail`` says how many items that were. With an ``idempotency_prefix`` of your
        own, the same items sent again, by another run too, are stored once.
        """
        prefix = idempotency_prefix or self._fresh_key()
        ids: list[int] = []
        rejected: list[Json] = []
        rejected_count = done = 0
        for number, (size, body) in enumerate(_chunks(items)):
            try:
                answer = self._api.call(
                    "POST",
                    f"{API}/telemetry/batch",
                    query={"partial": True} if partial else None,
                    body=body,
                    idempotency_key=f"{prefix}-{number}",
                )
            except OceanError as error:
                problems = [_moved(problem, done) for problem in msgspec.to_builtins(error.fields)]
                if not (partial and isinstance(error, InvalidReadingError)):
                    raise _placed(error, problems, done) from error
                # Not one item of it is good.
                rejected += problems
                rejected_count += size
            else:
                ids += answer["ids"]
                rejected += [_moved(problem, done) for problem in answer.get("rejected", [])]
                rejected_count += answer.get("rejected_count", 0)
            done += size
        found: Json = {"count": len(ids), "ids": ids}
        return (
            found | {"rejected_count": rejected_count, "rejected": rejected} if partial else found
        )

    def unprocessed(self, group: str = GROUP, limit: int = 1_000) -> list[Json]:
        """Return readings and events that the group has not marked, oldest first; changes nothing.

        Each has id, sensor_id, timestamp, data. At most 10,000 at once.
        """
        answer = self._get("/telemetry/unprocessed", {"group": group, "limit": limit})
        return list(answer["data"])

    def mark_processed(self, ids: Sequence[int], group: str = GROUP) -> int:
        """Mark readings as processed by the group, in any order; return how many were named.

        Raises InvalidInputError for ids that do not exist.
        """
        marked = 0
        for start in range(0, len(ids), limits.MARK_IDS_MAX):
            part = list(ids[start : start + limits.MARK_IDS_MAX])
            answer = self._api.call(
                "POST",
                f"{API}/telemetry/mark-processed",
                query={"group": group},
                body=part,
                repeatable=True,
            )
            marked += answer["processed"]
        return marked

    def groups(self) -> list[Json]:
        """Return the consumer groups of the buffer, and how far each is."""
        return list(self._get("/telemetry/groups")["groups"])

    def forget_group(self, name: str) -> None:
        """Let a group and its marks go; used again it begins with the oldest reading kept.

        Raises UnknownRecordError.
        """
        self._api.call("DELETE", f"{API}/telemetry/groups/{segment(name)}")


def _item(sensor_id: str, reading: Reading, timestamp: Moment | None, metric: str | None) -> Json:
    is_number = isinstance(reading, Real | Decimal) and not isinstance(reading, bool)
    if is_number and not isinstance(reading, int | float):
        # Numbers of numpy, fractions, decimals.
        reading = float(reading)
    if isinstance(reading, bytes):
        try:
            reading = reading.decode()
        except UnicodeDecodeError as error:
            raise InvalidReadingError(f"the bytes are no UTF-8 text: {error.reason}") from error
    return {
        "sensor_id": sensor_id,
        "value" if is_number or metric is not None else "data": reading,
        **given(timestamp=moment_json(timestamp), metric=metric),
    }


def _of(item: Item) -> Json:
    if isinstance(item, tuple):
        return _item(item[0], item[1], item[2] if len(item) > 2 else None, None)
    moment = item.get("timestamp")
    return {**item, "timestamp": moment_json(moment)} if moment is not None else dict(item)


def _chunks(items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
    """Yield numbers of items and their JSON array, bounded in number and bytes."""
    texts: list[bytes] = []
    size = 0
    for item in items:
        text = to_json(_of(item))
        if texts and (len(texts) >= CHUNK_ITEMS or size + len(text) > CHUNK_BYTES_MAX):
            yield len(texts), b"[" + b",".join(texts) + b"]"
            texts, size = [], 0
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield len(texts), b"[" + b",".join(texts) + b"]"


def _moved(problem: Json, by: int) -> Json:
    """Let ``item`` count over all items, not only over those of one request."""
    item = problem.get("item")
    return problem if item is None else {**problem, "item": item + by}


def _placed(error: OceanError, problems: list[Json], done: int) -> OceanError:
    """Return the error as one about all items."""
    before = f" (the {done} items before this request are stored)" if done else ""
    return type(error)(
        error.detail + before,
        hint=error.hint,
        fields=tuple(msgspec.convert(problem, FieldProblem) for problem in problems),
        retry_after_s=error.retry_after_s,
    )
