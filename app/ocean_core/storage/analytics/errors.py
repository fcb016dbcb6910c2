"""Errors of DuckDB, told apart: the file is damaged, the query was too much, the query is wrong."""

from __future__ import annotations

import errno

import duckdb

DuckError = duckdb.Error
"""Root of everything that DuckDB raises."""
InterruptError = duckdb.InterruptException
"""A query was ended through ``Cursor.interrupt``."""
OutOfMemoryError = duckdb.OutOfMemoryException
"""A query or a transaction needed more than the memory limit, or more temporary space."""

_DAMAGE_CLASSES = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
)
# Classes that speak of the query or of limits, whatever words of it they quote.
_ORDINARY_CLASSES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.InterruptException,
    duckdb.InvalidInputException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.TransactionException,
)
# What a fault of DuckDB itself raises, too; and after it everything else, until the file is reopened.
_TROUBLE_CLASSES = (duckdb.InternalException, duckdb.FatalException)
_DAMAGE_WORDS = (
    "checksum", "corrupt", "failed to decompress", "decompression failed", "serializ", "malformed",
    "io error", "could not read", "could not write",
)  # fmt: skip
_SYSTEM_WORDS = (
    "no space left", "permission denied", "read-only file system", "too many open files",
    "disk quota",
)  # fmt: skip


def is_lock_conflict(error: BaseException) -> bool:
    """Whether another process holds the file."""
    return isinstance(error, duckdb.IOException) and "could not set lock" in str(error).lower()


def is_system_error(error: BaseException) -> bool:
    """Whether the system refused, not the content of the file: full disk, missing rights."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EDQUOT)
    text = str(error).lower()
    return isinstance(error, duckdb.Error) and any(word in text for word in _SYSTEM_WORDS)


def is_damage(error: BaseException) -> bool:
    """Whether an error means that analytics.duckdb can no longer be trusted.

    A full disk, out of memory, interrupted or wrong queries never do. DuckDB may refuse all further
    work after a full disk: then the file must be opened again, which finds out what it is worth.
    """
    if not isinstance(error, duckdb.Error):
        # A flipped bit inside a string: the client library cannot decode what it fetched.
        return isinstance(error, UnicodeDecodeError)
    if is_lock_conflict(error) or is_system_error(error):
        return False
    if isinstance(error, _DAMAGE_CLASSES):
        return True
    if isinstance(error, _ORDINARY_CLASSES):
        return False
    return _speaks_of_damage(error)


def is_certain_damage(error: BaseException) -> bool:
    """Whether ``is_damage`` is certain, and not possibly a fault of DuckDB itself.

    An internal error that does not speak of the file may come from a wrong byte in it, or from a
    query that DuckDB does not get right: then a rebuild would not help.
    """
    if not is_damage(error):
        return False
    return not isinstance(error, _TROUBLE_CLASSES) or _speaks_of_damage(error)


def _speaks_of_damage(error: BaseException) -> bool:
    text = str(error).lower()
    return any(word in text for word in _DAMAGE_WORDS)
