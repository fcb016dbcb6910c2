"""Whether the store is the one that was here before: its id, kept outside of it.

A store that is gone leaves nothing by which a start could tell that there was one: it would make an
empty one, and nobody would notice. So the id of the store also stands in a small file beside it. If
another store takes its place the file keeps the former id, until somebody removes it: that is how a
loss is accepted.
"""

from __future__ import annotations

import os
import uuid

import apsw

from ocean_core.model.errors import StoreCorruptError, StoreIOError
from ocean_core.obs.log import EventLog
from ocean_core.storage.operational import schema
from ocean_core.storage.operational.files import StoreFiles, size_of, sync_directory


class Witness:
    """Knows which store this process uses, and which one it should be."""

    def __init__(self, files: StoreFiles, log: EventLog) -> None:
        self.store_id = ""
        """Id of the store in use, empty before it was open."""
        self._files = files
        self._log = log

    def require_in_place(self) -> None:
        """Raise StoreIOError if the store in use is gone: nothing must take its place unnoticed.

        Memory holds keys, rules and users of that one.
        """
        if self.store_id and not size_of(self._files.main) and not self._files.salvaged.exists():
            raise self._elsewhere("removed")

    def recognise(self, db: apsw.Connection) -> None:
        """Take note of a store just opened.

        Raises StoreIOError if it is not the one in use, StoreCorruptError if it does not tell.
        """
        store_id = schema.get_meta(db, "store_id")
        if not isinstance(store_id, str):
            raise StoreCorruptError(f"{self._files.main.name} does not tell which store it is")
        if self.store_id and store_id != self.store_id:
            raise self._elsewhere("replaced by another store")
        self.store_id = store_id
        try:
            self.former_id()
        except OSError as error:
            # It is tried again, and the store is as good without it.
            task = self._files.witness.name
            self._log.warning("runtime.background_failed", task=task, error=str(error))

    def former_id(self) -> str:
        """Return which store was here before if it is not the one in use, empty if it is.

        If nothing says so, the one in use is it from now on. Raises OSError.
        """
        if not self.store_id:
            return ""
        known = witnessed_id(self._files)
        if not known:
            _write(self._files, self.store_id)
        return "" if known == self.store_id else known

    def _elsewhere(self, how: str) -> StoreIOError:
        return StoreIOError(
            f"{self._files.main.name} was {how} while in use; put it back, or restart"
        )


def witnessed_id(files: StoreFiles) -> str:
    """Return the id that stands beside the store, empty if none does. Raises OSError."""
    try:
        return str(uuid.UUID(files.witness.read_text(encoding="ascii").strip()))
    except (FileNotFoundError, ValueError):
        return ""


def _write(files: StoreFiles, store_id: str) -> None:
    fresh = files.witness.with_name(files.witness.name + ".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(store_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(files.witness)
    sync_directory(files.witness.parent)
