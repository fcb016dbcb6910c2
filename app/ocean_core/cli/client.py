"""Talks to a running server over HTTP, for the commands that need one."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ocean_core.model.errors import CommandError, NotRunningError, OceanError
from ocean_core.runtime.lock import read_run_info

TIMEOUT_S = 30


def server_url(url: str | None, data_dir: str) -> str:
    """Return the address typed, or the one that run.json of the data directory names.

    Raises NotRunningError if there is neither.
    """
    if url is not None:
        return url.rstrip("/")
    info = read_run_info(Path(data_dir).expanduser())
    if info is None:
        raise NotRunningError(f"{data_dir}: no server runs on this data directory")
    return info.url


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        """Prepare a connection to ``http://host:port``.

        Raises CommandError if the address is not of that form.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise CommandError(f"--url {url!r}", hint="Use the form http://127.0.0.1:8030.")
        self._url = url
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=TIMEOUT_S
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and decoded JSON of an answer.

        Raises NotRunningError if nobody answers.
        """
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NotRunningError(f"{self._url}: {_told(error)}") from error
        names = {name.lower(): value for name, value in answer.getheaders()}
        try:
            return answer.status, names, json.loads(text)
        except ValueError:
            return answer.status, names, text.decode("utf-8", "replace")

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON at a path; raises CommandError when the server refuses."""
        status, _, body = self.request("GET", path)
        if status != 200:
            raise refusal(status, body)
        return body


def refusal(status: int, body: object) -> OceanError:
    """Return the error that a problem document stands for."""
    if isinstance(body, dict) and "detail" in body:
        first = next(iter(body.get("errors", [])), None)
        where = f" [{first['field']}: expected {first['expected']}]" if first else ""
        return CommandError(
            f"the server refused: {body['detail']}{where}", hint=str(body.get("hint", ""))
        )
    return CommandError(f"the server answered {status}: {str(body)[:200]}")


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
