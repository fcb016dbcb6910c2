"""Entry point: `ocean serve`, `status`, `replay`, `config`, `tls`, `version`, and more."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from typing import Final

import click

from ocean_core import __version__
from ocean_core.cli.hints import hint_of
from ocean_core.model.errors import AlreadyRunningError, ConfigError, OceanError

EXIT_FAILED: Final = 1
EXIT_RUNNING: Final = 75
EXIT_CONFIG: Final = 78


_COMMANDS: Final = {
    "serve": ("ocean_core.cli.serve", "serve_command"),
    "status": ("ocean_core.cli.status", "status_command"),
    "replay": ("ocean_core.cli.replay", "replay_command"),
    "simulate": ("ocean_core.cli.simulate", "simulate_command"),
    "decode": ("ocean_core.cli.decode", "decode_command"),
    "encode": ("ocean_core.cli.encode", "encode_command"),
    "config": ("ocean_core.cli.config_commands", "config_group"),
    "tls": ("ocean_core.cli.tls_commands", "tls_group"),
    "keys": ("ocean_core.cli.keys", "keys_group"),
    "sensors": ("ocean_core.cli.sensors", "sensors_group"),
    "users": ("ocean_core.cli.users", "users_group"),
    "quarantine": ("ocean_core.cli.quarantine", "quarantine_group"),
    "audit": ("ocean_core.cli.records", "audit_command"),
    "ledger": ("ocean_core.cli.records", "ledger_command"),
    "verify": ("ocean_core.cli.verify", "verify_command"),
    "archive": ("ocean_core.cli.archive", "archive_group"),
    "_analytics": ("ocean_core.cli.serve", "analytics_command"),
    "_private": ("ocean_core.cli.private", "private_command"),
}


class _LazyGroup(click.Group):
    """Loads a command's module when the command is asked for: `ocean serve` starts sooner."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help text (click calls this)."""
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name (click calls this)."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ocean")
def cli() -> None:
    """Ocean Core: an edge telemetry appliance in one file.

    Start it with `ocean serve`; sensors then post readings to http://127.0.0.1:8030.

    Metadata, profiles, groups of readers, billing (beyond credits) and sessions are reached over
    HTTP or from Python: while it runs, http://127.0.0.1:8030/ in a browser documents every request.
    """


@cli.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(__version__)


@cli.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(context: click.Context, names: tuple[str, ...]) -> None:
    """Say how a command is used, as its --help does."""
    here = context.parent
    assert here is not None
    command: click.Command = here.command
    for name in names:
        found = command.get_command(here, name) if isinstance(command, click.Group) else None
        if found is None:
            raise click.UsageError(f"No such command {' '.join(names)!r}.", here)
        command, here = found, click.Context(found, info_name=name, parent=here)
    click.echo(command.get_help(here))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 failed, 2 wrong usage, 75 running, 78 configuration."""
    # First of all: the packaged executable may be started as a helper of a library.
    multiprocessing.freeze_support()
    # numpy's linear algebra is not used: its threads would cost 30 ms at each start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        cli.main(args=arguments, prog_name="ocean", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except OceanError as error:
        tell_error(error)
        sys.exit(exit_code_of(error))
    sys.exit(0)


def exit_code_of(error: OceanError) -> int:
    """Return the process exit code for an error."""
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    if isinstance(error, AlreadyRunningError):
        return EXIT_RUNNING
    return EXIT_FAILED


def tell_error(error: OceanError) -> None:
    """Print what happened and what to do next, on standard error."""
    click.echo(f"ocean: {error.title}: {error.detail} ({error.code})", err=True)
    hint = hint_of(error)
    if hint:
        click.echo(f"       {hint}", err=True)
