"""Flash wear: the device's own counter, and sums over processes that come and go."""

import os
from pathlib import Path

import pytest

from ocean_core.service.flash import DeviceCounter, FlashUse


def folder_of(devices: Path, directory: Path) -> Path:
    number = directory.stat().st_dev
    return devices / f"{os.major(number)}:{os.minor(number)}"


def test_sectors_are_those_of_the_device_of_the_directory(tmp_path: Path) -> None:
    device = folder_of(tmp_path / "devices", tmp_path)
    device.mkdir(parents=True)
    (device / "stat").write_text("  1 2 3 4 5 6 7000 8 0 10 11\n", encoding="ascii")
    assert DeviceCounter(tmp_path, tmp_path / "devices").written_bytes() == 7000 * 512


@pytest.mark.parametrize("content", [None, "", "1 2 3", "a b c d e f g h"])
def test_without_statistics_there_is_no_figure_rather_than_zero(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        device = folder_of(tmp_path / "devices", tmp_path)
        device.mkdir(parents=True)
        (device / "stat").write_text(content, encoding="ascii")
    assert DeviceCounter(tmp_path, tmp_path / "devices").written_bytes() is None
    assert DeviceCounter(tmp_path / "gone", tmp_path / "devices").written_bytes() is None


def test_a_process_that_was_started_again_does_not_take_its_bytes_with_it() -> None:
    use = FlashUse()
    use.note({"ingest": (1, 5000), "analytics": (2, 3000)}, 100_000)
    use.note({"ingest": (1, 6000), "analytics": (2, 4000)}, 150_000)
    use.note({"ingest": (1, 6000)}, 160_000)
    assert use.written_bytes == 10_000, "one that is gone for the moment still counts"
    use.note({"ingest": (1, 7000), "analytics": (9, 500)}, 200_000)
    assert use.written_bytes == 7000 + 4000 + 500
    assert use.per_reading(100) == 115.0
    assert use.per_reading(0) is None


def test_the_status_tells_no_figure_that_it_does_not_have() -> None:
    use = FlashUse()
    empty = use.status(0, 5)
    assert (empty.written_mb, empty.bytes_per_reading) == (0, None)
    assert (empty.device_written_mb, empty.written_mb_per_day) == (None, None)
    use.note({"ingest": (1, 2**20)}, 2**30)
    use.note({"ingest": (1, 3 * 2**20)}, 2**30 + 8 * 2**20)
    later = use.status(1000, 6 * 3600)
    assert (later.written_mb, later.device_written_mb) == (3.0, 8.0)
    assert later.written_mb_per_day == 12.0
    assert later.bytes_per_reading == pytest.approx(3145.7)
