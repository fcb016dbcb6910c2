"""The key that lets the owner of the data directory in, made anew at each start."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ocean_core.service.access import OWNER_PREFIX

FILE_NAME: Final = "local.key"


def make_owner_key(random_bytes: Callable[[int], bytes]) -> str:
    """Return a new key of 256 random bits."""
    return OWNER_PREFIX + base64.urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")


def write_local_key(data_dir: Path, key: str) -> None:
    """Put the key where only the owner of the data directory can read it. Raises OSError.

    Not synced: after a power cut the next start writes another one.
    """
    temporary = data_dir / f"{FILE_NAME}.new"
    # A file left behind may have looser permissions than those asked for here.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{key}\n")
    temporary.replace(data_dir / FILE_NAME)
