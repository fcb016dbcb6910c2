"""The archive's folder: writes parts, commits manifests, removes what belongs to none.

One thread writes and commits. Readers pin the manifest they read: files that a commit removes stay
until nobody needs them.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ocean_core.model.errors import ArchiveUnavailableError, OceanError, StoreIOError
from ocean_core.obs.faults import NO_FAULTS, Faults
from ocean_core.obs.log import EventLog
from ocean_core.storage.archive.checking import check_part
from ocean_core.storage.archive.columns import (
    ArchiveEvents,
    ArchiveReadings,
    sorted_rows,
)
from ocean_core.storage.archive.manifest import (
    ID_SUM_MODULUS,
    MANIFEST_FILE,
    Manifest,
    Part,
    PartKind,
    digest_of_file,
    load_manifest,
    sync_folder,
    write_manifest,
)
from ocean_core.storage.archive.parquet import ParquetEngine

TEMPORARY: Final = ".new"
_SPILL: Final = "spill.tmp"
DAY_US: Final = 86_400_000_000

# Every part has its rows in this order of columns.
_READINGS: Final = (
    "SELECT r.id, n.sensor_id, n.metric, r.ts AS timestamp, r.value, r.quality "
    "FROM rows r LEFT JOIN names n ON n.number = r.series_index"
)
_EVENTS: Final = (
    "SELECT r.id, n.sensor_id, r.ts AS timestamp, r.quality, r.payload "
    "FROM rows r LEFT JOIN names n ON n.number = r.series_index"
)


class ArchiveStore:
    """Owner of the folder ``archive``. ``open`` first."""

    def __init__(self, folder: Path, *, log: EventLog, faults: Faults = NO_FAULTS) -> None:
        self.folder = folder
        self._log = log
        self._faults = faults
        self._lock = threading.Lock()
        self._pinned: dict[str, int] = {}
        self._waste: set[str] = set()
        self._manifest: Manifest | None = None

    # --- opening

    def open(self, epoch: str, starts_after: int) -> None:
        """Read the manifest and remove every file that it does not name.

        Without one a new archive begins behind ``starts_after``. Raises ArchiveUnavailableError if
        it belongs to another journal; StoreCorruptError, StoreVersionError, StoreIOError. After
        any of these nothing was removed.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            loaded = load_manifest(self.folder)
            manifest = loaded.manifest
            if manifest is None:
                self._refuse_strangers()
                manifest = Manifest(
                    epoch=epoch, starts_after=starts_after, sealed_up_to=starts_after
                )
                write_manifest(self.folder, manifest, self._faults)
            elif manifest.epoch != epoch:
                raise ArchiveUnavailableError(
                    f"the archive belongs to another journal (epoch {manifest.epoch})"
                )
            elif loaded.from_copy or loaded.complaint:
                self._log.warning("archive.manifest_restored", reason=loaded.complaint or "missing")
                write_manifest(self.folder, manifest, self._faults)
            self._manifest = manifest
            self._sweep()
        except OSError as error:
            raise StoreIOError(f"{self.folder}: {error}") from error

    def _refuse_strangers(self) -> None:
        """Parts without any manifest are not thrown away: somebody may still need them."""
        if any(self.folder.glob("date=*/*.parquet")):
            raise ArchiveUnavailableError(
                f"there are parts in {self.folder}, but no {MANIFEST_FILE} that names them"
            )

    def _sweep(self) -> None:
        """Remove what no manifest names: left by a crash between writing and committing."""
        shutil.rmtree(self.spill, ignore_errors=True)
        known = {part.name for part in self.manifest.parts}
        for path in [*self.folder.glob("date=*/*"), *self.folder.glob("*.new")]:
            if path.relative_to(self.folder).as_posix() not in known:
                path.unlink(missing_ok=True)
                self._log.info("archive.swept", file=path.name)
        for folder in self.folder.glob("date=*"):
            with suppress(OSError):
                folder.rmdir()

    @property
    def is_open(self) -> bool:
        """Whether there is a manifest."""
        return self._manifest is not None

    @property
    def manifest(self) -> Manifest:
        """What holds now; immutable. Raises ArchiveUnavailableError before ``open``."""
        manifest = self._manifest
        if manifest is None:
            raise ArchiveUnavailableError("the archive is not open")
        return manifest

    def path(self, part: Part) -> Path:
        """Return where a part is."""
        return self.folder / part.name

    @property
    def spill(self) -> Path:
        """Where large sorts may spill; swept at ``open``."""
        return self.folder / _SPILL

    # --- reading

    @contextmanager
    def pin(self) -> Iterator[Manifest]:
        """Keep every file of the present manifest, and return that. From any thread."""
        with self._lock:
            manifest = self.manifest
            for part in manifest.parts:
                self._pinned[part.name] = self._pinned.get(part.name, 0) + 1
        try:
            yield manifest
        finally:
            with self._lock:
                for part in manifest.parts:
                    left = self._pinned[part.name] - 1
                    if left:
                        self._pinned[part.name] = left
                    else:
                        del self._pinned[part.name]
                self._drop_waste()

    # --- writing

    def write_readings(
        self, engine: ParquetEngine, date: str, rows: ArchiveReadings, arrived_us: int
    ) -> Part:
        """Write readings of one day to a part that no manifest names yet. Raises StoreIOError."""
        rows = rows.take(sorted_rows(rows.series, rows.series_index, rows.ts_us, rows.id))
        columns = {
            "id": rows.id, "series_index": rows.series_index, "ts": rows.ts_us.view("M8[us]"),
            "value": rows.value, "quality": rows.quality,
        }  # fmt: skip
        return self._write_raw(engine, "readings", date, rows, columns, _READINGS, arrived_us)

    def write_events(
        self, engine: ParquetEngine, date: str, rows: ArchiveEvents, arrived_us: int
    ) -> Part:
        """Write events of one day to a part that no manifest names yet. Raises StoreIOError."""
        rows = rows.take(sorted_rows(rows.series, rows.series_index, rows.ts_us, rows.id))
        columns = {
            "id": rows.id, "series_index": rows.series_index, "ts": rows.ts_us.view("M8[us]"),
            "quality": rows.quality, "payload": rows.payload,
        }  # fmt: skip
        return self._write_raw(engine, "events", date, rows, columns, _EVENTS, arrived_us)

    def _write_raw(
        self,
        engine: ParquetEngine,
        kind: PartKind,
        date: str,
        rows: ArchiveReadings | ArchiveEvents,
        columns: dict[str, Any],
        query: str,
        arrived_us: int,
    ) -> Part:
        engine.name_series(rows.series)
        part = Part(
            name="",
            kind=kind,
            date=date,
            first_id=int(rows.id.min()),
            last_id=int(rows.id.max()),
            rows=len(rows),
            readings=len(rows),
            id_sum=_sum(rows.id),
            first_us=int(rows.ts_us.min()),
            last_us=int(rows.ts_us.max()),
            arrived_us=arrived_us,
            bytes=0,
            digest="",
        )
        with engine.table("rows", columns):
            return self.write_part(engine, part, query)

    def write_part(self, engine: ParquetEngine, part: Part, query: str) -> Part:
        """Write a query's rows as the part described, and return it with name, size and digest.

        The file is synced, renamed, its folder synced, and then read back. Nobody knows of it
        before ``commit``. Raises StoreIOError; StoreCorruptError if it reads back differently.
        """
        sequence = self.manifest.sequence + 1
        name = f"date={part.date}/{part.kind}-{part.first_id}-{part.last_id}-{sequence}.parquet"
        path = self.folder / name
        temporary = path.with_name(path.name + TEMPORARY)
        described = msgspec.json.encode(replace_part(part, name=name)).decode()
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            engine.write(
                temporary, query, {"ocean_part": described, "ocean_epoch": self.manifest.epoch}
            )
            self._faults.hit("archive.part_written")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
            sync_folder(self.folder)
            self._faults.hit("archive.part_renamed")
            part = replace_part(
                part, name=name, bytes=path.stat().st_size, digest=digest_of_file(path)
            )
            self._read_back(engine, part)
        except (OSError, OceanError) as error:
            for left in (temporary, path):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StoreIOError(f"{name}: {error}") from error
            raise
        return part

    def _read_back(self, engine: ParquetEngine, part: Part) -> None:
        """Decode every column of what was just written and compare what can be compared."""
        check_part(engine, self.folder, part)

    def commit(self, manifest: Manifest) -> None:
        """Have this manifest hold, durably; what it no longer names is removed. Raises StoreIOError.

        After an error the one that holds is the one on the disk: it is read again.
        """
        before = self.manifest
        manifest = msgspec.structs.replace(manifest, sequence=before.sequence + 1)
        complaint = manifest.balance()
        if complaint:
            raise AssertionError(f"the archive would not add up: {complaint}")
        try:
            write_manifest(self.folder, manifest, self._faults)
        except OSError as error:
            with suppress(OSError, OceanError):
                held = load_manifest(self.folder).manifest
                if held is not None:
                    self._manifest = held
            if self.manifest.sequence != manifest.sequence:
                raise StoreIOError(f"{self.folder / MANIFEST_FILE}: {error}") from error
        kept = {part.name for part in manifest.parts}
        with self._lock:
            self._manifest = manifest
            self._waste |= {part.name for part in before.parts if part.name not in kept}
            self._faults.hit("archive.before_unlink")
            self._drop_waste()

    def discard(self, parts: Sequence[Part]) -> None:
        """Remove parts that were written and will not be committed."""
        for part in parts:
            with suppress(OSError):
                self.path(part).unlink(missing_ok=True)

    def _drop_waste(self) -> None:
        for name in [name for name in self._waste if name not in self._pinned]:
            # What cannot be removed now is swept at the next start.
            with suppress(OSError):
                path = self.folder / name
                path.unlink(missing_ok=True)
                path.parent.rmdir()
            self._waste.discard(name)


def replace_part(part: Part, **changes: Any) -> Part:  # noqa: ANN401 - any field
    """Return a part with other fields."""
    return msgspec.structs.replace(part, **changes)


def date_of(ts_us: int) -> str:
    """Return the UTC day of a time, as in names of folders."""
    return datetime.fromtimestamp(ts_us // DAY_US * 86_400, UTC).strftime("%Y-%m-%d")


def day_start_us(date: str) -> int:
    """Return when a UTC day begins."""
    return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1_000_000


def _sum(ids: Any) -> int:  # noqa: ANN401 - an array
    # Sums of ids may exceed 64 bits; halves cannot.
    high = int((ids >> 32).sum(dtype=np.int64))
    low = int((ids & 0xFFFFFFFF).sum(dtype=np.int64))
    return ((high << 32) + low) % ID_SUM_MODULUS
