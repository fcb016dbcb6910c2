"""`ocean simulate --protocol nanogridata` against a real box: every transport and level."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance, run_ocean
from support.frame_appliance import frame_settings, frames_port, write_secret

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FRAMES = ("--protocol", "nanogridata")
FEW = ("--count", "6000", "--sensors", "30", "--faults", "many")


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_secret(tmp_path_factory.mktemp("secret") / "secret")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, secret_file: Path) -> Iterator[Appliance]:
    data_dir = tmp_path_factory.mktemp("box") / "data"
    with Appliance(data_dir, settings=frame_settings(secret_file)) as box:
        yield box.start()


def simulate(box: Appliance, *arguments: str, code: int = 0) -> Any:
    done = run_ocean(
        "simulate", *FRAMES, "--data-dir", str(box.data_dir), "--json", *arguments, timeout_s=120
    )
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def check_clean(result: Any) -> None:
    audit = result["audit"]
    assert audit["clean"], audit
    assert audit["found"] == audit["acknowledged"] == result["acknowledged"] > 0
    assert (audit["lost"], audit["doubled"], result["unresolved"]) == (0, 0, 0)
    assert result["repeats_not_recognised"] == 0


@pytest.mark.parametrize("transport", ["tcp", "http"])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_everything_acknowledged_is_stored_once(
    box: Appliance, secret_file: Path, transport: str, level: int
) -> None:
    result = simulate(
        box, *FEW, "--transport", transport, "--level", str(level),
        "--secret-file", str(secret_file), "--verify",
    )  # fmt: skip
    check_clean(result)
    assert result["acknowledged"] + result["refused"] == result["sent"] == 6000
    assert (result["format"], result["transport"]) == ("nanogridata", transport)
    assert result["level"] == level
    # Of wrong clocks: few, since the box keeps what it refuses.
    assert 0 < sum(result["refused_reasons"].values()) <= 12
    assert set(result["refused_reasons"]) == {"E_FUTURE", "E_STALE"}
    if transport == "tcp":
        assert set(result["refused_reasons"]) == {"E_STALE", "E_FUTURE"}
        assert result["repeats"] > 0
        assert result["resent"] > 0


def test_devices_measure_pressure_and_gas(box: Appliance, secret_file: Path) -> None:
    result = simulate(box, "--count", "2000", "--secret-file", str(secret_file), "--verify")
    check_clean(result)
    assert result["level"] == 1
    page = box.http().get("/api/ocean/telemetry/digests", prefix=result["prefix"]).good()
    metrics = {entry["metric"] for entry in page["series"]}
    assert "pressure" in metrics
    assert {metric.partition(":")[0] for metric in metrics} == {"pressure", "gas"}


def test_datagrams_are_counted_when_they_arrive(box: Appliance, secret_file: Path) -> None:
    result = simulate(
        box, "--transport", "udp", "--rate", "400", "--for", "3", "--faults", "none",
        "--secret-file", f"0x10={secret_file}", "--secret-file", f"0x20={secret_file}", "--verify",
    )  # fmt: skip
    assert result["acknowledged"] == 0
    assert result["audit"] is None
    arrival = result["arrival"]
    assert arrival["sent"] == result["sent"] == pytest.approx(1200, abs=300)
    assert 0.9 * arrival["sent"] <= arrival["arrived"] <= arrival["sent"]
    assert arrival["doubled"] == 0


def test_a_rate_is_kept_and_readings_are_of_now(box: Appliance, secret_file: Path) -> None:
    result = simulate(
        box, "--rate", "500", "--for", "3", "--faults", "none", "--secret-file", str(secret_file),
        "--verify", "--sensors", "20",
    )  # fmt: skip
    check_clean(result)
    assert result["acknowledged"] == pytest.approx(1500, abs=300)
    assert result["refused"] == 0


def test_it_tells_people_what_it_found(box: Appliance, secret_file: Path) -> None:
    done = run_ocean(
        "simulate", *FRAMES, "--data-dir", str(box.data_dir), *FEW, "--secret-file",
        str(secret_file), "--to", f"127.0.0.1:{frames_port(box)}", "--verify",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(nanogridata over tcp, level 1), 30 connections" in done.stdout
    assert ", 0 lost, 0 doubled" in done.stdout


def test_a_wrong_secret_ends_it_with_the_reason(box: Appliance, tmp_path: Path) -> None:
    wrong = write_secret(tmp_path / "wrong", bytes(32))
    done = run_ocean(
        "simulate", *FRAMES, "--data-dir", str(box.data_dir), "--count", "1000000",
        "--secret-file", str(wrong), "--faults", "none",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "E_MAC" in done.stdout
    assert "acknowledged  0 in" in done.stdout


@pytest.mark.parametrize("transport", ["tcp", "http", "udp"])
def test_it_is_not_ok_if_everything_was_refused(
    box: Appliance, tmp_path: Path, transport: str
) -> None:
    wrong = write_secret(tmp_path / "wrong", bytes(32))
    done = run_ocean(
        "simulate", *FRAMES, "--data-dir", str(box.data_dir), "--count", "400", "--transport",
        transport, "--secret-file", str(wrong), "--faults", "none", "--verify",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "NOTHING STORED" in done.stdout
    assert "OK" not in done.stdout
    if transport != "udp":
        assert "why   refused: E_MAC (" in done.stdout
        assert done.stdout.count("frames: E_MAC") == 1
        assert "next  give the secret" in done.stdout


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_nobody_listening_is_told(box: Appliance, secret_file: Path, transport: str) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run_ocean(
        "simulate", *FRAMES, "--data-dir", str(box.data_dir), "--for", "2", "--to",
        f"127.0.0.1:{port}", "--secret-file", str(secret_file), "--transport", transport,
        "--verify",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "NOTHING STORED" in done.stdout
    assert "connection refused" in done.stdout
    assert "next  see that the box runs and listens there" in done.stdout
    assert "OK" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (*FRAMES, "--level", "1"),
        (*FRAMES, "--format", "rows"),
        (*FRAMES, "--metric", "a"),
        (*FRAMES, "--prefix", "x" * 59),
        (*FRAMES, "--to", "nowhere"),
        (*FRAMES, "--secret-file", "0x30=/dev/null"),
        ("--transport", "udp"),
        ("--level", "0"),
        ("--to", "127.0.0.1:1"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...]) -> None:
    done = run_ocean("simulate", *arguments)
    assert done.returncode == 2, done.stderr
    assert "Error: " in done.stderr


def test_a_secret_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    done = run_ocean("simulate", *FRAMES, "--secret-file", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "none" in done.stderr
