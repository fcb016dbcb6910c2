"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ocean_core.config import LoadedSettings, load_settings

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
)
data_dir_option = click.option("--data-dir", type=str, help="Where everything is kept.")
url_option = click.option(
    "--url", type=str, help="Address of a running server; default: that of the data directory."
)


def settings_from(
    config_file: Path | None, flags: dict[str, object | None] | None = None
) -> LoadedSettings:
    """Return the settings; flags that were not typed are None and do not count."""
    typed = {name: value for name, value in (flags or {}).items() if value is not None}
    return load_settings(config_file=config_file, environment=os.environ, flags=typed)
