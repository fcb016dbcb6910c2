"""Finds the server to talk to: one that was named, or that of a data directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from ocean_core.client.connection import Target, is_loopback
from ocean_core.client.keys import read_key
from ocean_core.client.trust import Trust
from ocean_core.model.errors import CommandError, DataDirError, NotRunningError
from ocean_core.obs.clock import Clock
from ocean_core.runtime.local_key import FILE_NAME as LOCAL_KEY_FILE
from ocean_core.runtime.lock import RunInfo, prepare_data_dir
from ocean_core.runtime.private_server import PrivateServer, find_server, open_server
from ocean_core.runtime.tls import default_files, first_certificate


def named_target(
    url: str,
    *,
    key: str,
    cacert: Path | None,
    data_dir: Path | None,
    warn: Callable[[str], object],
) -> Target:
    """Return the target at an address.

    The certificate of a data directory is trusted too, if one was named beside the address.
    Warns of a key that would cross a network unprotected.
    """
    url = url.rstrip("/")
    if key and not url.startswith("https:") and not is_loopback(url):
        warn("without https the key crosses the network unprotected")
    also = default_files(data_dir).cert if data_dir is not None else None
    return Target(url, key, Trust(cacert, also))


class DataDirSource:
    """The server of a data directory; starts one for the duration if none runs, and it may."""

    def __init__(
        self,
        data_dir: Path,
        *,
        clock: Clock,
        pause: Callable[[float], object],
        tell: Callable[[str], object],
        warn: Callable[[str], object],
        key: str = "",
        cacert: Path | None = None,
        config_file: Path | None = None,
        may_start: bool = True,
        may_make: bool = True,
    ) -> None:
        """Take over what is known; ``tell`` hears when a server is started.

        ``may_start``: one is started if none runs, instead of raising NotRunningError.
        ``may_make``: for that a directory is made if need be, instead of raising DataDirError.
        """
        self._data_dir = data_dir.expanduser().absolute()
        self._clock = clock
        self._pause = pause
        self._key = key
        self._cacert = cacert
        self._config_file = config_file
        self._may_start = may_start
        self._may_make = may_make
        self._tell = tell
        self._warn = warn
        self._lock = threading.Lock()
        self._server: PrivateServer | None = None

    @property
    def is_patient(self) -> bool:
        """A server that holds the directory is about to answer, or to go."""
        return True

    @property
    def data_dir(self) -> Path:
        """Whose server it is."""
        return self._data_dir

    def target(self) -> Target:
        """Return the server that runs, or start one.

        Raises DataDirError, ConfigError, AlreadyRunningError, NotRunningError or CommandError.
        """
        with self._lock:
            return self._target(find_server(self._data_dir) or self._start())

    def renewed(self, stale: Target) -> Target:
        """Look again: the key is another after each start, and a server may have gone.

        Where none may be started, the next one is waited for.
        """
        with self._lock:
            found = find_server(self._data_dir)
            if found is None and not self._may_start:
                return stale
            return self._target(found or self._start())

    def close(self) -> None:
        """Stop the server, if it is ours."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _start(self) -> RunInfo | PrivateServer:
        if not self._may_start:
            raise NotRunningError(f"{self._data_dir}: no server runs on this data directory")
        if self._server is not None:
            # It ended, or is about to.
            self._server.stop()
            self._server = None
        if not self._may_make and not self._data_dir.is_dir():
            raise DataDirError(
                f"{self._data_dir}: does not exist, and no server runs there",
                hint="Name the data directory of the box with --data-dir, or its address with --url.",
            )
        prepare_data_dir(self._data_dir)
        found = open_server(
            self._data_dir, clock=self._clock, pause=self._pause, config_file=self._config_file
        )
        if isinstance(found, PrivateServer):
            self._server = found
            self._tell(f"no server runs on {self._data_dir}; started one for this command")
        return found

    def _target(self, found: RunInfo | PrivateServer) -> Target:
        pinned = b""
        if isinstance(found, RunInfo) and found.cert and self._cacert is None:
            try:
                # Only the first one of the file: the others have signed more than this server's.
                pinned = first_certificate(Path(found.cert))
            except (OSError, ValueError) as error:
                told = getattr(error, "strerror", None) or error
                raise CommandError(f"{found.cert}: {told}") from error
        return Target(found.url, self._key or self._local_key(), Trust(self._cacert, None, pinned))

    def _local_key(self) -> str:
        path = self._data_dir / LOCAL_KEY_FILE
        # Other users of this machine may have leave to ask, but not to read it.
        return read_key(path, self._warn) if os.access(path, os.R_OK) else ""
