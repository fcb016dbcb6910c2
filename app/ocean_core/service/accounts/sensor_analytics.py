"""What analytics do for the records of sensors: tell what they know, follow rules about names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from ocean_core.model.errors import (
    AnalyticsUnavailableError,
    QueriesFullError,
    QueryTimeoutError,
)
from ocean_core.model.naming import NameRule
from ocean_core.service.analytics_link import AnalyticsLink

ANALYTICS_AWAY: Final = (AnalyticsUnavailableError, QueryTimeoutError, QueriesFullError)
"""Errors that say nothing about a question but that there is no answer now."""

_FOLLOW_S: Final = 10.0


class SensorAnalytics(Protocol):
    """Analytics, as the records of sensors need them. Methods raise ``ANALYTICS_AWAY``."""

    @property
    def head_id(self) -> int:
        """Id of the last reading acknowledged so far."""
        ...

    @property
    def epoch(self) -> str:
        """Epoch of the journal whose ids are meant, empty while that is not known."""
        ...

    async def sync_rules(self, rules: list[NameRule]) -> dict[int, int]:
        """Make these all the rules there are, and wait until each is applied.

        Return how many readings and events each rule that forgets has made vanish, the same each
        time; rules that took nothing may be missing. If it raises, the rules are followed later.
        """
        ...

    async def describe(self, sensor_id: str, *, wait: bool = False) -> dict[str, Any] | None:
        """Return what the list of sensors says about one, None if it never sent anything.

        ``sensor_id`` is its name of today. With ``wait`` everything acknowledged so far counts.
        """
        ...


class LinkedAnalytics:
    """SensorAnalytics over the line to the analytics process."""

    def __init__(
        self, link: AnalyticsLink, head_id: Callable[[], int], epoch: Callable[[], str]
    ) -> None:
        self._link = link
        self._head_id = head_id
        self._epoch = epoch

    @property
    def head_id(self) -> int:
        """Id of the last reading acknowledged so far."""
        return self._head_id()

    @property
    def epoch(self) -> str:
        """Epoch of the journal, empty before it was open."""
        return self._epoch()

    async def sync_rules(self, rules: list[NameRule]) -> dict[int, int]:
        """Hand the rules over and wait a while until they are applied."""
        return await self._link.sync_rules(rules, _FOLLOW_S)

    async def describe(self, sensor_id: str, *, wait: bool = False) -> dict[str, Any] | None:
        """Ask for the list of sensors; of all that begin with an id it is itself the first."""
        body = await self._link.query("sensors", {"prefix": sensor_id, "limit": 1}, wait=wait)
        found: list[dict[str, Any]] = msgspec.json.decode(body)["sensors"]
        return found[0] if found and found[0]["sensor_id"] == sensor_id else None
