"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from ocean_core.model.errors import CommandError

password_file_option: Final = click.option(
    "--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the password.",
)  # fmt: skip


def is_interactive() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty()


def asked_password() -> str:
    """Return a password typed twice, without showing it. Wrong usage if nobody can type."""
    if not is_interactive():
        raise click.UsageError("no terminal to ask at; use --password-file")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def first_line(file: Path) -> str:
    """Return the first line of a file. Raises CommandError if it cannot be read."""
    try:
        with file.open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: cannot be read: {error}") from error
