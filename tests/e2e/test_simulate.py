"""`ocean simulate` against a real box: every form, its audit, its limits, and its end."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance, clean_environment, ocean_command, run_ocean
from support.scripted_http import Answer, ScriptedHttp
from support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FEW = ("--count", "6000", "--sensors", "30", "--batch", "100", "--faults", "many")
NETWORK = ("--port", "0", "--network-host", "127.0.0.1", "--network-port", "0")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    data_dir = tmp_path_factory.mktemp("box") / "data"
    made = run_ocean("tls", "self-signed", "--data-dir", str(data_dir))
    assert made.returncode == 0, made.stderr
    with Appliance(data_dir, arguments=NETWORK) as box:
        yield box.start()


def simulate(box: Appliance, *arguments: str, code: int = 0) -> Any:
    done = run_ocean(
        "simulate", "--data-dir", str(box.data_dir), "--json", *arguments, timeout_s=120
    )
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def check_clean(result: Any) -> None:
    audit = result["audit"]
    assert audit["clean"], audit
    assert audit["found"] == audit["acknowledged"] == result["acknowledged"] > 0
    assert (audit["lost"], audit["doubled"], result["unresolved"]) == (0, 0, 0)
    assert result["repeats_not_recognised"] == 0


@pytest.mark.parametrize(
    ("form", "compress"),
    [
        ("single", "none"), ("single", "zstd"), ("rows", "none"), ("rows", "gzip"),
        ("columnar", "none"), ("columnar", "zstd"), ("ndjson", "gzip"), ("block", "none"),
        ("block", "zstd"),
    ],
)  # fmt: skip
def test_every_form_is_stored_once(box: Appliance, form: str, compress: str) -> None:
    more = ("--count", "600") if form == "single" else ()
    result = simulate(box, *FEW, *more, "--format", form, "--compress", compress, "--verify")
    check_clean(result)
    # What is hours ahead may be refused by a box that trusts its clock.
    assert result["acknowledged"] + result["refused"] == result["sent"] == (600 if more else 6000)
    assert result["repeats"] > 0
    assert result["latency_ms"]["p50"] > 0


def test_sensors_measure_what_was_named_and_each_run_has_its_own(box: Appliance) -> None:
    results = [
        simulate(box, *FEW, "--metric", "temp", "--metric", "humidity", "--verify")
        for _ in range(2)
    ]
    for result in results:
        check_clean(result)
    first, second = (result["prefix"] for result in results)
    assert first != second
    page = box.http().get("/api/ocean/telemetry/digests", prefix=first, wait="true").good()
    assert {entry["metric"] for entry in page["series"]} == {"temp", "humidity"}
    assert sum(entry["count"] for entry in page["series"]) == results[0]["acknowledged"]


def test_sensors_of_an_earlier_run_may_be_used_again(box: Appliance) -> None:
    for _ in range(2):
        check_clean(simulate(box, *FEW, "--prefix", "again/", "--verify"))


def test_a_rate_and_a_time_are_kept(box: Appliance) -> None:
    result = simulate(box, "--rate", "500", "--for", "3", "--faults", "none", "--verify")
    check_clean(result)
    assert result["acknowledged"] == pytest.approx(1500, abs=250)
    assert 2.0 < result["seconds"] < 4.0


def test_through_tls_with_a_key(box: Appliance, tmp_path: Path) -> None:
    made = run_ocean(
        "keys", "create", "--name", "fleet", "--scope", "ingest", "--scope", "read", "--json",
        "--data-dir", str(box.data_dir),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    key_file = tmp_path / "key"
    key_file.write_text(json.loads(made.stdout)["key"])
    key_file.chmod(0o600)
    info = json.loads((box.data_dir / "run.json").read_bytes())
    done = run_ocean(
        "simulate", "--url", info["network_url"], "--key-file", str(key_file),
        "--cacert", str(box.data_dir / "tls" / "cert.pem"), *FEW, "--verify", "--json",
        timeout_s=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    check_clean(json.loads(done.stdout))


def test_it_tells_people_what_it_found(box: Appliance) -> None:
    done = run_ocean("simulate", "--data-dir", str(box.data_dir), *FEW, "--verify")
    assert done.returncode == 0, done.stderr
    assert "6,000 readings in" in done.stdout
    assert ", 0 lost, 0 doubled" in done.stdout
    assert "latency" in done.stdout


def test_an_audit_that_finds_a_loss_fails(box: Appliance) -> None:
    http = box.http()

    def decide(method: str, path: str, body: bytes) -> Answer:
        reply = http.request(method, path, body or None)
        content = reply.body
        if "digests" in path:
            page = json.loads(content)
            for entry in page["series"][:1]:
                entry["count"] -= 1
            content = json.dumps(page).encode()
        return reply.status, {"Content-Type": "application/json"}, content

    # A server that leaves out one reading.
    with ScriptedHttp(decide) as server:
        done = run_ocean(
            "simulate", "--url", server.url, *FEW, "--connections", "1", "--faults", "none",
            "--verify",
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "FAILED  6,000 acknowledged, 5,999 found, 1 lost, 0 doubled" in done.stdout


def test_a_server_that_refuses_everything_is_told_with_its_reason() -> None:
    def decide(method: str, path: str, body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"{}"
        problem = {"code": "OC-6006", "detail": "key 'line-3' is for sensors like 'line-3/*'"}
        return 403, {"Content-Type": "application/problem+json"}, json.dumps(problem).encode()

    with ScriptedHttp(decide) as server:
        done = run_ocean(
            "simulate", "--url", server.url, "--count", "1000000", "--connections", "2"
        )
    assert done.returncode == 1, done.stderr
    assert "requests: 403 OC-6006 key 'line-3' is for sensors like 'line-3/*'" in done.stdout
    assert "acknowledged  0 in" in done.stdout


def test_a_key_that_may_not_do_it_is_told_at_once(box: Appliance, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("ock_wrong")
    key_file.chmod(0o600)
    done = run_ocean("simulate", "--url", box.url, "--key-file", str(key_file), *FEW)
    assert done.returncode == 1
    assert "OC-6005" in done.stderr
    assert "--key-file" in done.stderr


def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    done = run_ocean("simulate", "--url", "http://127.0.0.1:9", *FEW)
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--rate", "0"), ("--format", "xml"), ("--metric", "a", "--metric", "a"), ("--for", "-1")],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...]) -> None:
    assert run_ocean("simulate", *arguments).returncode == 2


def test_ctrl_c_ends_it_and_the_summary_comes(box: Appliance) -> None:
    process = subprocess.Popen(
        ocean_command("simulate", "--data-dir", str(box.data_dir), "--for", "600", "--verify",
                      "--prefix", "ctrl-c/"),
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        until(
            lambda: box.http().get("/api/ocean/sensors/ctrl-c%2F0001/latest").status == 200,
            within_s=30, what="it sends",
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "OK  " in output
    assert "Traceback" not in errors
