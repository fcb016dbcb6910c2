"""The executable that we ship: one file, two programs, three processes.

The launcher unpacks and waits; ingest is its child, analytics the child of ingest. Whichever dies,
nothing that was acknowledged is lost and nothing is left behind. OCEAN_EXECUTABLE names another
file than dist/ocean.
"""

import fcntl
import json
import os
import random
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
from backports import zstd

from support.appliance import Appliance, run_ocean
from support.paths import EXECUTABLE, PACKAGE
from support.waiting import pause, until
from support.web import BATCH, INGEST, Reply, sensor_path

pytestmark = [pytest.mark.appliance, pytest.mark.e2e]

SENSOR = "hall-3/temp"
READINGS = 1000
FIRST_ANSWER_WITHIN_S = 10.0
VISIBLE_WITHIN_S = 20.0
MARKER = ".ocean"
START_KILLS = 8
START_TAKES_S = 1.2


@pytest.fixture(autouse=True)
def executable(monkeypatch: pytest.MonkeyPatch) -> Path:
    path = Path(os.environ.get("OCEAN_EXECUTABLE", EXECUTABLE)).absolute()
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make appliance` first")
    monkeypatch.setenv("OCEAN_EXECUTABLE", str(path))
    return path


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Where the launcher unpacks, so that a test sees what it leaves behind."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return folder


@pytest.fixture
def appliance(tmp_path: Path, unpacked: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path / "data", TMPDIR=str(unpacked)) as made:
        yield made


def launcher_of(appliance: Appliance) -> psutil.Process:
    parent = psutil.Process(appliance.pid).parent()
    assert parent is not None
    return parent


def analytics_of(appliance: Appliance, *, other_than: int = 0) -> int:
    def found() -> int | None:
        pid = appliance.analytics_pid()
        return pid if pid != other_than else None

    return until(found, within_s=VISIBLE_WITHIN_S, what="analytics run")


def send(appliance: Appliance, first: int = 0) -> None:
    """Store READINGS readings, one a second from 2026-01-01; the value is the number."""
    start = 1_767_225_600
    readings = [
        {"sensor_id": SENSOR, "timestamp": start + number, "value": number}
        for number in range(first, first + READINGS)
    ]
    with closing(appliance.http()) as http:
        assert http.post(BATCH, readings).good()["count"] == READINGS


def ask(appliance: Appliance, question: str, **query: str) -> Reply:
    window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    with closing(appliance.http()) as http:
        return http.get(sensor_path(SENSOR, question), **window, **query)


def wait_for_readings(appliance: Appliance, count: int) -> None:
    """Wait until queries see exactly this many readings, the right ones."""

    def seen() -> Any:
        reply = ask(appliance, "stats")
        return reply.json() if reply.status == 200 and reply.json()["count"] >= count else None

    stats = until(seen, within_s=VISIBLE_WITHIN_S, what=f"{count} readings are visible")
    assert stats["count"] == count
    assert (stats["min_value"], stats["max_value"]) == (0, count - 1)


# --- what is inside -----------------------------------------------------------------------------


def test_version_and_settings() -> None:
    started = time.monotonic()
    version = run_ocean("version")
    print(f"ocean version: {time.monotonic() - started:.2f} s")
    assert (version.returncode, version.stdout) == (0, "2.0.0\n"), version.stderr
    assert "port = 8030" in run_ocean("config", "show").stdout


@pytest.fixture
def archive(executable: Path) -> Any:
    readers = pytest.importorskip("PyInstaller.archive.readers")
    return readers.CArchiveReader(str(executable))


def test_marker_of_our_folder_is_unpacked_first(archive: Any) -> None:
    unpacked = [name for name, entry in archive.toc.items() if entry[-1] in {"b", "x"}]
    assert unpacked[0] == MARKER


def test_every_data_file_is_inside(archive: Any) -> None:
    expected = {
        f"ocean_core/{path.relative_to(PACKAGE)}": path.read_bytes()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    zones = files("tzdata.zoneinfo")
    expected |= {f"tzdata/zoneinfo/{name}": content for name, content in zone_files(zones)}
    assert len(expected) > 500
    wrong = [name for name, content in expected.items() if packed(archive, name) != content]
    assert wrong == []


def zone_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_file() and not entry.name.endswith((".py", ".pyc")):
            yield prefix + entry.name, entry.read_bytes()
        elif entry.is_dir() and entry.name != "__pycache__":
            yield from zone_files(entry, f"{prefix}{entry.name}/")


def packed(archive: Any, name: str) -> bytes | None:
    return archive.extract(name) if name in archive.toc else None


# --- working ------------------------------------------------------------------------------------


def test_takes_readings_answers_and_stops(appliance: Appliance, unpacked: Path) -> None:
    started = time.monotonic()
    appliance.launch()
    appliance.wait_ready(FIRST_ANSWER_WITHIN_S)
    print(f"first answer: {time.monotonic() - started:.2f} s")
    with closing(appliance.http()) as http:
        http.post(INGEST, {"sensor_id": "door", "value": 1}).good()
        # What expands it is a library of its own.
        packed = zstd.compress(b'{"sensor_id": "door", "value": 0}')
        http.post(INGEST, packed, headers={"Content-Encoding": "zstd"}).good()
    send(appliance)
    wait_for_readings(appliance, READINGS)
    print(f"first query: {time.monotonic() - started:.2f} s")
    series = ask(appliance, "timeseries", interval="5m", tz="Asia/Kathmandu").good()
    assert series
    assert run_ocean("status", "--data-dir", str(appliance.data_dir)).returncode == 0

    launcher = launcher_of(appliance)
    launcher.send_signal(signal.SIGTERM)
    assert appliance.wait_end(30) == 0
    appliance.wait_gone()
    assert list(unpacked.iterdir()) == []
    assert not (appliance.data_dir / "run.json").exists()


def test_processes_share_one_unpacked_folder(appliance: Appliance, unpacked: Path) -> None:
    appliance.start()
    analytics = psutil.Process(analytics_of(appliance))
    assert analytics.ppid() == appliance.pid
    assert launcher_of(appliance).pid == os.getpgid(appliance.pid)
    send(appliance)
    wait_for_readings(appliance, READINGS)
    (folder,) = unpacked.iterdir()
    for pid in (appliance.pid, analytics.pid):
        assert f"{folder}/" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    assert "_duckdb" not in Path(f"/proc/{appliance.pid}/maps").read_text(encoding="utf-8")


def test_needs_no_environment_and_no_writable_folder(tmp_path: Path, unpacked: Path) -> None:
    # Not even root can make files in /proc.
    bare = ("/usr/bin/env", "-i", "-C", "/proc", f"TMPDIR={unpacked}")
    with Appliance(tmp_path / "data", prefix=bare) as appliance:
        appliance.start()
        send(appliance)
        wait_for_readings(appliance, READINGS)
        assert appliance.stop() == 0


def test_accounts_keys_and_certificates_are_inside(tmp_path: Path) -> None:
    """Each of these brings a library of its own: argon2, cryptography, SQLite, the viewer."""
    data_dir = str(tmp_path / "data")
    made = run_ocean("tls", "self-signed", "--data-dir", data_dir)
    assert made.returncode == 0, made.stderr
    named = (
        "keys",
        "create",
        "--name",
        "hall",
        "--scope",
        "ingest",
        "--data-dir",
        data_dir,
        "--json",
    )
    key = run_ocean(*named)
    assert key.returncode == 0, key.stderr
    bearer = {"Authorization": f"Bearer {json.loads(key.stdout)['key']}"}
    user = {"username": "ada", "email": "ada@x.example", "password": "correct horse battery"}
    with Appliance(
        tmp_path / "data", OCEAN_NETWORK__HOST="127.0.0.1", OCEAN_NETWORK__PORT="0"
    ) as box:
        box.start()
        http = box.http()
        http.post("/api/ocean/users", user).good()
        login = {"username": "ada", "password": user["password"]}
        assert http.post("/api/ocean/sessions/create", login).good()["token"]
        assert b"Ocean" in http.get("/api/ocean/docs/ui").body
        outside = json.loads((box.data_dir / "run.json").read_text())["network_url"]
        context = ssl.create_default_context(cafile=str(box.data_dir / "tls" / "cert.pem"))
        request = Request(
            outside + INGEST,
            json.dumps({"sensor_id": "far", "value": 1}).encode(),
            {"Content-Type": "application/json", **bearer},
        )
        with urlopen(request, timeout=20, context=context) as answer:
            assert json.load(answer)["buffered"] is True
        assert box.stop() == 0


def test_ctrl_c_stops_it_cleanly(appliance: Appliance) -> None:
    appliance.start()
    send(appliance)
    # A terminal sends the signal to all processes at once.
    os.killpg(launcher_of(appliance).pid, signal.SIGINT)
    assert appliance.wait_end(30) == 0
    appliance.wait_gone()
    appliance.start()
    assert "runtime.unclean_stop" not in appliance.log()
    wait_for_readings(appliance, READINGS)


# --- dying --------------------------------------------------------------------------------------


def kill_launcher(appliance: Appliance) -> None:
    launcher_of(appliance).kill()
    appliance.wait_end(10)
    appliance.wait_gone()


def kill_ingest(appliance: Appliance) -> None:
    appliance.kill("ingest")


def kill_both(appliance: Appliance) -> None:
    appliance.kill("analytics", "ingest")


@pytest.mark.parametrize("kill", [kill_launcher, kill_ingest, kill_both])
def test_nothing_is_lost_or_left_when_it_is_killed(
    kill: Callable[[Appliance], None], appliance: Appliance, unpacked: Path
) -> None:
    appliance.start()
    send(appliance)
    kill(appliance)
    appliance.start()
    assert len(list(unpacked.iterdir())) == 1, "the folder of the killed launcher is still there"
    wait_for_readings(appliance, READINGS)
    send(appliance, READINGS)
    wait_for_readings(appliance, 2 * READINGS)
    assert appliance.stop() == 0
    assert list(unpacked.iterdir()) == []


def test_analytics_come_back_when_killed(appliance: Appliance) -> None:
    appliance.start()
    send(appliance)
    wait_for_readings(appliance, READINGS)
    first, ingest = analytics_of(appliance), appliance.pid
    appliance.kill("analytics")
    send(appliance, READINGS)
    analytics_of(appliance, other_than=first)
    wait_for_readings(appliance, 2 * READINGS)
    assert appliance.pid == ingest
    assert appliance.stop() == 0


def test_launcher_may_be_killed_at_any_moment_of_a_start(appliance: Appliance) -> None:
    for _ in range(START_KILLS):
        appliance.launch()
        # Until run.json is there, this is the process that was started: the launcher.
        launcher = appliance.pid
        pause(random.uniform(0, START_TAKES_S))
        os.kill(launcher, signal.SIGKILL)
        appliance.wait_end(10)
        appliance.wait_gone()
    appliance.start()
    send(appliance)
    wait_for_readings(appliance, READINGS)
    assert appliance.stop() == 0


def test_start_removes_folders_of_killed_launchers_and_no_others(unpacked: Path) -> None:
    left, unfinished, fresh, foreign, held = (unpacked / f"_MEI0000{n:04x}abcdef" for n in range(5))
    for folder, content in [(left, "complete"), (unfinished, ""), (fresh, ""), (held, "complete")]:
        folder.mkdir()
        (folder / MARKER).write_text(content)
    foreign.mkdir()
    (foreign / "data").touch()
    long_ago = time.time() - 3600
    os.utime(unfinished / MARKER, (long_ago, long_ago))
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        assert run_ocean("version", TMPDIR=str(unpacked)).returncode == 0
    finally:
        os.close(descriptor)
    assert sorted(unpacked.iterdir()) == [fresh, foreign, held]
