"""Whether a part on the disk is what the manifest says."""

from __future__ import annotations

from pathlib import Path

from ocean_core.model.errors import StoreCorruptError
from ocean_core.storage.archive.manifest import (
    ID_SUM_MODULUS,
    RAW_KINDS,
    Part,
    digest_of_file,
)
from ocean_core.storage.archive.parquet import ParquetEngine, files


def check_part(engine: ParquetEngine, folder: Path, part: Part) -> None:
    """Compare digest, rows, ids and times of a part; every column is decoded.

    Raises StoreCorruptError that says what differs, StoreIOError, OSError.
    """
    path = folder / part.name
    if digest_of_file(path) != part.digest:
        raise StoreCorruptError(f"{part.name}: the bytes are not those that were written")
    if part.kind in RAW_KINDS:
        content = "bit_xor(hash(value))" if part.kind == "readings" else "bit_xor(hash(payload))"
        found = engine.rows(
            "SELECT count(*), min(id), max(id), sum(id::HUGEINT), epoch_us(min(timestamp)), "  # noqa: S608 - our own path
            "epoch_us(max(timestamp)), count(DISTINCT id), count(sensor_id), max(quality), "
            f"{content} FROM {files([path])}"
        )[0]
        expected: tuple[int, ...] = (
            part.rows,
            part.first_id,
            part.last_id,
            part.id_sum,
            part.first_us,
            part.last_us,
        )
        told: tuple[int, ...] = (*found[:3], int(found[3]) % ID_SUM_MODULUS, *found[4:6])
        complete = found[6] == found[7] == part.rows
    else:
        found = engine.rows(
            "SELECT count(*), sum(n)::BIGINT, epoch_us(min(first_ts)), "  # noqa: S608 - our own path
            "epoch_us(max(coalesce(last_ts, first_ts))), count(sensor_id), count(mean), "
            "sum(hash(m2, min, max, first_value, last_value) % 2) "
            f"FROM {files([path])}"
        )[0]
        expected = (part.rows, part.readings, part.first_us, part.last_us)
        told = found[:4]
        complete = found[4] == found[5] == part.rows
    if told != expected or not complete:
        raise StoreCorruptError(f"{part.name}: holds {told}, should hold {expected}")
