"""A small HTTP client with one kept-alive connection, for tests."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT_S = 40.0
INGEST = "/api/ocean/telemetry/ingest"
BATCH = "/api/ocean/telemetry/batch"
STATUS = "/api/ocean/status"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def good(self) -> Any:
        """Return the body of a positive answer; anything else fails the test."""
        assert self.status == 200, f"{self.status}: {self.body[:1000]!r}"
        return self.json()

    def problem(self, status: int, code: str) -> Any:
        """Return the problem document, after checking that it is this one and whole."""
        assert self.status == status, f"{self.status}: {self.body[:1000]!r}"
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json()
        assert problem["code"] == code, problem
        assert problem["status"] == status
        assert problem["title"], problem
        assert problem["detail"], problem
        return problem


class ConnectionLostError(Exception):
    """No answer came: nobody knows what became of the request."""


class Http:
    """One connection; after an error the next request makes a new one."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, source: str | None = None) -> None:
        """``source``: the loopback address to come from, for tests of what counts by address."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.url = url
        self._connection = http.client.HTTPConnection(
            parts.hostname,
            parts.port,
            timeout=timeout_s,
            source_address=None if source is None else (source, 0),
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the answer; ConnectionLostError if none came."""
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ConnectionLostError(f"{method} {path}: {error!r}") from error
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, names, content)

    def get(self, path: str, **query: str | float) -> Reply:
        return self.request("GET", path + ("?" + urlencode(query) if query else ""))

    def post(
        self, path: str, body: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send JSON; bytes go as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json", **(headers or {})}
        if key is not None:
            named["Idempotency-Key"] = key
        return self.request("POST", path, content, named)

    def close(self) -> None:
        self._connection.close()


def sensor_path(sensor_id: str, question: str) -> str:
    """Return the address of a question of analytics about a sensor."""
    return f"/api/ocean/analytics/sensor/{quote(sensor_id, safe='')}/{question}"


def events_path(sensor_id: str) -> str:
    return f"/api/ocean/sensors/{quote(sensor_id, safe='')}/events"
