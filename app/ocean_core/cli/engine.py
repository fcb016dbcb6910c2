"""Which server a command talks to, with which key: the options made into an engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ocean_core.cli.hints import HINTS
from ocean_core.cli.options import ConnectionOptions, settings_from
from ocean_core.client.http import FixedServer, ServerSource
from ocean_core.client.keys import KEY_VARIABLE, key_of_environment, read_key
from ocean_core.facade import DataEngine
from ocean_core.facade.engine import TIMEOUT_S
from ocean_core.facade.source import DataDirSource, named_target
from ocean_core.model.errors import UnauthenticatedError
from ocean_core.obs.clock import SystemClock


@contextmanager
def opened(
    connection: ConnectionOptions,
    *,
    may_start: bool = True,
    may_make: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[DataEngine]:
    """Give the engine of the server typed, or of the data directory.

    ``may_start``: if none runs there, one is started for the duration. ``may_make``: for that, a
    data directory is made. ``timeout_s`` bounds each call, repeats included. Raises OceanError.
    """
    source = source_of(connection, may_start=may_start, may_make=may_make)
    with DataEngine(source, timeout_s=timeout_s) as engine:
        try:
            yield engine
        except UnauthenticatedError as error:
            error.hint = _key_hint(connection)
            raise


def _key_hint(connection: ConnectionOptions) -> str:
    """Return what to do about a key that was refused, or missing."""
    where = "here" if connection.url is None else "there"
    if connection.key_file is not None:
        return f"The key in {connection.key_file} is not valid {where}: it may have expired or been revoked."
    if os.environ.get(KEY_VARIABLE):
        other = (
            "unset it to use the owner's"
            if connection.url is None
            else "name another one with --key-file FILE"
        )
        return f"The key in {KEY_VARIABLE} is not valid {where}; {other}."
    return HINTS[UnauthenticatedError.code]


def data_dir_of(connection: ConnectionOptions) -> Path:
    """Return the data directory that the options and settings mean."""
    settings = settings_from(connection.config_file, {"data.dir": connection.data_dir}).settings
    return Path(settings.data.dir).expanduser().absolute()


def source_of(
    connection: ConnectionOptions, *, may_start: bool, may_make: bool = False
) -> ServerSource:
    """Return what knows the server; whoever lets it start one closes it."""
    key = (
        key_of_environment(os.environ)
        if connection.key_file is None
        else read_key(connection.key_file, _warn)
    )
    data_dir = data_dir_of(connection)
    if connection.url is not None:
        return FixedServer(
            named_target(
                connection.url,
                key=key,
                cacert=connection.cacert,
                # Of a directory that was not typed nobody said that it has to do with that server.
                data_dir=data_dir if connection.data_dir is not None else None,
                warn=_warn,
            )
        )
    return DataDirSource(
        data_dir,
        clock=SystemClock(),
        pause=time.sleep,
        tell=_tell,
        warn=_warn,
        key=key,
        cacert=connection.cacert,
        config_file=connection.config_file,
        may_start=may_start,
        may_make=may_make,
    )


def _tell(text: str) -> None:
    click.echo(f"ocean: {text}", err=True)


def _warn(text: str) -> None:
    click.echo(f"ocean: warning: {text}", err=True)
