"""The Python engine over a running box, over a bare data directory, and through trouble."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ocean_core import get_data_engine
from ocean_core.facade import DataEngine
from ocean_core.model.errors import (
    AlreadyRunningError,
    CommandError,
    ConfigError,
    ConflictError,
    CredentialsError,
    ForbiddenError,
    InvalidReadingError,
    NotRunningError,
    SessionError,
    UnauthenticatedError,
    UnknownRecordError,
    UnknownSensorError,
    UnknownUserError,
)
from ocean_core.runtime.private_server import find_server
from support.appliance import Appliance, clean_environment, run_ocean
from support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OCEAN_") and name != "OCEAN_EXECUTABLE":
            monkeypatch.delenv(name)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[DataEngine]:
    with get_data_engine(data_dir=tmp_path / "data") as engine:
        yield engine


def story(db: DataEngine) -> None:
    """Do everything once."""
    user_id = accounts(db)
    records(db)
    telemetry(db)
    # Counted once a second.
    stats = until(
        lambda: db.get_stats() if db.get_stats()["users"] == 1 else None,
        within_s=10, what="users are counted",
    )  # fmt: skip
    assert (stats["users"], stats["sessions"], stats["telemetry_buffer"]) == (1, 0, 4)
    assert stats["telemetry_processed"] == 2
    assert stats["db_size_mb"] > 0
    db.disable_user(user_id)
    acts = {entry["act"] for entry in db.audit()}
    assert {"users.create", "sensors.rename", "sensors.forget"} <= acts


def accounts(db: DataEngine) -> str:
    user = db.create_user("ada", "ada@example.org", password="correct horse")
    with pytest.raises(ConflictError) as conflict:
        db.create_user("ADA", "b@example.org")
    assert conflict.value.fields[0].field == "username"
    assert db.get_user(user["id"]) == user == db.list_users()[0]
    with pytest.raises(UnknownUserError):
        db.get_user("nobody")
    changed = db.update_user(user["id"], email="ada@example.com")
    assert changed["email"] == "ada@example.com"

    assert db.add_credits(user["id"], 50, idempotency_key="once")["credits"] == 50
    assert db.add_credits(user["id"], 50, idempotency_key="once")["credits"] == 50
    assert db.update_credits(user["id"], -20)
    assert db.get_billing(user["id"])["credits"] == 30
    assert [entry["amount"] for entry in db.billing_ledger(user["id"])] == [-20, 50]

    session = db.create_session(user["id"], "ada", password="correct horse")
    assert db.validate_session(session["token"])["user_id"] == user["id"]
    assert [each["id"] for each in db.list_sessions()] == [session["session_id"]]
    with pytest.raises(CredentialsError):
        db.create_session(user["id"], "ada", password="wrong horse")
    db.revoke_session(session["token"])
    with pytest.raises(SessionError):
        db.validate_session(session["token"])
    other = db.create_session(user["id"])
    db.revoke_session(session_id=other["session_id"])
    return str(user["id"])


def records(db: DataEngine) -> None:
    db.set_metadata("a/b", {"big": 2**70, "none": None})
    assert db.get_metadata("a/b") == {"big": 2**70, "none": None}
    assert [entry["key"] for entry in db.list_metadata()] == ["a/b"]
    db.delete_metadata("a/b")
    with pytest.raises(UnknownRecordError):
        db.get_metadata("a/b")
    db.store_profile("p", "s/1", {"k": 1})
    assert db.get_profile("p")["metadata"] == {"k": 1}
    assert [each["profile_id"] for each in db.list_profiles(sensor_id="s/1")] == ["p"]
    db.delete_profile("p")


def telemetry(db: DataEngine) -> None:
    first = db.ingest("s/1", 1.5, "2026-01-17T08:00:00Z")["id"]
    ids = db.ingest_many([("s/1", 2.5, "2026-01-17T08:01:00Z"), ("s/1", "open")])["ids"]
    assert db.ingest_telemetry("t", b"7") not in (first, *ids)
    with pytest.raises(InvalidReadingError) as invalid:
        db.ingest("", 1)
    assert invalid.value.fields[0].field == "sensor_id"
    assert db.get_sensor_stats("s/1", wait=True)["count"] == 2
    assert len(db.get_time_series("s/1", "1m")) == 2
    assert db.get_anomalies("s/1") == []
    assert list(db.compare_sensors(["s/1", "t"])) == ["t", "s/1"]
    assert db.latest("s/1")["value"]["value"] == 2.5
    assert db.events("s/1")[0]["data"] == "open"
    with pytest.raises(UnknownSensorError):
        db.get_sensor_stats("none")

    waiting = db.unprocessed()
    assert [reading["sensor_id"] for reading in waiting].count("s/1") == 3
    assert db.mark_processed([waiting[0]["id"]]) == 1
    assert db.mark_telemetry_processed([waiting[1]["id"]])
    assert [each["id"] for each in db.get_unprocessed_telemetry()] == [
        each["id"] for each in waiting[2:]
    ]

    db.update_sensor("s/1", unit="bar", tags={"hall": "1"})
    assert db.get_sensor("s/1")["unit"] == "bar"
    assert db.rename_sensor("s/1", "s2")["aliases"] == ["s/1"]
    assert db.get_sensor("s/1")["sensor_id"] == "s2"
    assert db.forget_sensor("s2")["forgotten"] == 3
    losses = {loss["class"]: loss["count"] for loss in db.ledger()}
    assert losses == {"refused OC-2002": 1, "forgotten": 3}


def test_everything_over_a_running_box(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        with get_data_engine(box.url) as db:
            story(db)
        with get_data_engine(data_dir=box.data_dir) as db:
            assert db.url == box.url, "the one that runs is used"
            assert db.list_users()[0]["username"] == "ada"
        assert box.http().get("/health").status == 200, "what was not started is not stopped"
        assert box.stop() == 0


def test_everything_over_a_bare_directory(bare: DataEngine, tmp_path: Path) -> None:
    story(bare)
    server = find_server(tmp_path / "data")
    assert server is not None
    assert server.url == bare.url
    bare.close()
    assert find_server(tmp_path / "data") is None
    assert not (tmp_path / "data" / "run.json").exists(), "it stopped cleanly"
    assert bare.list_users()[0]["username"] == "ada", "and opens again when used again"


def test_two_engines_share_the_server_that_one_started(tmp_path: Path) -> None:
    with get_data_engine(data_dir=tmp_path / "data") as first:
        first.ingest("s", 1)
        with get_data_engine(data_dir=tmp_path / "data", timeout_s=60) as second:
            second.ingest("s", 2)
            assert second.url == first.url
            first.close()
            assert second.get_sensor_stats("s", wait=True)["count"] == 2, "it starts its own"
            assert second.url != "", "and knows where"


def test_threads_share_an_engine(bare: DataEngine) -> None:
    ids: list[int] = []

    def work() -> None:
        ids.extend(bare.ingest("s", number)["id"] for number in range(25))

    workers = [threading.Thread(target=work) for _ in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(set(ids)) == 300
    assert bare.get_sensor_stats("s", wait=True)["count"] == 300


# --- through trouble ---


def test_readings_survive_a_killed_server_once_each(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        box.keep_port()
        with get_data_engine(box.url, timeout_s=60) as db:
            done: list[int] = []

            def work() -> None:
                for number in range(2000):
                    done.append(db.ingest("s", number)["id"])  # noqa: PERF401 - it is watched

            worker = threading.Thread(target=work)
            worker.start()
            until(lambda: len(done) > 20, within_s=20, what="readings go in")
            box.kill("ingest")
            assert len(done) < 2000, "the kill came in the middle"
            box.start()
            worker.join(60)
            assert not worker.is_alive()
            assert len(set(done)) == 2000
            assert db.get_sensor_stats("s", wait=True)["count"] == 2000
        assert box.stop() == 0


def test_a_crash_leaves_a_directory_that_opens(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        with get_data_engine(data_dir=box.data_dir) as db:
            db.ingest("s", 1)
            box.kill("ingest")
            assert (box.data_dir / "run.json").exists(), "as a crash leaves it"
            assert db.get_sensor_stats("s", wait=True)["count"] == 1
            assert db.url != box.url


def test_the_key_of_the_owner_is_found_again_after_a_restart(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data", OCEAN_ACCESS__TRUST_LOOPBACK="false") as box:
        box.start()
        with get_data_engine(data_dir=box.data_dir) as db, get_data_engine(box.url) as stranger:
            db.create_user("ada", "a@example.org")
            with pytest.raises(UnauthenticatedError):
                stranger.list_users()
            assert box.stop() == 0
            box.start()
            assert len(db.list_users()) == 1
        assert box.stop() == 0


def test_a_key_may_what_it_was_made_for(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        with get_data_engine(box.url) as owner:
            key = owner.create_key("device", ["ingest"], sensors="press-*")
        with get_data_engine(box.url, key=key["key"]) as device:
            device.ingest("press-1", 1)
            with pytest.raises(ForbiddenError):
                device.ingest("other", 1)
            with pytest.raises(ForbiddenError):
                device.list_users()
        assert box.stop() == 0


def test_over_tls_with_the_certificate_of_the_box(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    made = run_ocean("tls", "self-signed", "--data-dir", str(data_dir))
    assert made.returncode == 0, made.stderr
    arguments = ("--port", "0", "--network-host", "127.0.0.1", "--network-port", "0")
    with Appliance(data_dir, arguments=arguments) as box:
        box.start()
        info = find_server(data_dir)
        assert info is not None
        assert info.network_url.startswith("https://")
        with get_data_engine(data_dir=data_dir) as owner:
            key = owner.create_key("remote", ["read"])["key"]
        with get_data_engine(
            info.network_url, key=key, cacert=data_dir / "tls" / "cert.pem"
        ) as remote:
            assert remote.sensors() == []
        with (
            get_data_engine(info.network_url, key=key) as trusting_nobody,
            pytest.raises(CommandError, match="cannot be trusted"),
        ):
            trusting_nobody.sensors()
        assert box.stop() == 0


def test_a_server_for_the_duration_opens_nothing_to_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCEAN_NETWORK__HOST", "0.0.0.0")
    monkeypatch.setenv("OCEAN_NETWORK__ALLOW_PLAIN", "true")
    monkeypatch.setenv("OCEAN_SERVER__HOST", "0.0.0.0")
    with get_data_engine(data_dir=tmp_path / "data") as db:
        db.status()
        info = find_server(tmp_path / "data")
        assert info is not None
        assert info.network_url == ""
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(info.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}


def test_a_server_for_the_duration_knows_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCEAN_ACCESS__TRUST_LOOPBACK", "false")
    with (
        get_data_engine(data_dir=tmp_path / "data") as db,
        get_data_engine(db.url) as stranger,
    ):
        db.create_user("ada", "a@example.org")
        with pytest.raises(UnauthenticatedError):
            stranger.list_users()


OPENER = """
import sys
from ocean_core import get_data_engine
db = get_data_engine(data_dir=sys.argv[1])
print(db.url, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_server_for_the_duration_ends_with_its_program(
    tmp_path: Path, sign: signal.Signals
) -> None:
    data_dir = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", OPENER, str(data_dir)],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith(b"http://127.0.0.1:")
        info = find_server(data_dir)
        assert info is not None
        program.send_signal(sign)
        program.wait(30)
        until(lambda: not psutil.pid_exists(info.pid), within_s=30, what="its server is gone")
    assert not (data_dir / "run.json").exists(), "in an orderly way"


def test_a_directory_whose_settings_are_wrong_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ocean.toml"
    config.write_text("[server]\nprot = 1\n", encoding="utf-8")
    monkeypatch.setenv("OCEAN_CONFIG", str(config))
    with pytest.raises(ConfigError, match="line 2"):
        get_data_engine(data_dir=tmp_path / "data")


def test_a_directory_that_is_held_by_something_else_is_told(tmp_path: Path) -> None:
    from ocean_core.facade.source import DataDirSource
    from ocean_core.obs.clock import ManualClock
    from ocean_core.runtime.lock import InstanceLock

    clock = ManualClock()
    source = DataDirSource(tmp_path, clock=clock, pause=clock.advance, tell=print, warn=print)
    lock = InstanceLock(tmp_path)
    lock.acquire()
    try:
        clock.advance(0)
        starts_left = iter([29.9])

        def pause(_seconds: float) -> None:
            clock.advance(next(starts_left, 1.0))

        source._pause = pause
        with pytest.raises(AlreadyRunningError, match=str(os.getpid())):
            source.target()
    finally:
        lock.release(clean=False)


def test_nobody_at_an_address_is_told_at_once() -> None:
    with get_data_engine("http://127.0.0.1:9") as db, pytest.raises(NotRunningError):
        db.status()
