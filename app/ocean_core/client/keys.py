"""Access keys as files and variables hold them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ocean_core.model.errors import CommandError

KEY_VARIABLE: Final = "OCEAN_KEY"
_KEY_LETTERS_MAX: Final = 256


def read_key(path: Path, warn: Callable[[str], object]) -> str:
    """Return the key in a file; warns if others may read it.

    Raises CommandError if it cannot be read or holds no key.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4 * _KEY_LETTERS_MAX)
    except OSError as error:
        raise CommandError(
            f"{path}: cannot be read: {error.strerror}",
            hint="Name a file whose first line is a key; `ocean keys create` on the box makes one.",
        ) from error
    if mode & 0o077:
        warn(f"{path}: other users may read it (chmod 600)")
    return checked_key(text.strip(), str(path))


def key_of_environment(environment: Mapping[str, str]) -> str:
    """Return the key in OCEAN_KEY, empty if there is none. Raises CommandError if it is none."""
    key = environment.get(KEY_VARIABLE, "").strip()
    return checked_key(key, f"environment variable {KEY_VARIABLE}") if key else ""


def checked_key(key: str, where: str) -> str:
    """Return a key that may go into a header. Raises CommandError if it may not."""
    if not key.isascii() or not key.isprintable() or len(key.split()) != 1:
        raise CommandError(f"{where}: holds no key", hint="A key is one word of ASCII letters.")
    return key
