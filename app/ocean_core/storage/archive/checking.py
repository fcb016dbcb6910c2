"""Whether a part on the disk is what the manifest says."""

from __future__ import annotations

from pathlib import Path

from ocean_core.model.errors import StoreCorruptError
from ocean_core.storage.archive.manifest import (
    ID_SUM_MODULUS,
    Part,
    digest_of_file,
)
from ocean_core.storage.archive.parquet import ParquetEngine, files


def check_part(engine: ParquetEngine, folder: Path, part: Part) -> None:
    """Compare digest, rows, ids and times of a part of readings or events; all of it is decoded.

    Raises StoreCorruptError that says what differs, StoreIOError, OSError.
    """
    path = folder / part.name
    if digest_of_file(path) != part.digest:
        raise StoreCorruptError(f"{part.name}: the bytes are not those that were written")
    content = "value" if part.kind == "readings" else "payload"
    found = engine.rows(
        "SELECT count(*), min(id), max(id), sum(id::HUGEINT), epoch_us(min(timestamp)), "  # noqa: S608 - our own path
        "epoch_us(max(timestamp)), count(DISTINCT id), count(sensor_id), max(quality), "
        f"bit_xor(hash({content})) FROM {files([path])}"
    )[0]
    expected = (part.rows, part.first_id, part.last_id, part.id_sum, part.first_us, part.last_us)
    told = (*found[:3], int(found[3]) % ID_SUM_MODULUS, *found[4:6])
    if told != expected or not found[6] == found[7] == part.rows:
        raise StoreCorruptError(f"{part.name}: holds {told}, should hold {expected}")
