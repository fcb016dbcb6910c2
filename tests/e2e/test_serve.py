"""The program as its user meets it: started, stopped, asked, killed, with real series."""

import json
import math
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.appliance import Appliance, clean_environment, ocean_command, run_ocean
from support.audit import ask, audit_stopped, check_all_keyed_answered, check_answers, read_journal
from support.load import Load, Writer, post, read_record
from support.nab import FILES, FOLDER, moment_us, read_series
from support.waiting import until
from support.web import INGEST, events_path, sensor_path

HOUR_US = 3_600_000_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


# --- start and stop -------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_clean_stop_under_load_loses_nothing_in_flight(
    tmp_path: Path, sign: signal.Signals
) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        with Load(lambda: box.url, tmp_path / "record", devices=6) as load:
            until(lambda: load.statuses[200] > 200, within_s=30, what="the load runs")
            assert box.stop(sign) == 0
            # Whoever was not answered was cut off: nobody was refused on the way down.
            assert set(load.statuses) <= {200, 503}
            assert "runtime.stopped" in box.log()
            assert not (box.data_dir / "run.json").exists()
            audit_stopped(box.data_dir, read_record(tmp_path / "record"))
            box.start()
            assert box.status()["previous_stop"] == "clean"
            load.finish()
        assert box.stop() == 0
        record = read_record(tmp_path / "record")
        check_all_keyed_answered(record)
        audit_stopped(box.data_dir, record)


def test_startup_lines_say_where_and_how_safe(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data", nanogridata=True) as box:
        box.start()
        until(lambda: "stop with Ctrl-C" in box.log(), within_s=10, what="the startup lines")
        told = box.log()
        where = f"tcp {box.frames_tcp} and udp {box.frames_udp}"
        assert f"Nanogridata frames on {where}, from this machine alone" in told
        assert "; closed to the network" in told
        assert box.status()["frames"]["tcp"] == box.frames_tcp
        assert f"listens on {box.url}" in told
        assert f"data in {tmp_path / 'data'}" in told
        assert "durability fsync: acknowledged readings survive a power cut" in told
        assert re.search(r"runtime\.started .*previous_stop=clean", told)
        assert box.stop() == 0


def test_reduced_durability_is_told_everywhere(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data", OCEAN_JOURNAL__DURABILITY="os") as box:
        box.start()
        until(lambda: "stop with Ctrl-C" in box.log(), within_s=10, what="the startup lines")
        assert "WARNING: a power cut may lose acknowledged readings" in box.log()
        assert box.status()["buffer"]["durability"] == "os"
        assert "durability.reduced" in box.alarms()
        assert "ocean_runtime_durability_reduced 1" in box.http().get("/metrics").body.decode()
        assert box.stop() == 0


def test_unclean_stop_is_reported_once(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        assert box.status()["previous_stop"] == "clean"
        box.kill("ingest")
        box.start()
        assert box.status()["previous_stop"] == "unclean"
        assert "runtime.unclean_stop" in box.log()
        assert box.stop() == 0
        box.start()
        assert box.status()["previous_stop"] == "clean"
        assert box.stop() == 0


def test_second_instance_names_the_first(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        second = run_ocean("serve", "--port", "0", "--data-dir", str(box.data_dir))
        assert second.returncode == 75, second.stderr
        assert f"process {box.pid} " in second.stderr
        assert box.url in second.stderr
        assert "OC-7001" in second.stderr
        assert box.http().get("/health", ready="true").status == 200, "the first goes on"
        assert box.stop() == 0


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = run_ocean("serve", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1, ended.stderr
    assert "OC-7003" in ended.stderr
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    with Appliance(tmp_path / "data") as box:
        box.start()
        assert box.status()["previous_stop"] == "clean", "what never ran did not stop uncleanly"
        assert box.stop() == 0


def test_unknown_setting_names_file_line_and_nearest(tmp_path: Path) -> None:
    config = tmp_path / "ocean.toml"
    config.write_text('[server]\nport = 0\n\n[journal]\ndurabilty = "fsync"\n')
    ended = run_ocean(
        "serve", "--config", str(config), "--data-dir", str(tmp_path / "data")
    )  # fmt: skip
    assert ended.returncode == 78, ended.stderr
    assert f"{config}, line 5" in ended.stderr
    assert "`journal.durabilty`" in ended.stderr
    assert "did you mean `journal.durability`?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--host", "0.0.0.0"), 78),
        (("--host", "::"), 78),
        (("--host", "192.168.1.7"), 78),
        (("--host", "nowhere.example"), 78),
        (("--port", "70000"), 78),
        (("--port", "many"), 2),
        (("--unknown",), 2),
    ],
    ids=str,
)
def test_refused_arguments(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    ended = run_ocean("serve", *arguments, "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.strip()
    assert "Traceback" not in ended.stderr


def test_address_other_than_loopback_is_explained(tmp_path: Path) -> None:
    ended = run_ocean("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data"))
    assert "OC-1003" in ended.stderr
    assert "keys" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    ended = run_ocean("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert ended.returncode == 1, ended.stderr
    assert "OC-7002" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- ocean status ---------------------------------------------------------------------------------


def test_status_command(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        assert post(box.http(), Writer("device", 1, seed=1).batch(10))
        analytics_up(box)
        plain = run_ocean("status", "--data-dir", str(box.data_dir))
        assert plain.returncode == 0, plain.stderr
        assert re.search(r"^(OK|DEGRADED) +Ocean Core 2", plain.stdout)
        assert "last id 10" in plain.stdout
        assert "durability fsync" in plain.stdout
        as_json = run_ocean("status", "--json", "--url", box.url)
        assert as_json.returncode == 0, as_json.stderr
        status = json.loads(as_json.stdout)
        assert status["buffer"]["head_id"] == 10
        assert status["ingest"]["acknowledged"] == 10
        assert status["data_dir"] == str(box.data_dir)
        assert status["processes"]["ingest"]["pid"] == box.pid
        assert status["flash"]["written_mb"] >= 0
        quickly = ("--watch", "--interval", "0.2", "--count", "2")
        watched = run_ocean("status", *quickly, "--data-dir", str(box.data_dir))
        assert watched.returncode == 0, watched.stderr
        assert re.search(r"readings/s.*\n\d\d:\d\d:\d\d +(OK|DEGRADED) ", watched.stdout)
        assert box.stop() == 0
    gone = run_ocean("status", "--data-dir", str(tmp_path / "data"))
    assert gone.returncode == 1
    assert "OC-7004" in gone.stderr


def test_status_of_a_killed_server(tmp_path: Path) -> None:
    """run.json is still there; nobody answers at the address that it names."""
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.kill("ingest")
        gone = run_ocean("status", "--data-dir", str(box.data_dir))
        assert gone.returncode == 1
        assert "OC-7004" in gone.stderr
        assert "Traceback" not in gone.stderr


def analytics_up(box: Appliance) -> None:
    until(
        lambda: box.status()["analytics"]["state"] == "up", within_s=30, what="analytics are up"
    )  # fmt: skip


# --- real series ----------------------------------------------------------------------------------


def test_replayed_series_equal_numpy(tmp_path: Path) -> None:
    """Statistics, time series, anomalies and comparison of real series against numpy."""
    assert len(FILES) == 3
    with Appliance(tmp_path / "data") as box:
        box.start()
        for path, again in [*((path, False) for path in FILES), (FILES[0], True)]:
            done = run_ocean(
                "replay", str(path), "--sensor", path.stem, "--data-dir", str(box.data_dir),
                "--json",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            rows = len(read_series(path))
            assert json.loads(done.stdout) == {
                "rows": rows,
                "acknowledged": rows,
                "stored_before": rows if again else 0,
                "sensor_id": path.stem,
            }  # fmt: skip
        # Once from memory as it came in, once from the file after a restart.
        for path in FILES:
            check_series(box, path)
        check_compare(box)
        assert box.stop() == 0
        box.start()
        for path in FILES:
            check_series(box, path)
        check_compare(box)
        assert box.stop() == 0


def check_series(box: Appliance, path: Path) -> None:
    series = read_series(path)
    values, moments = series.values, series.moments_us
    stats = ask(box, sensor_path(path.stem, "stats"))
    assert stats["count"] == len(values)
    assert stats["min_value"] == values.min()
    assert stats["max_value"] == values.max()
    assert math.isclose(stats["avg_value"], values.mean(), rel_tol=1e-12)
    assert math.isclose(stats["stddev_value"], values.std(ddof=1), rel_tol=1e-9)
    assert moment_us(stats["first_reading"]) == moments.min()
    assert moment_us(stats["last_reading"]) == moments.max()

    hours = moments // HOUR_US
    buckets = ask(box, sensor_path(path.stem, "timeseries"), interval="1h")["data"]
    assert [moment_us(bucket["bucket"]) // HOUR_US for bucket in buckets] == sorted(set(hours))
    for bucket in buckets:
        inside = values[hours == moment_us(bucket["bucket"]) // HOUR_US]
        assert bucket["count"] == len(inside)
        assert bucket["min_value"] == inside.min()
        assert bucket["max_value"] == inside.max()
        assert math.isclose(bucket["avg_value"], inside.mean(), rel_tol=1e-12)

    for threshold in (2.0, 3.0):
        found = ask(
            box, sensor_path(path.stem, "anomalies"), threshold=threshold, limit=10_000
        )  # fmt: skip
        scores = (values - values.mean()) / values.std(ddof=1)
        far = np.abs(scores) > threshold
        assert found["count"] == int(far.sum())
        told = sorted((moment_us(a["timestamp"]), a["value"]) for a in found["anomalies"])
        assert told == sorted(zip(moments[far].tolist(), values[far].tolist(), strict=True))
        expected = sorted(scores[far].tolist())
        assert np.allclose(sorted(a["z_score"] for a in found["anomalies"]), expected, rtol=1e-9)


def check_compare(box: Appliance) -> None:
    reply = box.http().post(
        "/api/ocean/analytics/compare", {"sensor_ids": [path.stem for path in FILES]}
    )
    comparison = reply.good()["comparison"]
    series = {path.stem: read_series(path).values for path in FILES}
    assert list(comparison) == sorted(series, key=lambda name: -series[name].mean())
    for name, values in series.items():
        assert comparison[name]["count"] == len(values)
        assert math.isclose(comparison[name]["avg_value"], values.mean(), rel_tol=1e-12)
        assert math.isclose(comparison[name]["stddev_value"], values.std(ddof=1), rel_tol=1e-9)


def test_replay_across_kills_stores_every_row_once(tmp_path: Path) -> None:
    path = FOLDER / "ec2_request_latency_system_failure.csv"
    series = read_series(path)
    # The whole recording in some five seconds, row by row.
    span_s = (series.moments_us.max() - series.moments_us.min()) / 1e6
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.keep_port()
        replay = subprocess.Popen(
            ocean_command(
                "replay", str(path), "--sensor", "m1", "--speed", str(span_s / 5),
                "--data-dir", str(box.data_dir), "--json",
            ),
            env=clean_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            for share in (0.2, 0.6):
                wanted = int(share * len(series))
                until(
                    lambda wanted=wanted: box.status()["buffer"]["head_id"] >= wanted,  # type: ignore[misc]
                    within_s=60, what=f"{wanted} rows are stored",
                )  # fmt: skip
                assert replay.poll() is None, "the replay is over too early to be disturbed"
                box.kill("ingest")
                box.start()
            told, errors = replay.communicate(timeout=90)
        finally:
            replay.kill()
            replay.wait(10)
        assert replay.returncode == 0, errors.decode()
        assert json.loads(told)["acknowledged"] == len(series)
        stats = ask(box, sensor_path("m1", "stats"))
        assert stats["count"] == len(series)
        assert box.stop() == 0
    held = read_journal(tmp_path / "data")
    stored = sorted((held.moments[i], row.value) for i, row in held.rows.items())
    assert stored == sorted(
        zip(series.moments_us.tolist(), series.values.tolist(), strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("timestamp,value\n2026-01-01 00:00:00,high\n", "line 2, column 'value'"),
        ("when,value\n2026-01-01 00:00:00,1\n", "the first line must name a time column"),
        ("timestamp,value\n", "there are no rows"),
        ("timestamp,value\n2026-01-01 00:00:00,1,2\n", "line 2: 3 cells"),
        ("timestamp,value\nyesterday,1\n", "timestamp"),
    ],
    ids=["no number", "no time column", "no rows", "too many cells", "no time"],
)
def test_replay_of_a_broken_file(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with Appliance(tmp_path / "data") as box:
        box.start()
        done = run_ocean("replay", str(tmp_path / "bad.csv"), "--sensor", "x", "--url", box.url)
        assert done.returncode == 1, done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert box.status()["buffer"]["head_id"] == 0
        assert box.stop() == 0


# --- questions ------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_seen(tmp_path: Path) -> None:
    """At once by the first question about a new sensor and by wait=true; within 1 s by any."""
    with Appliance(tmp_path / "data") as box:
        box.start()
        analytics_up(box)
        http = box.http()
        for number in range(5):
            name = f"new-{number}"
            http.post(INGEST, {"sensor_id": name, "value": 41.5}).good()
            assert http.get(sensor_path(name, "stats")).good()["count"] == 1
            http.post(INGEST, {"sensor_id": name, "value": 42.5}).good()
            assert http.get(sensor_path(name, "stats"), wait="true").good()["count"] == 2
            http.post(INGEST, {"sensor_id": name, "value": 43.5}).good()
            until(
                lambda name=name: http.get(sensor_path(name, "stats")).good()["count"] == 3,  # type: ignore[misc]
                within_s=1, what="the third reading",
            )  # fmt: skip
        assert box.stop() == 0


@pytest.mark.parametrize("name", ["a/b", "/", "line 1/motör#2?x=1&y", "100%", "%2F", "..", "ö"])
def test_sensor_ids_of_any_letters(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    with Appliance(tmp_path_factory.mktemp("names") / "data") as box:
        box.start()
        analytics_up(box)
        http = box.http()
        answer = http.post(INGEST, {"sensor_id": name, "value": 2.5}).good()
        assert answer["sensor_id"] == name
        http.post(INGEST, {"sensor_id": name, "data": {"state": "on"}}).good()
        stats = http.get(sensor_path(name, "stats"), wait="true").good()
        assert (stats["sensor_id"], stats["count"]) == (name, 1)
        events = http.get(events_path(name), wait="true").good()
        assert [event["data"] for event in events["events"]] == [{"state": "on"}]
        listed = http.get("/api/ocean/sensors").good()["sensors"]
        assert [sensor["sensor_id"] for sensor in listed] == [name]
        assert box.stop() == 0


def test_unknown_sensor_is_a_problem_document(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        analytics_up(box)
        box.http().get(sensor_path("nobody", "stats")).problem(404, "OC-5002")
        assert box.stop() == 0


# --- analytics die --------------------------------------------------------------------------------


def test_ingest_does_not_notice_the_death_of_analytics(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        analytics_up(box)
        with Load(lambda: box.url, tmp_path / "record", devices=2) as load:
            until(lambda: load.statuses[200] > 50, within_s=30, what="the load runs")
            first = box.analytics_pid()
            box.kill("analytics")
            refused = until(
                lambda: find_refusal(box), within_s=10, every_s=0.002, what="a refused query"
            )
            assert int(refused) >= 1
            until(
                lambda: "alarm.raised alarm=analytics.down" in box.log(),
                within_s=10, what="the alarm",
            )  # fmt: skip
            answers = load.statuses[200]
            until(lambda: load.statuses[200] > answers + 20, within_s=10, what="ingest goes on")
            until(
                lambda: box.http().get(sensor_path("device-0", "stats"), metric="value").status == 200,
                within_s=30, what="queries are answered again",
            )  # fmt: skip
            assert box.analytics_pid() != first
            until(
                lambda: "analytics.down" not in box.alarms(), within_s=10, what="the alarm is gone"
            )  # fmt: skip
            load.finish()
        assert set(load.statuses) == {200}, "not one request was refused"
        assert "analytics.exited code=-9" in box.log()
        assert box.stop() == 0
        held = audit_stopped(box.data_dir, read_record(tmp_path / "record"))
        box.start()
        check_answers(box, held)
        assert box.stop() == 0


def find_refusal(box: Appliance) -> str | None:
    """Return the Retry-After of a refused query, None if it was answered."""
    reply = box.http().get(sensor_path("device-0", "stats"), metric="value")
    if reply.status == 200:
        return None
    reply.problem(503, "OC-5006")
    return reply.headers["retry-after"]


def test_nothing_is_left_behind_by_a_killed_ingest_process(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        analytics_up(box)
        # Fails when analytics outlive ingest.
        box.kill("ingest")
        assert box.analytics_pid() is None


def test_closed_terminal_is_a_clean_stop(tmp_path: Path) -> None:
    """A terminal that goes away (SIGHUP) ends it in an orderly way."""
    with Appliance(tmp_path / "data") as box:
        box.start()
        os.kill(box.pid, signal.SIGHUP)
        assert box.wait_end(30) == 0


def test_standard_error_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """What is told may be lost; that it cannot be told is no reason to refuse readings."""
    with Appliance(tmp_path / "data", log_path=Path("/dev/full")) as box:
        box.start()
        assert post(box.http(), Writer("device", 1, seed=1).single())
        analytics_up(box)
        assert box.stop() == 0
