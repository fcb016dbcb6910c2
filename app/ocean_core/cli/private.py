"""The hidden command that is a server for the duration (see ``runtime.private_server``)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ocean_core.cli.options import settings_from


@click.command("_private", hidden=True)
@click.option("--data-dir", type=str, required=True)
@click.option("--config", "config_file", type=click.Path(path_type=Path))
def private_command(data_dir: str, config_file: Path | None) -> None:
    """Serve this machine until standard input closes (started by other commands)."""
    from ocean_core.runtime.private_server import end_with_standard_input

    loaded = settings_from(
        config_file,
        {
            "data.dir": data_dir,
            "server.host": "127.0.0.1",
            "server.port": 0,
            "network.host": "",
            # Devices have nothing to look for in a server that ends with a command.
            "nanogridata.tcp": False,
            "nanogridata.udp": False,
        },
    )
    end_with_standard_input()
    from ocean_core.runtime.ingest_process import serve

    sys.exit(serve(loaded.settings))
