"""A disk that is full, really: no false promise, red readiness, and back by itself (I5)."""

import contextlib
import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.appliance import Appliance
from support.audit import audit_stopped, check_answers, read_journal
from support.load import Load, Sent, Writer, post, read_record
from support.waiting import until
from support.web import Reply

DISK_BYTES = 48 * 1024 * 1024
LEFT_BYTES = 512 * 1024
FULL_WITHIN_POSTS = 400
BACK_WITHIN_S = 20.0

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own size, mounted for this test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a size-limited file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def fill(ballast: Path, leave_bytes: int) -> None:
    """Take all of the disk but a little, whatever others write or free meanwhile."""
    with ballast.open("ab") as file:
        while True:
            space = os.statvfs(ballast.parent)
            surplus = space.f_bavail * space.f_frsize - leave_bytes
            if surplus <= 0:
                return
            # In steps: a request for more than there is gets nothing at all.
            with contextlib.suppress(OSError):
                size = os.fstat(file.fileno()).st_size
                os.posix_fallocate(file.fileno(), size, min(surplus, 64 * 1024))


def started(box: Appliance) -> None:
    """Start, and wait until analytics have made their files, too."""
    box.start()
    until(lambda: box.status()["analytics"]["state"] == "up", within_s=30, what="analytics are up")


def post_until_refused(box: Appliance, writer: Writer) -> tuple[list[Sent], Reply]:
    """Post until the first refusal; return what was sent, and the refusal."""
    http = box.http()
    record: list[Sent] = []
    for _ in range(FULL_WITHIN_POSTS):
        sent = writer.batch(2_000)
        record.append(sent)
        reply = http.post(sent.path, sent.body)
        if reply.status != 200:
            return record, reply
        sent.ids = reply.good()["ids"]
    raise AssertionError("the disk did not get full")


def is_back(box: Appliance, record: list[Sent], writer: Writer) -> bool:
    sent = writer.single()
    record.append(sent)
    return post(box.http(), sent)


def test_full_disk_refuses_and_comes_back_by_itself(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    with Appliance(small_disk / "data", log_path=tmp_path / "stderr") as box:
        started(box)
        writer = Writer("device", 1, seed=3)
        first = writer.single()
        assert post(box.http(), first)
        fill(ballast, LEFT_BYTES)
        record, refusal = post_until_refused(box, writer)
        record.insert(0, first)

        problem = refusal.problem(507, "OC-4001")
        assert int(refusal.headers["retry-after"]) >= 1
        assert problem["hint"]
        not_ready = box.http().get("/health", ready="true")
        assert not_ready.status == 503
        assert not_ready.json()["ready"] is False
        assert not_ready.json()["reason"]
        assert box.http().get("/health").status == 200, "it lives"
        assert "buffer.failed" in box.alarms()
        assert box.status()["status"] == "refusing"
        again = writer.single()
        record.append(again)
        assert not post(box.http(), again), "still full"

        ballast.unlink()
        until(
            lambda: is_back(box, record, writer),
            within_s=BACK_WITHIN_S, every_s=0.2, what="readings are taken again",
        )  # fmt: skip
        assert box.http().get("/health", ready="true").status == 200
        assert "buffer.failed" not in box.alarms()
        assert box.status()["buffer"]["missing_ranges"] == []

        assert box.stop() == 0
        held = audit_stopped(box.data_dir, record)
        box.start()
        check_answers(box, held)
        assert box.stop() == 0


def test_full_disk_under_load_with_retries(small_disk: Path, tmp_path: Path) -> None:
    """Many devices, full and free three times: what has a key is there once in the end."""
    ballast = small_disk / "ballast"
    record_dir = tmp_path / "record"
    with Appliance(small_disk / "data", log_path=tmp_path / "stderr") as box:
        started(box)
        with Load(lambda: box.url, record_dir, devices=3, seed=9) as load:
            for _ in range(3):
                before = load.statuses[507]
                fill(ballast, 0)
                until(
                    lambda before=before: load.statuses[507] > before,  # type: ignore[misc]
                    within_s=20, what="a refusal for want of space",
                )  # fmt: skip
                ballast.unlink()
                until(
                    lambda: box.http().get("/health", ready="true").status == 200,
                    within_s=BACK_WITHIN_S, what="it is ready again",
                )  # fmt: skip
            load.finish()
        assert load.statuses[200] > 0
        assert box.stop() == 0
        audit_stopped(box.data_dir, read_record(record_dir))


def test_start_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """It comes up, says what is wrong, and takes readings once there is room."""
    ballast = small_disk / "ballast"
    record: list[Sent] = []
    with Appliance(small_disk / "data", log_path=tmp_path / "stderr") as box:
        started(box)
        writer = Writer("device", 1, seed=4)
        fill(ballast, LEFT_BYTES)
        record, _ = post_until_refused(box, writer)
        fill(ballast.with_name("ballast2"), 0)
        box.kill("ingest")

        box.launch()
        # run.json cannot be written, so the address is only told on standard error.
        box.url = until(lambda: told_address(box), within_s=20, what="it is up")
        not_ready = box.http().get("/health", ready="true")
        assert not_ready.status == 503
        assert not_ready.json()["reason"]
        assert "buffer.failed" in box.alarms()
        ballast.unlink()
        until(
            lambda: is_back(box, record, writer),
            within_s=BACK_WITHIN_S, every_s=0.2, what="readings are taken again",
        )  # fmt: skip
        # Commands find the server through run.json: it must not keep naming the run before.
        until(
            lambda: read_pid(box.data_dir) == box.pid,
            within_s=25, every_s=0.2, what="run.json names the present server",
        )  # fmt: skip
        assert box.stop() == 0
        audit_stopped(box.data_dir, record)


def told_address(box: Appliance) -> str | None:
    """Return the address in the startup lines."""
    assert box.exit_code() is None, "it ended instead of waiting for space"
    found = re.search(r"listens on (http://\S+)", box.log())
    return found.group(1) if found else None


def read_pid(data_dir: Path) -> int:
    content = (data_dir / "run.json").read_bytes()
    return int(json.loads(content)["pid"])


def test_writes_that_fail_are_not_acknowledged(tmp_path: Path) -> None:
    """The same without a small disk: the kernel refuses to let any file grow (EFBIG)."""
    with Appliance(tmp_path / "data") as box:
        started(box)
        writer = Writer("device", 1, seed=6)
        first = writer.single()
        assert post(box.http(), first)
        process = psutil.Process(box.pid)
        process.rlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
        record, refusal = post_until_refused(box, writer)
        record.insert(0, first)
        assert refusal.status in {503, 507}, refusal
        assert refusal.json()["code"] in {"OC-4001", "OC-4002", "OC-3002"}
        assert int(refusal.headers["retry-after"]) >= 1
        assert box.http().get("/health", ready="true").status == 503
        assert "buffer.failed" in box.alarms()

        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(
            lambda: is_back(box, record, writer),
            within_s=BACK_WITHIN_S, every_s=0.2, what="readings are taken again",
        )  # fmt: skip
        assert box.stop() == 0
        audit_stopped(box.data_dir, record)
        assert read_journal(box.data_dir).rows
