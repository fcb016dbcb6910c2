"""Entry point: `ocean serve`, `status`, `replay`, `config`, `version`."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Final

import click

from ocean_core import __version__
from ocean_core.cli.config_commands import config_group
from ocean_core.cli.replay import replay_command
from ocean_core.cli.serve import analytics_command, serve_command
from ocean_core.cli.status import status_command
from ocean_core.model.errors import AlreadyRunningError, ConfigError, OceanError

EXIT_FAILED: Final = 1
EXIT_RUNNING: Final = 75
EXIT_CONFIG: Final = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ocean")
def cli() -> None:
    """Ocean Core: an edge telemetry appliance in one file.

    Start it with `ocean serve`; sensors then post readings to http://127.0.0.1:8030.
    """


@cli.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(__version__)


for _command in (serve_command, status_command, replay_command, config_group, analytics_command):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 failed, 2 wrong usage, 75 running, 78 configuration."""
    # First of all: the packaged executable may be started as a helper of a library.
    multiprocessing.freeze_support()
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
    if error.hint:
        click.echo(f"       {error.hint}", err=True)
