"""kill -9 at any moment, under load: every acknowledged reading is there once (I1, I2)."""

import itertools
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from support.appliance import Appliance
from support.audit import (
    audit_stopped,
    check_all_keyed_answered,
    check_answers,
    check_record,
    read_analytics,
)
from support.load import Load, read_record
from support.waiting import pause, until

LONG = os.environ.get("OCEAN_CRASH_LONG") == "1"
SEED = int(os.environ.get("OCEAN_CRASH_SEED", "20260117"))
KILLS = 300 if LONG else 32
KILLS_BETWEEN_AUDITS = 16
UP_AGAIN_WITHIN_S = 30.0

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3000 if LONG else 240)]


class Killer:
    """Decides, from a seed, what dies when, and does it."""

    def __init__(self, box: Appliance, seed: int) -> None:
        self._box = box
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """Let the load run for a moment, kill, start again."""
        pause(self._random.uniform(0.02, 0.9))
        target = self._random.choice(("ingest", "ingest", "analytics", "analytics", "both"))
        if target == "analytics":
            self._analytics()
            return
        if target == "both":
            order = self._random.sample(("analytics", "ingest"), 2)
            self._box.kill(*("ingest" if name == "ingest" else "analytics" for name in order))
        else:
            self._box.kill("ingest")
        self.done[target] += 1
        self._start_again()

    def _analytics(self) -> None:
        # Right after an earlier kill there may be none: then the one that comes is killed while it
        # starts, which is a moment as good as any.
        until(self._box.analytics_pid, within_s=UP_AGAIN_WITHIN_S, what="an analytics process")
        self._box.kill("analytics")
        self.done["analytics"] += 1

    def _start_again(self) -> None:
        if self._random.random() < 0.3:
            # Analytics are made anew from the journal, and the next kill may hit that.
            for name in ("analytics.duckdb", "analytics.duckdb.wal"):
                (self._box.data_dir / name).unlink(missing_ok=True)
            self.done["rebuild"] += 1
        if self._random.random() < 0.3:
            self._box.launch()
            pause(self._random.uniform(0.05, 1.2))
            self._box.kill("ingest")
            self.done["start"] += 1
        self._box.start()

    @property
    def kills(self) -> int:
        return sum(self.done[name] for name in ("ingest", "analytics", "both", "start"))


def audit_now(box: Appliance, load: Load, record_dir: Path) -> None:
    """Settle the load, compare answers with what was promised, then the files of a stopped box."""
    load.finish()
    record = read_record(record_dir)
    check_all_keyed_answered(record)
    # Otherwise there might be no index to compare with.
    until(
        lambda: box.status()["analytics"]["state"] == "up",
        within_s=UP_AGAIN_WITHIN_S, what="analytics are up again",
    )  # fmt: skip
    assert box.stop() == 0
    assert read_analytics(box.data_dir) is not None
    held = audit_stopped(box.data_dir, record)
    box.start()
    assert box.status()["buffer"]["missing_ranges"] == []
    check_answers(box, held)


@pytest.mark.parametrize(
    ("fast", "kills"), [(True, KILLS), (False, KILLS // 4)], ids=["fast path", "ordinary routes"]
)
def test_kill_9_loses_and_doubles_nothing(tmp_path: Path, *, fast: bool, kills: int) -> None:
    print(f"OCEAN_CRASH_SEED={SEED}")
    record_dir = tmp_path / "record"
    with Appliance(tmp_path / "data", OCEAN_SERVER__FAST_PATH=str(fast).lower()) as box:
        box.start()
        killer = Killer(box, SEED)
        for part in itertools.count():
            # Each part has devices of its own: a name is never used by two generations.
            with Load(
                lambda: box.url, record_dir / str(part), devices=3, seed=SEED, first=10 * part
            ) as load:
                goal = min(kills, killer.kills + KILLS_BETWEEN_AUDITS)
                while killer.kills < goal:
                    killer.strike()
                    load.check()
                audit_now(box, load, record_dir)
            if killer.kills >= kills:
                break
        print(dict(killer.done), {"acknowledged": box.status()["buffer"]["head_id"]})
        assert box.stop() == 0
    if fast:
        assert all(
            killer.done[name] for name in ("ingest", "analytics", "both", "start", "rebuild")
        )


def test_the_audit_notices_a_loss_and_a_doubling(tmp_path: Path) -> None:
    """An audit that cannot fail would prove nothing."""
    record_dir = tmp_path / "record"
    with Appliance(tmp_path / "data") as box:
        box.start()
        with Load(lambda: box.url, record_dir, devices=2) as load:
            pause(0.5)
            load.finish()
        assert box.stop() == 0
    record = read_record(record_dir)
    audit_stopped(tmp_path / "data", record)

    acknowledged = [sent for sent in record if sent.ids is not None]
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    first = acknowledged[0].ids
    assert first is not None
    # A promise of an id that is not there, and the same rows promised under two ids.
    last = max(row_id for sent in acknowledged for row_id in sent.stored_rows())
    acknowledged[0].ids = [last + 1000 + row_id for row_id in first]
    with pytest.raises(AssertionError, match="acknowledged are lost"):
        audit_stopped(tmp_path / "other", record)
    acknowledged[0].ids = first
    journal = audit_stopped(tmp_path / "other", record)
    row_id, row = next(iter(journal.rows.items()))
    journal.rows[last + 1] = row
    with pytest.raises(AssertionError, match="there twice"):
        check_record(record, journal)
    del journal.rows[last + 1], journal.rows[row_id]
    with pytest.raises(AssertionError, match="lost"):
        check_record(acknowledged, journal)
