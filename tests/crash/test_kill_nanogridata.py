"""kill -9 under 500 devices that send frames at full speed: all that was acknowledged, once (I1, I2)."""

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from support.appliance import Appliance, clean_environment, ocean_command
from support.frame_appliance import frame_settings, keep_frames_port, write_secret
from support.waiting import pause, until

SEED = int(os.environ.get("OCEAN_CRASH_SEED", "20260117"))
DEVICES = 500
ENDED_WITHIN_S = 300.0
COMING_IN_WITHIN_S = 60.0

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]

SHORT, LONG = 3, 20


class Fleet:
    """``ocean simulate --protocol nanogridata`` beside the box, until it is told to end."""

    def __init__(self, log_path: Path, *arguments: str) -> None:
        self._log_path = log_path
        self._log = log_path.open("wb")
        self._process = subprocess.Popen(
            ocean_command(
                "simulate", "--protocol", "nanogridata", "--sensors", str(DEVICES), "--for", "1000",
                "--verify", "--json", "--give-up", "60", *arguments,
            ),
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )  # fmt: skip

    def end(self) -> Any:
        """End it with Ctrl-C, let it audit, and return its result."""
        assert self._process.poll() is None, "it ended by itself"
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=ENDED_WITHIN_S)
        assert self._process.returncode == 130, (self._process.returncode, output[-2000:])
        return json.loads(output)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=10)
        self._log.close()
        print(self._log_path.read_text(encoding="utf-8", errors="replace")[-4000:])


def wait_for_readings(box: Appliance) -> None:
    def head_id() -> int:
        return int(box.status()["buffer"]["head_id"])

    before = head_id()
    until(lambda: head_id() > before, within_s=COMING_IN_WITHIN_S, what="readings come in")


@pytest.mark.parametrize(
    ("level", "faults", "kills"),
    [
        (1, "few", SHORT),
        pytest.param(1, "none", LONG, marks=pytest.mark.long),
        pytest.param(0, "many", LONG, marks=pytest.mark.long),
        pytest.param(2, "few", LONG, marks=pytest.mark.long),
    ],
)
def test_devices_lose_and_double_nothing_through_kills(
    tmp_path: Path, level: int, faults: str, kills: int
) -> None:
    print(f"OCEAN_CRASH_SEED={SEED}")
    chance = random.Random(f"{SEED}-{level}-{faults}-{kills}")
    secret_file = write_secret(tmp_path / "secret")
    with Appliance(tmp_path / "data", settings=frame_settings(secret_file)) as box:
        box.start()
        if chance.random() < 0.5:
            # Else another port after each start, which the devices find.
            keep_frames_port(box)
        arguments = ("--data-dir", str(box.data_dir), "--level", str(level), "--faults", faults,
                     "--secret-file", str(secret_file), "--seed", str(SEED))  # fmt: skip
        with Fleet(tmp_path / "simulator.stderr", *arguments) as fleet:
            for _ in range(kills):
                wait_for_readings(box)
                pause(chance.uniform(0.05, 0.9))
                if chance.random() < 0.3:
                    box.kill("analytics")
                    pause(chance.uniform(0.02, 0.4))
                box.kill("ingest")
                pause(chance.uniform(0.0, 0.5))
                box.start()
            wait_for_readings(box)
            pause(chance.uniform(0.2, 1.0))
            result = fleet.end()
        print(json.dumps(result, indent=1))
        audit = result["audit"]
        assert audit["clean"], audit
        assert (audit["lost"], audit["doubled"], audit["series_differing"]) == (0, 0, 0)
        assert audit["found"] == audit["acknowledged"] == result["acknowledged"] > 0
        assert not result["gave_up"]
        assert result["unresolved"] == 0
        assert result["lost_answers"] >= kills, "the kills did not hit frames under way"
        assert result["resent"] > 0
        assert result["repeats_not_recognised"] == 0
        # Clocks that are wrong are refused for it, and nothing else is.
        assert set(result["refused_reasons"]) <= {"E_STALE", "E_FUTURE"}
        assert bool(result["refused"]) == (faults != "none")
        assert box.stop() == 0
