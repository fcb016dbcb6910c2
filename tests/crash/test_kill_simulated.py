"""kill -9 under a simulated fleet at full speed: its own audit finds everything, once (I1, I2)."""

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from support.appliance import Appliance, clean_environment, ocean_command
from support.waiting import pause, until

SEED = int(os.environ.get("OCEAN_CRASH_SEED", "20260117"))
ENDED_WITHIN_S = 300.0
COMING_IN_WITHIN_S = 30.0

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]

SHORT, LONG = 3, 30
# Without a key, as sensors of the same machine. The others find the port and the owner's key anew
# after each start.
BY_ADDRESS = frozenset({"single", "ndjson", "block"})


class Simulator:
    """``ocean simulate`` beside the box, until it is told to end."""

    def __init__(self, log_path: Path, *arguments: str) -> None:
        self._log_path = log_path
        self._log = log_path.open("wb")
        self._process = subprocess.Popen(
            ocean_command(
                "simulate", "--for", "1000", "--verify", "--json", "--give-up", "60", *arguments,
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
    ("form", "compress", "kills"),
    [
        ("single", "none", SHORT),
        ("rows", "none", SHORT),
        ("block", "zstd", SHORT),
        *(
            pytest.param(form, compress, LONG, marks=pytest.mark.long)
            for form, compress in (("single", "none"), ("rows", "none"), ("columnar", "gzip"),
                                   ("ndjson", "none"), ("block", "zstd"))
        ),
    ],
)  # fmt: skip
def test_the_simulator_audits_clean_through_kills(
    tmp_path: Path, form: str, compress: str, kills: int
) -> None:
    print(f"OCEAN_CRASH_SEED={SEED}")
    chance = random.Random(f"{SEED}-{form}-{kills}")
    with Appliance(tmp_path / "data") as box:
        box.start()
        arguments = ("--format", form, "--compress", compress, "--seed", str(SEED))
        if form in BY_ADDRESS:
            box.keep_port()
            where = ("--url", box.url)
        else:
            where = ("--data-dir", str(box.data_dir))
        with Simulator(tmp_path / "simulator.stderr", *where, *arguments) as simulator:
            for _ in range(kills):
                wait_for_readings(box)
                pause(chance.uniform(0.05, 0.9))
                if chance.random() < 0.3:
                    box.kill("analytics")
                    pause(chance.uniform(0.02, 0.4))
                box.kill("ingest")
                pause(chance.uniform(0.0, 0.5))
                box.start()
            pause(chance.uniform(0.2, 1.0))
            result = simulator.end()
        print(json.dumps(result, indent=1))
        audit = result["audit"]
        assert audit["clean"], audit
        assert (audit["lost"], audit["doubled"], audit["series_differing"]) == (0, 0, 0)
        assert audit["found"] == audit["acknowledged"] == result["acknowledged"] > 0
        assert not result["gave_up"]
        assert result["unresolved"] == 0
        assert result["lost_answers"] >= kills // 2, "the kills did not hit a request under way"
        assert result["repeats_not_recognised"] == 0
        assert box.stop() == 0
