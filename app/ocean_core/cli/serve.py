"""`ocean serve`, and the hidden command that is the analytics process."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ocean_core.cli.options import config_option, data_dir_option, naming_origin, settings_from


@click.command("serve")
@click.option("--host", type=str, help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (default 8030; 0 = any free one).")
@click.option("--network", is_flag=True, help="Serve other machines too, with TLS and keys.")
@click.option("--network-host", type=str, help="Address for other machines (0.0.0.0 = all).")
@click.option("--network-port", type=int, help="Port for other machines (default 8443).")
@data_dir_option
@config_option
def serve_command(
    *,
    host: str | None,
    port: int | None,
    network: bool,
    network_host: str | None,
    network_port: int | None,
    data_dir: str | None,
    config_file: Path | None,
) -> None:
    """Take readings, keep them safe, answer questions about them."""
    flags: dict[str, object | None] = {
        "server.host": host,
        "server.port": port,
        "network.host": network_host,
        "network.port": network_port,
        "data.dir": data_dir,
    }
    loaded = settings_from(config_file, flags)
    if network and not loaded.settings.network.host:
        loaded = settings_from(config_file, {**flags, "network.host": "0.0.0.0"})
    # Only the server needs what this loads; other commands start faster without.
    from ocean_core.runtime.ingest_process import serve

    with naming_origin(loaded):
        sys.exit(serve(loaded.settings))


@click.command("_analytics", hidden=True)
@click.option("--socket", "descriptor", type=int, required=True)
@click.option("--parent", type=int, required=True)
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--settings", "settings_json", type=str, required=True)
@click.option("--scrub", is_flag=True)
def analytics_command(
    *, descriptor: int, parent: int, data_dir: Path, settings_json: str, scrub: bool
) -> None:
    """Be the analytics process of a server (started by it)."""
    from ocean_core.runtime.analytics_process import run_analytics

    sys.exit(run_analytics(descriptor, parent, data_dir, settings_json, scrub=scrub))
