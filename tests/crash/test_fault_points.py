"""Each named fault point, one test: the process dies exactly there, and nothing is lost (I1-I3).

The tests come from the list in ``obs.faults``: a new point without a scenario fails.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocean_core.obs.faults import FAULT_POINTS
from support.account_points import ACCOUNT_POINTS
from support.appliance import Appliance
from support.audit import audit_stopped, check_answers
from support.load import Sent, Writer, post
from support.waiting import until
from support.web import ConnectionLostError, sensor_path

DEAD_WITHIN_S = 40.0
BIG_BATCHES = 3
BIG_BATCH_ROWS = 90_000

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]


class Run:
    """A box, a device that posts to it, and what both said."""

    def __init__(self, box: Appliance) -> None:
        self.box = box
        self.writer = Writer("device", 1, seed=5)
        self.record: list[Sent] = []

    def post(self, sent: Sent) -> None:
        """Post once; whoever dies meanwhile leaves the request unanswered."""
        self.record.append(sent)
        if not self.box.knows_address():
            return
        try:
            post(self.box.http(timeout_s=5), sent)
        except ConnectionLostError:
            return

    def fill(self, rows: int) -> None:
        """Store readings before the fault."""
        self.box.start()
        for _ in range(max(1, rows // BIG_BATCH_ROWS)):
            self.post(self.writer.batch(min(rows, BIG_BATCH_ROWS)))
        for _ in range(5):
            self.post(self.writer.single())
        assert all(sent.ids is not None for sent in self.record)

    def ask(self) -> None:
        """Have the mover move everything."""
        if self.box.knows_address():
            try:
                self.box.http(timeout_s=5).get(sensor_path("device", "stats"), wait="true")
            except ConnectionLostError:
                return


# --- what is done before the start with the fault ------------------------------------------------


def nothing(_run: Run) -> None:
    """A fresh data directory."""


def some_readings(run: Run) -> None:
    run.fill(2_000)
    run.ask()
    assert run.box.stop() == 0


def many_readings_no_index(run: Run) -> None:
    """More than one transaction of the mover, and nothing moved."""
    run.fill(BIG_BATCHES * BIG_BATCH_ROWS)
    run.box.kill("ingest")
    for name in ("analytics.duckdb", "analytics.duckdb.wal"):
        (run.box.data_dir / name).unlink(missing_ok=True)


def damaged_journal(run: Run) -> None:
    """The file's own header is gone; every block is still whole."""
    some_readings(run)
    with (run.box.data_dir / "journal.db").open("r+b") as file:
        file.write(bytes(64))


def damaged_index(run: Run) -> None:
    some_readings(run)
    with (run.box.data_dir / "analytics.duckdb").open("r+b") as file:
        file.write(b"\xff" * 4096)


# --- what is done until it dies ------------------------------------------------------------------


def only_start(_run: Run) -> None:
    """The point is on the way up."""


def post_one(run: Run) -> None:
    run.post(run.writer.single())


def post_much(run: Run) -> None:
    """Enough to fill the WAL soon."""
    run.post(run.writer.batch(20_000))


def post_and_ask(run: Run) -> None:
    run.post(run.writer.single())
    run.ask()


def post_and_seal(run: Run) -> None:
    """Have everything put into the archive, and the journal trimmed."""
    run.post(run.writer.single())
    if run.box.knows_address():
        with contextlib.suppress(ConnectionLostError):
            run.box.http(timeout_s=5).post("/api/ocean/archive/seal", b"")


def stop(run: Run) -> None:
    """The point is on the way down."""
    run.box.wait_ready()
    run.post(run.writer.single())
    run.ask()
    # Analytics that are not up have nothing to close.
    until(
        lambda: run.box.status()["analytics"]["state"] == "up", within_s=20, what="analytics are up"
    )
    run.box.stop()


@dataclass(frozen=True)
class Scenario:
    """How to get a process to its fault point, and which process that is."""

    dies: str
    prepare: Callable[[Run], None]
    act: Callable[[Run], None]


SCENARIOS = {
    "journal.opened": Scenario("ingest", some_readings, only_start),
    "journal.before_commit": Scenario("ingest", some_readings, post_one),
    "journal.after_commit": Scenario("ingest", some_readings, post_one),
    "journal.before_checkpoint": Scenario("ingest", some_readings, post_much),
    "journal.after_checkpoint": Scenario("ingest", some_readings, post_much),
    "journal.salvage_copying": Scenario("ingest", damaged_journal, only_start),
    "journal.salvage_before_swap": Scenario("ingest", damaged_journal, only_start),
    "journal.salvage_after_swap": Scenario("ingest", damaged_journal, only_start),
    "mark.before_write": Scenario("analytics", some_readings, post_and_ask),
    "mark.after_write": Scenario("analytics", some_readings, post_and_ask),
    "mover.before_commit": Scenario("analytics", some_readings, post_and_ask),
    "mover.after_commit": Scenario("analytics", some_readings, post_and_ask),
    "analytics.before_open": Scenario("analytics", some_readings, only_start),
    "analytics.after_open": Scenario("analytics", some_readings, only_start),
    "analytics.damaged_moved": Scenario("analytics", damaged_index, only_start),
    "rebuild.half": Scenario("analytics", many_readings_no_index, only_start),
    "archive.part_written": Scenario("analytics", some_readings, post_and_seal),
    "archive.part_renamed": Scenario("analytics", some_readings, post_and_seal),
    "archive.before_manifest": Scenario("analytics", some_readings, post_and_seal),
    "archive.after_manifest": Scenario("analytics", some_readings, post_and_seal),
    "archive.before_unlink": Scenario("analytics", some_readings, post_and_seal),
    "archive.sealed": Scenario("analytics", some_readings, post_and_seal),
    "journal.before_trim": Scenario("ingest", some_readings, post_and_seal),
    "journal.after_trim": Scenario("ingest", some_readings, post_and_seal),
    "analytics.before_checkpoint": Scenario("analytics", some_readings, stop),
    "analytics.after_checkpoint": Scenario("analytics", some_readings, stop),
}


def test_every_point_has_a_scenario() -> None:
    assert not SCENARIOS.keys() & ACCOUNT_POINTS
    assert SCENARIOS.keys() | ACCOUNT_POINTS == FAULT_POINTS.keys()


def has_died(run: Run, who: str) -> bool:
    """Return whether the process was ended by SIGKILL, which nothing here sends."""
    code = run.box.exit_code()
    if who == "ingest":
        assert code in {None, -9}, f"it ended with {code}"
        return code == -9
    assert code != -9, "ingest died, too"
    return "analytics.exited code=-9" in run.box.log()


def has_died_at_stop(run: Run) -> bool:
    """Return whether analytics ended by SIGKILL while the box was stopping."""
    told = run.box.log().partition("runtime.stopping")[2]
    return "analytics.exited code=-9" in told


@pytest.mark.parametrize("name", SCENARIOS)
def test_death_at_fault_point(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    with Appliance(tmp_path / "data") as box:
        run = Run(box)
        scenario.prepare(run)

        box.launch(OCEAN_FAULT=name)

        def acted_until_dead() -> bool:
            # Whoever stopped has nothing more to do.
            if box.exit_code() is None and not has_died(run, scenario.dies):
                scenario.act(run)
            return has_died(run, scenario.dies)

        if scenario.act is stop:
            stop(run)
            assert box.exit_code() == 0, "a dead child must not spoil a clean stop"
            assert has_died_at_stop(run), "analytics passed the point alive"
        else:
            until(acted_until_dead, within_s=DEAD_WITHIN_S, what=f"a death at {name}")
            box.end_all()
        shutil.copytree(box.data_dir, tmp_path / "as_it_died")

        box.start()
        run.post(run.writer.single())
        run.post(run.writer.batch(20))
        assert all(sent.ids is not None for sent in run.record[-2:])
        assert box.status()["buffer"]["missing_ranges"] == []
        run.ask()
        assert box.stop() == 0
        held = audit_stopped(box.data_dir, run.record)
        box.start()
        check_answers(box, held)
        assert box.stop() == 0


def test_faults_do_nothing_without_the_variable(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        run = Run(box)
        some_readings(run)
        box.start()
        assert box.stop() == 0
        audit_stopped(box.data_dir, run.record)
