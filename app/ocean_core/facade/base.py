"""What all parts of the engine share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from ocean_core.client.http import ApiClient
from ocean_core.model import limits

API: Final = "/api/ocean"
LISTED: Final = 1_000
"""How many entries the lists return unless told otherwise."""

Moment = dt.datetime | str | float
"""A point in time: datetime (without a zone: UTC), ISO 8601 text, or an epoch number."""

Json = dict[str, Any]


class Part:
    """Methods of one kind; ``DataEngine`` puts them together."""

    def __init__(self, api: ApiClient, random_bytes: Callable[[int], bytes]) -> None:
        self._api = api
        self._random_bytes = random_bytes

    def _get(self, path: str, query: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - JSON
        return self._api.call("GET", API + path, query=query)

    def _post(
        self,
        path: str,
        body: object,
        *,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> Any:  # noqa: ANN401 - JSON
        """Post JSON; ``repeatable`` says that doing it twice is as good as once."""
        return self._api.call(
            "POST",
            API + path,
            body=body,
            idempotency_key=idempotency_key,
            repeatable=repeatable or idempotency_key is not None,
        )

    def _fresh_key(self) -> str:
        return self._random_bytes(16).hex()

    def _list(
        self, path: str, field: str, limit: int, query: Mapping[str, object] | None = None
    ) -> list[Json]:
        """Return up to ``limit`` entries, page by page."""
        entries: list[Json] = []
        after: str | None = None
        while len(entries) < limit:
            size = min(limits.RECORDS_PAGE_MAX, limit - len(entries))
            page = self._get(path, {**(query or {}), "limit": size, "after": after})
            entries += page[field]
            after = page["next"]
            if after is None:
                break
        return entries


def segment(name: str) -> str:
    """Return a name as one segment of an address; slashes in it stay part of the name."""
    return quote(name, safe="")


def moment_json(moment: Moment | None) -> str | float | None:
    """Return a moment as the API takes it."""
    return moment.isoformat() if isinstance(moment, dt.date) else moment


def given(**fields: object) -> Json:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
