"""The mover's mark: newest slot wins, a torn slot does no harm."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ocean_core.buffer.mark import Mark, MarkFile, read_mark

EPOCH = "11111111-2222-4333-8444-555555555555"


def written(path: Path, *ids: int) -> None:
    mark = MarkFile(path)
    for id_ in ids:
        mark.write(EPOCH, id_)
    mark.close()


def test_missing_and_empty_files_are_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "analytics.mark"
    assert read_mark(path) is None
    path.write_bytes(b"")
    assert read_mark(path) is None
    path.write_bytes(random.Random(1).randbytes(8192))
    assert read_mark(path) is None


def test_the_newest_mark_is_read_and_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "analytics.mark"
    written(path, 5, 9, 12)
    assert read_mark(path) == Mark(EPOCH, 12)
    written(path, 20)
    assert read_mark(path) == Mark(EPOCH, 20)
    assert path.stat().st_size == 8192


@pytest.mark.parametrize("seed", range(40))
def test_one_damaged_slot_leaves_the_other(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "analytics.mark"
    written(path, 5, 9)
    data = bytearray(path.read_bytes())
    # The second write went to slot 0.
    at = rng.randrange(40)
    data[at] ^= rng.randrange(1, 256)
    path.write_bytes(data)
    assert read_mark(path) == Mark(EPOCH, 5)
    # The next write replaces the damaged slot, never the good one.
    written(path, 30)
    assert read_mark(path) == Mark(EPOCH, 30)


def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "analytics.mark"
    written(path, 5, 9)
    data = path.read_bytes()
    path.write_bytes(data[:4096])
    assert read_mark(path) == Mark(EPOCH, 9)
    path.write_bytes(data[:39])
    assert read_mark(path) is None
    written(path, 77)
    assert read_mark(path) == Mark(EPOCH, 77)


@pytest.mark.parametrize(("point", "expected"), [("mark.before_write", 5), ("mark.after_write", 9)])
def test_killed_while_writing(tmp_path: Path, point: str, expected: int) -> None:
    path = tmp_path / "analytics.mark"
    program = (
        "from ocean_core.buffer.mark import MarkFile\n"
        "from ocean_core.obs.faults import Faults\n"
        "from pathlib import Path\n"
        f"mark = MarkFile(Path({str(path)!r}), Faults({point!r}, 2))\n"
        f"mark.write({EPOCH!r}, 5)\nmark.write({EPOCH!r}, 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -9
    assert read_mark(path) == Mark(EPOCH, expected)
