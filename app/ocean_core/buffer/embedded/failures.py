"""What SQLite's errors mean to the appliance."""

from __future__ import annotations

import errno
from typing import Final

import apsw

from ocean_core.model.errors import (
    BufferUnavailableError,
    DiskFullError,
    OceanError,
    StoreCorruptError,
    StoreIOError,
)

RETRY_AFTER_S: Final = 5

_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}
_CORRUPT: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.FormatError,
    apsw.MismatchError,
    # A row is there already under an id that should be new.
    apsw.ConstraintError,
)
# Reading less than the file must have means that it was cut off.
_CORRUPT_IO: Final = {apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS}


def translate(error: Exception, db: apsw.Connection | None = None) -> OceanError:
    """Return our error for what SQLite or the system raised while the journal was in use."""
    if isinstance(error, OceanError):
        return error
    text = f"journal: {error}"
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
    return BufferUnavailableError(text, retry_after_s=RETRY_AFTER_S)


def _system_errno(db: apsw.Connection | None) -> int:
    try:
        return 0 if db is None else db.system_errno
    except apsw.ConnectionClosedError:
        return 0
