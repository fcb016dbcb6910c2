"""The archive's folder: what holds, what is swept, what is refused."""

from pathlib import Path

import msgspec
import pytest

from ocean_core.model.errors import (
    ArchiveUnavailableError,
    StoreCorruptError,
    StoreVersionError,
)
from ocean_core.storage.archive.checking import check_part
from ocean_core.storage.archive.manifest import (
    COPY_FILE,
    MANIFEST_FILE,
    Manifest,
    load_manifest,
    pack_manifest,
    sum_of_ids,
    unpack_manifest,
)
from ocean_core.storage.archive.parquet import parquet_engine
from ocean_core.storage.archive.store import ArchiveStore
from support.archive_kit import EPOCH, ArchiveBox


@pytest.fixture
def box(tmp_path: Path) -> ArchiveBox:
    box = ArchiveBox(tmp_path)
    box.journal.add_readings(20)
    box.sealer.seal_up_to()
    return box


def parts(box: ArchiveBox) -> set[str]:
    found = box.store.folder.glob("date=*/*")
    return {path.relative_to(box.store.folder).as_posix() for path in found}


def test_what_no_manifest_names_is_swept_at_the_start(box: ArchiveBox) -> None:
    (part,) = box.manifest.parts
    path = box.store.path(part)
    for stray in (path.with_name("readings-1-2-9.parquet"), path.with_name("x.parquet.new")):
        stray.write_bytes(b"left behind")
    (box.store.folder / "manifest.json.new").write_bytes(b"half")
    box.store.spill.mkdir()
    (box.store.spill / "sort.tmp").write_bytes(b"half a sort")
    box.reopened()
    assert parts(box) == {part.name}
    assert not list(box.store.folder.glob("*.new"))
    assert not box.store.spill.exists()


def test_the_copy_stands_in_for_a_damaged_manifest(box: ArchiveBox) -> None:
    path = box.store.folder / MANIFEST_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert box.reopened().manifest == box.manifest
    assert load_manifest(box.store.folder).complaint == ""


def test_a_manifest_that_reads_well_and_was_changed_is_not_believed(box: ArchiveBox) -> None:
    path = box.store.folder / MANIFEST_FILE
    whole = path.read_bytes()
    changed = whole.replace(b'"rows": 20', b'"rows": 21')
    assert changed != whole
    with pytest.raises(StoreCorruptError, match="damaged"):
        unpack_manifest(changed)
    path.write_bytes(changed)
    assert box.reopened().manifest == box.manifest


def test_a_foreign_archive_is_not_touched(box: ArchiveBox) -> None:
    before = parts(box)
    other = ArchiveStore(box.store.folder, log=box.log)
    with pytest.raises(ArchiveUnavailableError, match="another journal"):
        other.open("6f1a1f0e-0000-4000-8000-00000000ffff", 0)
    assert parts(box) == before


def test_a_newer_manifest_is_refused_with_a_sentence(box: ArchiveBox) -> None:
    newer = msgspec.structs.replace(box.manifest, format=99)
    for name in (MANIFEST_FILE, COPY_FILE):
        (box.store.folder / name).write_bytes(pack_manifest(newer))
    with pytest.raises(StoreVersionError, match="version 99; this program reads up to 1"):
        box.reopened()
    assert parts(box) == {part.name for part in box.manifest.parts}


def test_a_commit_that_does_not_add_up_is_never_written(box: ArchiveBox) -> None:
    with pytest.raises(AssertionError, match="would not add up"):
        box.store.commit(msgspec.structs.replace(box.manifest, parts=()))
    assert box.reopened().manifest == box.manifest


def test_pinned_files_stay_until_they_are_let_go(box: ArchiveBox) -> None:
    (part,) = box.manifest.parts
    gone = msgspec.structs.replace(
        box.manifest, parts=(), evicted=box.manifest.evicted.plus(part.rows, part.id_sum)
    )
    with box.store.pin() as seen:
        box.store.commit(gone)
        assert seen.parts == (part,)
        assert parts(box) == {part.name}
    assert parts(box) == set()
    assert box.manifest.balance() == ""


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_damaged_part_is_found(box: ArchiveBox, at: float) -> None:
    (part,) = box.manifest.parts
    path = box.store.path(part)
    with parquet_engine() as engine:
        check_part(engine, box.store.folder, part)
        data = bytearray(path.read_bytes())
        data[int(len(data) * at)] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(StoreCorruptError, match=part.name.split("/")[1]):
            check_part(engine, box.store.folder, part)


def test_manifests_survive_their_own_bytes_and_count_ids() -> None:
    manifest = Manifest(epoch=EPOCH, sealed_up_to=7, missing=((1, 7),))
    assert unpack_manifest(pack_manifest(manifest)) == manifest
    assert manifest.balance() == ""
    assert msgspec.structs.replace(manifest, missing=((1, 6),)).balance()
    moved = msgspec.structs.replace(manifest, missing=((2, 8),))
    assert "but others" in moved.balance()
    assert sum_of_ids(1, 2**53 - 1) == (2**53 - 1) * 2**52 % 2**63
