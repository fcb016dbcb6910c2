"""The engine: all parts in one object, over a server or over a data directory."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ocean_core.client.http import ApiClient, FixedServer, ServerSource
from ocean_core.client.keys import checked_key, key_of_environment, read_key
from ocean_core.config import load_settings
from ocean_core.facade.analytics import Analytics
from ocean_core.facade.jobs import Jobs
from ocean_core.facade.original import OriginalNames
from ocean_core.facade.records import Administration, Metadata, Quarantine, SensorRecords
from ocean_core.facade.source import DataDirSource, named_target
from ocean_core.facade.verification import Verification
from ocean_core.model.errors import CommandError
from ocean_core.obs.clock import Clock, SystemClock

URL_VARIABLE: Final = "OCEAN_URL"
TIMEOUT_S: Final = 30.0

_LOG: Final = logging.getLogger("ocean_core")


class DataEngine(
    OriginalNames,
    Metadata,
    SensorRecords,
    Quarantine,
    Administration,
    Analytics,
    Verification,
    Jobs,
):
    """Everything the box offers. For any number of threads; make it with ``get_data_engine``.

    All methods return after the server has answered: what they changed is on disk. They repeat by
    themselves what can be repeated safely, for at most ``timeout_s``, and raise the errors of
    ``ocean_core.model.errors``, each with ``code``, ``detail``, ``hint`` and ``fields``.
    """

    def __init__(
        self,
        source: ServerSource,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Clock | None = None,
        pause: Callable[[float], object] = time.sleep,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        clock = clock if clock is not None else SystemClock()
        super().__init__(
            ApiClient(source, timeout_s=timeout_s, clock=clock, pause=pause), random_bytes
        )
        self._source = source

    def __repr__(self) -> str:
        url = self._api.connected_to
        if isinstance(self._source, DataDirSource):
            # Nobody expects a server to be started for this.
            where = f"{url or 'not connected'}, data directory {self._source.data_dir}"
        else:
            where = url or self._source.target().url
        return f"<{type(self).__name__} {where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of the server; one is started if there is none."""
        return self._api.url()

    def close(self) -> None:
        """Close the connections, and stop the server if it was started for this engine.

        An engine that is used again afterwards opens again.
        """
        self._api.close()
        if isinstance(self._source, DataDirSource):
            self._source.close()


@dataclass(frozen=True, slots=True)
class _Arguments:
    url: str
    data_dir: Path
    key: str
    cacert: Path | None
    timeout_s: float
    pid: int


_engines: dict[_Arguments, DataEngine] = {}
_engines_lock = threading.Lock()


def get_data_engine(
    url: str | None = None,
    *,
    data_dir: str | Path | None = None,
    key: str | None = None,
    key_file: str | Path | None = None,
    cacert: str | Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> DataEngine:
    """Return the engine of a server or of a data directory; the same one for the same arguments.

    ``url`` names a server (``https://gateway:8443``); without it OCEAN_URL does. Without both it is
    the server of ``data_dir`` (default: that of the settings), and if none runs there, one is
    started for as long as the engine is open. ``key``, or what ``key_file`` or OCEAN_KEY holds, is
    sent along; on a data directory of one's own none is needed. ``cacert`` is the PEM file with the
    certificate to trust. ``timeout_s`` bounds each call, repeats included.

    Raises ConfigError, CommandError for arguments that make no sense. Connects when first used.
    """
    if key is not None and key_file is not None:
        raise CommandError("key and key_file are both given", hint="Give one of them.")
    url = url or (os.environ.get(URL_VARIABLE, "") if data_dir is None else "")
    if url and data_dir is not None:
        raise CommandError(
            "url and data_dir are both given",
            hint="A data directory has its own server; for another one give the url alone.",
        )
    arguments = _Arguments(
        url,
        Path() if url else _data_dir(data_dir),
        _key(key, key_file),
        None if cacert is None else Path(cacert).expanduser().absolute(),
        timeout_s,
        # A fork needs connections and a server of its own.
        os.getpid(),
    )
    with _engines_lock:
        engine = _engines.get(arguments)
        if engine is None:
            engine = _engines[arguments] = DataEngine(_source(arguments), timeout_s=timeout_s)
        return engine


def _source(arguments: _Arguments) -> ServerSource:
    if arguments.url:
        return FixedServer(
            named_target(
                arguments.url,
                key=arguments.key,
                cacert=arguments.cacert,
                data_dir=None,
                warn=_LOG.warning,
            )
        )
    return DataDirSource(
        arguments.data_dir,
        clock=SystemClock(),
        pause=time.sleep,
        key=arguments.key,
        cacert=arguments.cacert,
        tell=_LOG.info,
        warn=_LOG.warning,
    )


def _data_dir(data_dir: str | Path | None) -> Path:
    flags = None if data_dir is None else {"data.dir": str(data_dir)}
    settings = load_settings(environment=os.environ, flags=flags).settings
    return Path(settings.data.dir).expanduser().absolute()


def _key(key: str | None, key_file: str | Path | None) -> str:
    if key is not None:
        return checked_key(key, "key")
    if key_file is not None:
        return read_key(Path(key_file).expanduser(), _LOG.warning)
    return key_of_environment(os.environ)
