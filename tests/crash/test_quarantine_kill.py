"""Retries out of quarantine across sudden deaths: each frame is stored once, and then gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import quarantine_child
from support.account_points import QUARANTINE_POINTS
from support.journal_kit import read_all, rows_of
from support.paths import REPO
from support.quarantine_child import FRAMES

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


def run(directory: Path, mode: str, fault: str = "") -> tuple[int, str]:
    program = Path(quarantine_child.__file__)
    done = subprocess.run(
        [sys.executable, str(program), str(directory), mode],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "OCEAN_FAULT": fault, "PYTHONPATH": str(REPO / "tests")},
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


# In the operational store the first commit keeps frames, the second begins a retry, the third ends it.
POINTS = [
    *QUARANTINE_POINTS,
    "journal.before_commit",
    "journal.after_commit",
    *(f"operational.{when}_commit@{nth}" for when in ("before", "after") for nth in (2, 3)),
]


@pytest.mark.parametrize("point", POINTS)
def test_death_between_the_journal_and_the_store(tmp_path: Path, point: str) -> None:
    assert run(tmp_path, "fill", point)[0] == -signal.SIGKILL
    code, told = run(tmp_path, "go on")
    assert code == 0
    assert told.split()[-1] == "0", "nothing is left in quarantine"
    stored = [row for block in read_all(tmp_path / "journal.db") for row in rows_of(block).values()]
    assert len(stored) == FRAMES
    assert len({row[0] for row in stored}) == FRAMES
