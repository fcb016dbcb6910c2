"""``nanogridata.keys`` in the data directory: the secrets that `ocean keys nanogridata` keeps.

JSON, for its owner alone (mode 0600), replaced as a whole: whoever reads it sees the old file or the
new one. Commands take turns by a lock beside it; the server only reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import CommandError, SecretError
from ocean_core.obs.clock import iso_utc
from ocean_core.service.frames.secret_source import (
    Place,
    check_place,
    model_text,
    parse_hex,
    read_model,
)

FILE_NAME: Final = "nanogridata.keys"
LOCK_NAME: Final = "nanogridata.keys.lock"
FORMAT: Final = 1
_FILE_BYTES_MAX: Final = 4 * limits.MIB
_LOCK_TRIES: Final = 200
_LOCK_EVERY_S: Final = 0.05
_REMEDY: Final = (
    "Put a copy of it back; or move it away and add the secrets anew with "
    "`ocean keys nanogridata add`."
)


class Entry(msgspec.Struct, frozen=True):
    """One secret of the file.

    ``number`` counts the secrets that a place has had. ``until_us``: when it counts no longer,
    microseconds since 1970 UTC, None for the present one.
    """

    place: Place
    number: int
    secret: bytes
    created_us: int
    until_us: int | None = None

    def __repr__(self) -> str:
        """Tell what it is for, not what it is."""
        return f"Entry({self.name})"

    @property
    def name(self) -> str:
        """How people call it, such as ``0x10/line-3#2``."""
        return f"{self.place}#{self.number}"

    def counts(self, now_us: int) -> bool:
        """Whether frames may be signed with it at this time."""
        return self.until_us is None or now_us < self.until_us


class _Written(msgspec.Struct):
    """An entry as it stands in the file; times are microseconds, beside them for people."""

    model: str
    number: int
    secret: str
    created_us: int
    group: str = ""
    sensors: str = ""
    created: str = ""
    until_us: int | None = None
    until: str | None = None


class _File(msgspec.Struct):
    format: int
    secrets: list[_Written]


def read_entries(path: Path) -> list[Entry]:
    """Return what a key file holds, nothing if there is none. Raises SecretError."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SecretError(
            f"{path}: cannot be read: {error.strerror}",
            hint="It belongs to the user that runs the server; run the command as that one.",
        ) from None
    try:
        written = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # Neither repeats what stands there, only where.
        reason = "no valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise SecretError(f"{path}: is damaged: {reason}", hint=_REMEDY) from None
    if written.format != FORMAT:
        raise SecretError(
            f"{path}: has format {written.format}, this version reads {FORMAT}",
            hint="It was written by another version of ocean; use that one.",
        )
    entries = [
        _read(entry, f"{path}: secret {number}") for number, entry in enumerate(written.secrets, 1)
    ]
    if len({(entry.place[:2], entry.number) for entry in entries}) < len(entries):
        raise SecretError(f"{path}: is damaged: two secrets have the same name", hint=_REMEDY)
    return entries


def _read(written: _Written, where: str) -> Entry:
    try:
        model_id = read_model(written.model, where)
        place = check_place(Place(model_id, written.group, written.sensors), where)
        secret = parse_hex(written.secret.encode(), where)
    except SecretError as error:
        error.hint = _REMEDY
        raise
    return Entry(place, written.number, secret, written.created_us, written.until_us)


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Replace a key file as a whole, durably once its directory is synced.

    Raises OSError; then the old one is still there.
    """
    written = [
        _Written(
            model_text(entry.place.model_id),
            entry.number,
            entry.secret.hex(),
            entry.created_us,
            entry.place.group,
            entry.place.sensors,
            iso_utc(entry.created_us),
            entry.until_us,
            None if entry.until_us is None else iso_utc(entry.until_us),
        )
        for entry in entries
    ]
    content = msgspec.json.format(msgspec.json.encode(_File(FORMAT, written))) + b"\n"
    temporary = path.with_name(path.name + ".new")
    # One left behind may have looser permissions than those asked for here.
    temporary.unlink(missing_ok=True)
    try:
        write_private(temporary, content, owner=path.parent.stat())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_private(path: Path, content: bytes, owner: os.stat_result | None = None) -> None:
    """Write a new file of mode 0600 and sync it. Raises OSError, if it is there already too.

    ``owner``: whose it becomes if the administrator writes it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renamed and new files of a directory durable. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def change_entries(
    data_dir: Path,
    change: Callable[[list[Entry]], list[Entry]],
    *,
    pause: Callable[[float], object],
) -> list[Entry]:
    """Read, change and write the file of a data directory while nobody else does; return it.

    What ``change`` raises leaves the file as it was. Raises SecretError, or CommandError if it
    cannot be written, or locked.
    """
    path = data_dir / FILE_NAME
    with _locked(data_dir / LOCK_NAME, pause):
        entries = change(read_entries(path))
        try:
            write_entries(path, entries)
        except OSError as error:
            raise CommandError(
                f"{path}: cannot be written: {error.strerror}",
                hint="Nothing was changed. Check the disk, and that this user may write there.",
            ) from error
        try:
            sync_directory(data_dir)
        except OSError as error:
            raise CommandError(
                f"{path}: is changed, but may not survive a power cut: {error.strerror}"
            ) from error
    return entries


@contextmanager
def _locked(path: Path, pause: Callable[[float], object]) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        if os.geteuid() == 0:
            # Made by the administrator, used by the user that runs the server, too.
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        _lock(descriptor, path, pause)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, pause: Callable[[float], object]) -> None:
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        pause(_LOCK_EVERY_S)
    raise CommandError(
        f"{path}: another command is changing the secrets",
        hint="Run the command again in a moment.",
    )
