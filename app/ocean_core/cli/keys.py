"""`ocean keys`: who may send and ask."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, Final

import click

from ocean_core.cli.engine import data_dir_of, opened
from ocean_core.cli.frame_keys import nanogridata_group
from ocean_core.cli.hints import hinting
from ocean_core.cli.options import (
    ConnectionOptions,
    connection_options,
    examples,
    settings_from,
)
from ocean_core.cli.tables import counted, json_option, moment, print_json, print_list
from ocean_core.cli.users import find_user
from ocean_core.client.connection import is_loopback
from ocean_core.facade import DataEngine
from ocean_core.model.access import Scope
from ocean_core.model.errors import ConflictError, UnknownRecordError
from ocean_core.runtime.private_server import find_server
from ocean_core.runtime.tls import default_files, find_files

_SCOPES: Final = tuple(Scope)
_ENDED: Final = frozenset({"revoked", "expired"})
_HOST: Final = "GATEWAY"
"""Stands for a name or address of this machine that others use."""
_WORDS_OF_PATTERN: Final = re.compile(r"\[!?(.)[^\]]*\]|[*?]")


@click.group("keys")
def keys_group() -> None:
    """Make, list and revoke access keys; and the secrets of Nanogridata devices."""


keys_group.add_command(nanogridata_group)


def _scopes(_context: object, _option: object, typed: tuple[str, ...]) -> list[str]:
    scopes = [scope.strip() for part in typed for scope in part.split(",") if scope.strip()]
    for scope in scopes:
        if scope not in _SCOPES:
            raise click.BadParameter(f"{scope!r} is none of {', '.join(_SCOPES)}")
    return list(dict.fromkeys(scopes))


@keys_group.command(
    "create",
    epilog=examples(
        "ocean keys create --name press --scope ingest --sensors 'press-*' --expires 90d",
        "ocean keys create --name dashboard --scope read",
        "ocean keys create --name loader --scope ingest --user ada --rate 500",
    ),
)
@click.option("--name", required=True, help="What or who it is for.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, metavar="S[,S]", callback=_scopes,
    help="What it allows: ingest (send readings), read (ask), admin (everything).",
)  # fmt: skip
@click.option("--sensors", metavar="PATTERN", help="Only these sensors, for example 'press-*'.")
@click.option("--rate", type=click.IntRange(min=1), help="Most readings per second.")
@click.option("--expires", metavar="WHEN", help="After 90d, 12h, … or at an ISO 8601 moment.")
@click.option("--user", metavar="ID|USERNAME", help="User whose account pays for its readings.")
@json_option
@connection_options
def create_command(
    *,
    name: str,
    scopes: list[str],
    sensors: str | None,
    rate: int | None,
    expires: str | None,
    user: str | None,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Make a key. It is shown once, and stored only as a hash."""
    with opened(connection, may_make=True) as engine:
        payer = None if user is None else find_user(engine, user)
        with hinting(
            ConflictError,
            f"Choose another name, or revoke that key: ocean keys revoke {shlex.quote(name)}",
        ):
            made = engine.create_key(
                name,
                scopes,
                sensors=sensors,
                rate=rate,
                expires=expires,
                user_id=None if payer is None else payer["id"],
            )
    if as_json:
        print_json(made)
        return
    click.echo(f"key {made['id']} ({name}):")
    click.echo(f"\n{made['key']}\n")
    click.echo("\n".join(_limits(made, None if payer is None else payer["username"])))
    click.echo("It is not shown again. To use it:")
    click.echo(f"  {curl_line(made, *_server_of(connection))}")
    cert = _unused_certificate(connection)
    if cert is not None:
        click.echo(
            "From other machines, with a copy of that file, once `ocean serve --network` runs:"
        )
        click.echo(f"  {curl_line(made, f'https://{_HOST}:{_port_of(connection)}', cert)}")


@keys_group.command("list")
@click.option("--all", "shows_all", is_flag=True, help="Also revoked and expired ones.")
@json_option
@connection_options
def list_command(*, shows_all: bool, connection: ConnectionOptions, as_json: bool) -> None:
    """List keys that are neither revoked nor expired, without the keys themselves."""
    with opened(connection) as engine:
        found = engine.list_keys()
        keys = [key for key in found if shows_all or key["status"] not in _ENDED]
        payers = {user_id: _username(engine, user_id) for user_id in _payers(keys, as_json)}
    hidden = len(found) - len(keys)
    print_list(
        keys,
        {
            "NAME": lambda key: key["name"],
            "SCOPES": lambda key: ",".join(key["scopes"]),
            "SENSORS": lambda key: key["sensors"] or "all",
            "RATE": lambda key: "any" if key["rate"] is None else f"{key['rate']:,}/s",
            "USER": lambda key: payers[key["user_id"]],
            "STATUS": lambda key: key["status"],
            "CREATED": lambda key: moment(key["created_at"]),
            "LAST USED": lambda key: moment(key["last_used_at"]) or "never",
            "EXPIRES": lambda key: moment(key["expires_at"]) or "never",
            "ID": lambda key: key["id"],
        },
        empty="There are no keys that count: programs on this machine need none, others cannot "
        "get in.",
        as_json=as_json,
    )
    if hidden and not as_json:
        click.echo(
            f"ocean: {counted(hidden, 'revoked or expired key')} not shown; --all shows them too",
            err=True,
        )


@keys_group.command("revoke")
@click.argument("key", metavar="ID|NAME")
@json_option
@connection_options
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


def _limits(made: dict[str, Any], payer: str | None) -> list[str]:
    """Return what a new key may do, and for how long."""
    rate = "any rate" if made["rate"] is None else f"at most {made['rate']:,} readings/s"
    return [
        f"scopes   {', '.join(made['scopes'])}",
        f"sensors  {made['sensors'] or 'all'}",
        f"rate     {rate}",
        f"user     {payer or 'none: nobody pays'}",
        f"expires  {moment(made['expires_at']) or 'never'}",
    ]


def _payers(keys: list[dict[str, Any]], as_json: bool) -> set[str | None]:
    """Return the ids of users whose names a table needs."""
    return set() if as_json else {key["user_id"] for key in keys}


def _username(engine: DataEngine, user_id: str | None) -> str | None:
    return None if user_id is None else str(engine.get_user(user_id)["username"])


def _port_of(connection: ConnectionOptions) -> int:
    found = settings_from(connection.config_file, {"data.dir": connection.data_dir})
    return found.settings.network.port or 8443


def _unused_certificate(connection: ConnectionOptions) -> Path | None:
    """Return the certificate of a box that serves only itself, but could serve the network."""
    if connection.url is not None:
        return None
    data_dir = data_dir_of(connection)
    info = find_server(data_dir)
    cert = default_files(data_dir).cert
    if (
        info is None
        or info.network_url
        or not is_loopback(info.url)
        or not os.access(cert, os.R_OK)
    ):
        return None
    return None if info.url.startswith("https:") else cert


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
