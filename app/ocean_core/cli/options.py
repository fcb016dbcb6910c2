"""Options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from ocean_core.config import LoadedSettings, load_settings
from ocean_core.model.errors import ListenAddressError, PortError

T = TypeVar("T")

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
)
data_dir_option = click.option("--data-dir", type=str, help="Where everything is kept.")
url_option = click.option(
    "--url", type=str, help="Address of a running server; default: that of the data directory."
)

key_file_option = click.option(
    "--key-file", type=click.Path(path_type=Path),
    help="File with the access key; default: the variable OCEAN_KEY, or what the data directory "
    "has for its owner.",
)  # fmt: skip
cacert_option = click.option(
    "--cacert", type=click.Path(path_type=Path),
    help="PEM file with the certificate to trust when the address is https.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What was typed about the server to talk to. ``cli.engine.opened`` makes an engine of it."""

    url: str | None = None
    data_dir: str | None = None
    config_file: Path | None = None
    key_file: Path | None = None
    cacert: Path | None = None


def connection_options(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options for reaching a server; it gets them as ``connection``."""

    @url_option
    @data_dir_option
    @config_option
    @key_file_option
    @cacert_option
    @functools.wraps(command)
    def with_connection(
        *,
        url: str | None,
        data_dir: str | None,
        config_file: Path | None,
        key_file: Path | None,
        cacert: Path | None,
        **others: object,
    ) -> T:
        connection = ConnectionOptions(url, data_dir, config_file, key_file, cacert)
        return command(connection=connection, **others)

    return with_connection


@contextmanager
def naming_origin(loaded: LoadedSettings) -> Iterator[None]:
    """Let errors about where to listen say where the setting came from."""
    try:
        yield
    except (ListenAddressError, PortError) as error:
        for name, origin in loaded.origin.items():
            # A flag is before the eyes of whoever typed it.
            is_meant = re.search(rf"\b{re.escape(name)}\b", error.detail)
            if is_meant and origin not in {"default", "command line"}:
                error.detail += f" ({name} comes from {origin})"
        raise


def examples(*lines: str) -> str:
    """Return command lines as the epilog of a help text."""
    # \b on a line of its own keeps click from joining the lines.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def settings_from(
    config_file: Path | None, flags: dict[str, object | None] | None = None
) -> LoadedSettings:
    """Return the settings; flags that were not typed are None and do not count."""
    typed = {name: value for name, value in (flags or {}).items() if value is not None}
    return load_settings(config_file=config_file, environment=os.environ, flags=typed)
