"""`ocean tls self-signed` and `ocean tls show`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Final

import click

from ocean_core.cli.options import config_option, data_dir_option, examples, settings_from
from ocean_core.config.settings import Settings
from ocean_core.model.errors import TlsError
from ocean_core.obs.clock import SystemClock, iso_utc
from ocean_core.runtime.lock import prepare_data_dir
from ocean_core.runtime.tls import (
    TlsFiles,
    default_files,
    describe_certificate,
    find_files,
    fingerprint,
    server_context,
    validity_problem,
)

DAYS_DEFAULT: Final = 825
"""The most that some clients accept."""
DAYS_MAX: Final = 3650


@click.group("tls")
def tls_group() -> None:
    """Make and look at the certificate for other machines."""


@tls_group.command(
    "self-signed",
    epilog=examples(
        "ocean tls self-signed",
        "ocean tls self-signed --name gateway.plant.example --name 192.168.1.20",
    ),
)
@data_dir_option
@config_option
@click.option(
    "--name", "names", multiple=True, metavar="NAME",
    help="Further name or IP address that clients use for this machine; may be repeated.",
)  # fmt: skip
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=DAYS_DEFAULT,
    show_default=True,
    help="Days it is valid.",
)
@click.option("--force", is_flag=True, help="Replace the certificate that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def self_signed_command(
    *,
    data_dir: str | None,
    config_file: Path | None,
    names: tuple[str, ...],
    days: int,
    force: bool,
    as_json: bool,
) -> None:
    """Make a certificate and its key in the data directory.

    It names localhost, this machine's names and addresses, and those given. Clients have to know it:
    copy cert.pem (never key.pem) to them. A running server takes a replaced certificate over by itself.
    """
    # The library takes a quarter of a second to load.
    from ocean_core.runtime.certificate import make_self_signed, own_names

    settings = settings_from(config_file, {"data.dir": data_dir}).settings
    files = default_files(prepare_data_dir(Path(settings.data.dir)))
    made = make_self_signed(
        files, [*own_names(), *names], days, SystemClock().now_us(), replace=force
    )
    if made.clock_is_wrong:
        click.echo(
            f"ocean: this machine's clock says {iso_utc(SystemClock().now_us())}, which cannot be "
            f"right; the certificate counts from {made.not_before:%Y-%m-%d}",
            err=True,
        )
    facts = _facts(files)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo("\n".join([*_lines(facts), "", *_next_steps(files, settings, names)]))


@tls_group.command("show")
@data_dir_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_command(*, data_dir: str | None, config_file: Path | None, as_json: bool) -> None:
    """Print the certificate that `ocean serve` would use, after checking that it can."""
    settings = settings_from(config_file, {"data.dir": data_dir}).settings
    folder = Path(settings.data.dir).expanduser().absolute()
    files = find_files(settings.network, folder)
    if files is None:
        raise TlsError(f"{default_files(folder).cert.parent}: there is no certificate")
    server_context(files)
    facts = _facts(files)
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


def _facts(files: TlsFiles) -> dict[str, Any]:
    info = describe_certificate(files.cert)
    return {
        "cert": str(files.cert),
        "key": str(files.key),
        "subject": info.subject,
        "names": info.names,
        "not_before": iso_utc(info.not_before_us),
        "not_after": iso_utc(info.not_after_us),
        "sha256": fingerprint(files.cert),
        "problem": validity_problem(info, SystemClock().now_us()),
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"certificate  {facts['cert']}   (copy this one to clients)",
        f"key          {facts['key']}   (keep this one secret)",
        f"subject      {facts['subject']}",
        f"names        {', '.join(facts['names'])}",
        f"valid        {facts['not_before']} to {facts['not_after']}",
        f"SHA-256      {facts['sha256']}",
    ]
    if facts["problem"]:
        lines.append(f"! {facts['problem']}")
    return lines


def _next_steps(files: TlsFiles, settings: Settings, names: tuple[str, ...]) -> list[str]:
    from ocean_core.runtime.addresses import own_addresses

    where = shlex.quote(settings.data.dir)
    port = settings.network.port
    host = next(iter([*names, *own_addresses()]), "127.0.0.1")
    host = f"[{host}]" if ":" in host else host
    return [
        "Next, on this machine:",
        f"  ocean keys create --name NAME --scope ingest --data-dir {where}",
        f"  ocean serve --network --data-dir {where}",
        "and to try it, here or on another machine that has a copy of cert.pem:",
        f"  curl --cacert {shlex.quote(str(files.cert))} https://{host}:{port}/health",
    ]
