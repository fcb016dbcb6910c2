"""The archive stands in: for a lost index, for a lost journal, and while readings come in."""

from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance
from support.audit import audit_stopped, check_answers, read_archive, read_journal, read_kept
from support.load import Sent, Writer, post
from support.waiting import until

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
ROWS = 2_000


def fill(box: Appliance, writer: Writer, record: list[Sent]) -> None:
    for sent in (writer.batch(ROWS), *(writer.single() for _ in range(5))):
        record.append(sent)
        post(box.http(), sent)
        assert sent.ids is not None


def start_sealing(box: Appliance) -> dict[str, Any]:
    """Ask for it once analytics are up."""
    until(lambda: is_up(box), within_s=30, what="analytics are up")
    job: dict[str, Any] = box.http().post("/api/ocean/archive/seal", b"").good()
    return job


def seal(box: Appliance) -> dict[str, Any]:
    """Have everything sealed and trimmed."""
    job = start_sealing(box)

    def ended() -> Any:
        found = box.http().get(job["url"]).good()
        return found if found["state"] != "running" else None

    done = until(ended, within_s=30, what="sealed")
    assert done["state"] == "done", done
    result: dict[str, Any] = done["result"]
    return result


def is_up(box: Appliance) -> bool:
    return bool(box.status()["analytics"]["state"] == "up")


@pytest.mark.parametrize("lost", ["analytics.duckdb", "journal.db", "both"])
def test_what_is_lost_comes_back_from_the_archive(tmp_path: Path, lost: str) -> None:
    with Appliance(tmp_path / "data") as box:
        writer, record = Writer("device", 1, seed=7), list[Sent]()
        box.start()
        fill(box, writer, record)
        assert seal(box)["sealed_up_to"] == box.status()["buffer"]["head_id"]
        assert box.stop() == 0
        assert read_journal(box.data_dir).rows == {}
        assert len(read_archive(box.data_dir).rows) == len(audit_stopped(box.data_dir, record).rows)
        for pattern in ("analytics.duckdb*", "journal.db*") if lost == "both" else (f"{lost}*",):
            for path in box.data_dir.glob(pattern):
                path.unlink()

        box.start()
        fill(box, writer, record)
        until(lambda: is_up(box), within_s=30, what="analytics are up")
        status = box.status()
        assert status["buffer"]["missing_ranges"] == []
        assert "readings.missing" not in box.alarms()
        check_answers(box, read_kept(box.data_dir))
        assert box.stop() == 0
        audit_stopped(box.data_dir, record)


def test_verify_counts_what_the_archive_holds_and_notices_what_it_lacks(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        writer, record = Writer("device", 1, seed=8), list[Sent]()
        box.start()
        fill(box, writer, record)
        seal(box)
        fill(box, writer, record)
        step = box.http().get("/api/ocean/verify", wait="true").good()
        rows = step["readings"] + step["events"]
        assert rows == box.status()["buffer"]["head_id"]
        assert (step["trimmed"], step["missing"], step["equal"]) == (0, 0, rows)
        part = next((box.data_dir / "archive").glob("date=*/readings-*.parquet"))
        part.rename(tmp_path / "taken.parquet")
        step = box.http().get("/api/ocean/verify").good()
        assert (step["damaged"], step["kept"]) == (ROWS + 5, ROWS + 5)
        assert step["absent"] + step["surplus"] + step["changed"] == 0
        (tmp_path / "taken.parquet").rename(part)
        assert box.http().get("/api/ocean/verify").good()["equal"] == rows
        assert box.stop() == 0
        audit_stopped(box.data_dir, record)


def test_sealing_goes_on_where_a_killed_box_left_it(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        writer, record = Writer("device", 1, seed=9), list[Sent]()
        for _ in range(3):
            box.start()
            fill(box, writer, record)
            start_sealing(box)
            box.kill("ingest")
        box.start()
        seal(box)
        assert box.stop() == 0
        audit_stopped(box.data_dir, record)
        assert len(read_archive(box.data_dir).rows) >= 3 * (ROWS + 5)
