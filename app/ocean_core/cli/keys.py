"""`ocean keys`: who may send and ask."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import click

from ocean_core.cli.engine import data_dir_of, opened
from ocean_core.cli.options import ConnectionOptions, connection_options, settings_from
from ocean_core.cli.tables import json_option, print_json, print_list
from ocean_core.facade import DataEngine
from ocean_core.model.access import Scope
from ocean_core.model.errors import UnknownRecordError
from ocean_core.runtime.private_server import find_server
from ocean_core.runtime.tls import find_files

_SCOPES: Final = tuple(Scope)
_WORDS_OF_PATTERN: Final = re.compile(r"\[!?(.)[^\]]*\]|[*?]")


@click.group("keys")
def keys_group() -> None:
    """Make, list and revoke access keys."""


def _scopes(_context: object, _option: object, typed: tuple[str, ...]) -> list[str]:
    scopes = [scope.strip() for part in typed for scope in part.split(",") if scope.strip()]
    for scope in scopes:
        if scope not in _SCOPES:
            raise click.BadParameter(f"{scope!r} is none of {', '.join(_SCOPES)}")
    return list(dict.fromkeys(scopes))


@keys_group.command("create")
@click.option("--name", required=True, help="What or who it is for.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, metavar="S[,S]", callback=_scopes,
    help="What it allows: ingest (send readings), read (ask), admin (everything).",
)  # fmt: skip
@click.option("--sensors", metavar="PATTERN", help="Only these sensors, for example 'press-*'.")
@click.option("--rate", type=click.IntRange(min=1), help="Most readings per second.")
@click.option("--expires", metavar="WHEN", help="After 90d, 12h, … or at an ISO 8601 moment.")
@click.option("--user", "user_id", metavar="ID", help="User whose account pays for its readings.")
@connection_options
@json_option
def create_command(
    *,
    name: str,
    scopes: list[str],
    sensors: str | None,
    rate: int | None,
    expires: str | None,
    user_id: str | None,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Make a key. It is shown once, and stored only as a hash."""
    with opened(connection, may_make=True) as engine:
        made = engine.create_key(
            name, scopes, sensors=sensors, rate=rate, expires=expires, user_id=user_id
        )
    if as_json:
        print_json(made)
        return
    until = f", until {made['expires_at']}" if made["expires_at"] else ""
    click.echo(f"key {made['id']} ({name}) for {', '.join(made['scopes'])}{until}:")
    click.echo(f"\n{made['key']}\n")
    click.echo("It is not shown again. To use it:")
    click.echo(f"  {curl_line(made, *_server_of(connection))}")


@keys_group.command("list")
@connection_options
@json_option
def list_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """List all keys, without the keys themselves."""
    with opened(connection) as engine:
        keys = engine.list_keys()
    print_list(
        keys,
        {
            "NAME": lambda key: key["name"],
            "SCOPES": lambda key: ",".join(key["scopes"]),
            "SENSORS": lambda key: key["sensors"] or "all",
            "STATUS": lambda key: key["status"],
            "LAST USED": lambda key: key["last_used_at"] or "never",
            "EXPIRES": lambda key: key["expires_at"] or "never",
            "ID": lambda key: key["id"],
        },
        empty="There are no keys: programs on this machine need none, others cannot get in.",
        as_json=as_json,
    )


@keys_group.command("revoke")
@click.argument("key", metavar="ID|NAME")
@connection_options
@json_option
def revoke_command(*, key: str, connection: ConnectionOptions, as_json: bool) -> None:
    """Let a key count no longer, from this moment on."""
    with opened(connection) as engine:
        found = _find(engine, key)
        engine.revoke_key(found["id"])
    if as_json:
        print_json({"id": found["id"], "name": found["name"], "revoked": True})
        return
    click.echo(f"key {found['id']} ({found['name']}) is revoked")


def curl_line(key: dict[str, Any], url: str, cacert: Path | None) -> str:
    """Return a command line that uses a key for something it allows."""
    trust = "" if cacert is None else f" --cacert {shlex.quote(str(cacert))}"
    head = f"curl{trust} -H 'Authorization: Bearer {key['key']}'"
    if Scope.READ in key["scopes"] or Scope.ADMIN in key["scopes"]:
        return f"{head} {url}/api/ocean/sensors"
    body = json.dumps({"sensor_id": _example_of(key["sensors"]), "value": 21.5})
    return (
        f"{head} -H 'Content-Type: application/json' -d {shlex.quote(body)} "
        f"{url}/api/ocean/telemetry/ingest"
    )


def _example_of(pattern: str | None) -> str:
    """Return a sensor id that a pattern lets through."""
    return _WORDS_OF_PATTERN.sub(lambda found: found[1] or "1", pattern or "press-01")


def _find(engine: DataEngine, wanted: str) -> dict[str, Any]:
    keys = engine.list_keys()
    by_id = [key for key in keys if key["id"] == wanted]
    # A name may have been used before by keys that count no longer.
    by_name = [key for key in keys if key["name"] == wanted]
    for key in by_id or sorted(by_name, key=lambda key: key["status"] != "active"):
        return key
    raise UnknownRecordError(
        f"there is no key {wanted!r}", hint="`ocean keys list` shows names and ids."
    )


def _server_of(connection: ConnectionOptions) -> tuple[str, Path | None]:
    """Return where a key will be used, as far as one can tell, and the certificate to trust."""
    if connection.url is not None:
        return connection.url.rstrip("/"), connection.cacert
    data_dir = data_dir_of(connection)
    settings = settings_from(connection.config_file, {"data.dir": connection.data_dir}).settings
    files = find_files(settings.network, data_dir)
    cert = files.cert if files is not None else None
    info = find_server(data_dir)
    if info is not None:
        return (info.network_url, cert) if info.network_url else (info.url, None)
    if cert is None and not settings.network.host:
        return f"http://127.0.0.1:{settings.server.port}", None
    # Whoever has a certificate is about to serve the network.
    from ocean_core.runtime.addresses import own_addresses

    host = next(iter(own_addresses()), "127.0.0.1")
    host = f"[{host}]" if ":" in host else host
    scheme = "http" if cert is None else "https"
    return f"{scheme}://{host}:{settings.network.port}", cert
