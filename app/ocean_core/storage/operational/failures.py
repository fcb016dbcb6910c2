"""What SQLite's errors mean to the operational store."""

from __future__ import annotations

import errno
from typing import Final

import apsw

from ocean_core.model.errors import (
    DiskFullError,
    InternalError,
    OceanError,
    StoreCorruptError,
    StoreIOError,
    StoreUnavailableError,
)

RETRY_AFTER_S: Final = 5

_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}
_CORRUPT: Final = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
# Reading less than the file must have means that it was cut off.
_CORRUPT_IO: Final = {apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS}
_OF_THE_COMMAND: Final = (
    apsw.ConstraintError,
    apsw.SQLError,
    apsw.MismatchError,
    apsw.RangeError,
    apsw.TooBigError,
    apsw.BindingsError,
    apsw.MisuseError,
    apsw.ThreadingViolationError,
)


def is_of_the_file(error: Exception) -> bool:
    """Whether an error tells of the file and so concerns everybody, not only who met it."""
    return isinstance(error, OSError | StoreCorruptError) or (
        isinstance(error, apsw.Error) and not isinstance(error, _OF_THE_COMMAND)
    )


def own_fault(error: Exception) -> InternalError:
    """Return the error for a command that failed in a way nobody foresaw."""
    return InternalError(f"accounts: {type(error).__name__}: {error}")


def translate(error: Exception, db: apsw.Connection | None = None) -> OceanError:
    """Return our error for what SQLite or the system raised while the file was in use."""
    if isinstance(error, OceanError):
        return error
    text = f"accounts: {error}"
    number = error.errno if isinstance(error, OSError) else _system_errno(db)
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and number in _SPACE):
        return DiskFullError(text, retry_after_s=RETRY_AFTER_S)
    if isinstance(error, apsw.IOError | OSError | apsw.CantOpenError | apsw.ReadOnlyError):
        if getattr(error, "extendedresult", 0) in _CORRUPT_IO:
            return StoreCorruptError(text)
        if number in _SPACE:
            return DiskFullError(text, retry_after_s=RETRY_AFTER_S)
        return StoreIOError(text, retry_after_s=RETRY_AFTER_S)
    if isinstance(error, _CORRUPT):
        return StoreCorruptError(text)
    return StoreUnavailableError(text, retry_after_s=RETRY_AFTER_S)


def told(failure: OceanError | None, *, undone: bool = True) -> OceanError:
    """Return what a caller is told while a failure lasts; a new object for each.

    Unless what the caller asked for is sure to be ``undone``, it is told that, too.
    """
    detail = failure.detail if failure is not None else "the operational store is not open"
    if not undone:
        detail += "; the change may have been made all the same"
    if isinstance(failure, DiskFullError | StoreIOError):
        return type(failure)(detail, retry_after_s=RETRY_AFTER_S)
    return StoreUnavailableError(detail, retry_after_s=RETRY_AFTER_S)


def _system_errno(db: apsw.Connection | None) -> int:
    try:
        return 0 if db is None else db.system_errno
    except apsw.ConnectionClosedError:
        return 0
