"""The archive's manifest: which Parquet files belong to it, and what became of every id.

One JSON file, replaced by one fsynced rename: that is the moment at which parts are added or
removed. A second copy, written after it, stands in if a sector of the first cannot be read. Files
that no manifest names are no part of the archive.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from ocean_core.model.errors import StoreCorruptError, StoreVersionError
from ocean_core.obs.faults import NO_FAULTS, Faults

FORMAT: Final = 1
ARCHIVE_DIR: Final = "archive"
MANIFEST_FILE: Final = "manifest.json"
COPY_FILE: Final = "manifest.copy.json"
ID_SUM_MODULUS: Final = 2**63

PartKind = Literal["readings", "events", "rollup_1m", "rollup_1h"]
RAW_KINDS: Final = frozenset({"readings", "events"})


class Part(msgspec.Struct, frozen=True):
    """One Parquet file.

    ``name`` is its path below the archive's folder, ``date`` the UTC day of all its rows.
    ``first_id`` and ``last_id`` are the lowest and the highest id of its rows; for rollups, of the
    readings that they sum up. ``id_sum`` is the sum of its ids modulo ``ID_SUM_MODULUS``, 0 for
    rollups. ``readings`` is how many readings a rollup sums up; otherwise as ``rows``. Times are
    microseconds since 1970 UTC, ``arrived_us`` that of the newest arrival. ``digest`` is BLAKE2b
    (16 bytes, hexadecimal) of the whole file. ``rolled`` tells that all rows of a part of readings
    are in rollup parts, too.
    """

    name: str
    kind: PartKind
    date: str
    first_id: int
    last_id: int
    rows: int
    readings: int
    id_sum: int
    first_us: int
    last_us: int
    arrived_us: int
    bytes: int
    digest: str
    rolled: bool = False


class Gone(msgspec.Struct, frozen=True):
    """Ids that were in the archive and are in none of its parts any more."""

    rows: int = 0
    id_sum: int = 0

    def plus(self, rows: int, id_sum: int) -> Gone:
        """Return both together."""
        return Gone(self.rows + rows, (self.id_sum + id_sum) % ID_SUM_MODULUS)


class Eviction(msgspec.Struct, frozen=True):
    """Rows that were removed by policy; kept until the loss ledger has counted them.

    ``number`` rises by one; ``sensors`` counts rows by the sensor's stored name.
    """

    number: int
    reason: str
    sensors: dict[str, int]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive holds. ``epoch`` is that of the journal whose ids these are.

    Every id behind ``starts_after`` up to ``sealed_up_to`` is in exactly one part of readings or
    events, or among ``missing`` (lost before it could be sealed), or ``evicted`` (removed by
    policy), or ``forgotten`` (rows that a rule about names made vanish, by the rule's id; their
    sum of ids in ``forgotten_ids``). ``balance`` checks that. ``sequence`` rises with each commit.
    """

    format: int = FORMAT
    epoch: str
    sequence: int = 0
    starts_after: int = 0
    sealed_up_to: int = 0
    parts: tuple[Part, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    evicted: Gone = Gone()
    forgotten: dict[str, int] = {}
    forgotten_ids: Gone = Gone()
    evictions: tuple[Eviction, ...] = ()
    evictions_counted: int = 0

    def of_kind(self, kind: PartKind) -> list[Part]:
        """Return the parts of a kind, by date and first id."""
        found = [part for part in self.parts if part.kind == kind]
        return sorted(found, key=lambda part: (part.date, part.first_id))

    @property
    def bytes(self) -> int:
        """Size of all parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def raw_rows(self) -> int:
        """Readings and events in all parts."""
        return sum(part.rows for part in self.parts if part.kind in RAW_KINDS)

    def balance(self) -> str:
        """Return what does not add up, empty if every sealed id is accounted for exactly once."""
        raw = [part for part in self.parts if part.kind in RAW_KINDS]
        rows = sum(part.rows for part in raw) + self.evicted.rows + self.forgotten_ids.rows
        rows += sum(last - first + 1 for first, last in self.missing)
        ids = sum(part.id_sum for part in raw) + self.evicted.id_sum + self.forgotten_ids.id_sum
        ids += sum(sum_of_ids(first, last) for first, last in self.missing)
        expected = self.sealed_up_to - self.starts_after
        if rows != expected:
            return f"{expected} ids were sealed, {rows} are accounted for"
        if ids % ID_SUM_MODULUS != sum_of_ids(self.starts_after + 1, self.sealed_up_to):
            return "as many ids as were sealed are accounted for, but others"
        return ""


def sum_of_ids(first: int, last: int) -> int:
    """Return the sum of the ids from first to last, modulo ``ID_SUM_MODULUS``."""
    return (first + last) * (last - first + 1) // 2 % ID_SUM_MODULUS


class _Sealed(msgspec.Struct, frozen=True):
    """The file: the manifest's bytes as they are, and their digest."""

    blake2b: str
    manifest: msgspec.Raw


_DECODER: Final = msgspec.json.Decoder(Manifest)


class _Version(msgspec.Struct, frozen=True):
    format: int


def digest_of_bytes(data: bytes) -> str:
    """Return the digest that manifests use, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the digest of a file's content. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def pack_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as the bytes of its file."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return b'{"blake2b": "' + digest_of_bytes(body).encode() + b'",\n"manifest": ' + body + b"}\n"


def unpack_manifest(data: bytes) -> Manifest:
    """Return the manifest in a file's bytes. Raises StoreCorruptError or StoreVersionError."""
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
        body = bytes(sealed.manifest)
        if digest_of_bytes(body) != sealed.blake2b:
            raise StoreCorruptError("the archive's manifest is damaged")
        version = msgspec.json.decode(body, type=_Version).format
        if version > FORMAT:
            raise StoreVersionError(
                f"the archive's manifest has version {version}; this program reads up to {FORMAT}"
            )
        return _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise StoreCorruptError(f"the archive's manifest is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found. ``manifest`` is None if there is no file at all.

    ``from_copy`` tells that the first one could not be used, ``complaint`` why.
    """

    manifest: Manifest | None
    from_copy: bool = False
    complaint: str = ""


def load_manifest(archive: Path) -> Loaded:
    """Read the manifest of the folder ``archive``.

    Raises StoreCorruptError if there are files but none is whole, StoreVersionError if a newer
    program wrote it, OSError.
    """
    complaint = ""
    for name in (MANIFEST_FILE, COPY_FILE):
        try:
            data = (archive / name).read_bytes()
        except FileNotFoundError:
            continue
        try:
            return Loaded(unpack_manifest(data), name == COPY_FILE, complaint)
        except StoreCorruptError as error:
            complaint = complaint or error.detail
    if complaint:
        raise StoreCorruptError(complaint)
    return Loaded(None)


def write_manifest(archive: Path, manifest: Manifest, faults: Faults = NO_FAULTS) -> None:
    """Make a manifest durable. Once its first file is renamed, it holds. Raises OSError.

    An error before that leaves the former one in force; one after it, in writing the copy, is
    raised, too: ask ``load_manifest`` what holds.
    """
    data = pack_manifest(manifest)
    faults.hit("archive.before_manifest")
    replace_durably(archive / MANIFEST_FILE, data)
    faults.hit("archive.after_manifest")
    replace_durably(archive / COPY_FILE, data)


def replace_durably(path: Path, data: bytes) -> None:
    """Write a file under another name, fsync, rename, fsync the folder. Raises OSError."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
