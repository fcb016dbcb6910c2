"""The box opened to the network: TLS, its limits, and a certificate that changes."""

import http.client
import json
import os
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.appliance import Appliance, run_ocean
from support.tools import require_tool
from support.waiting import until
from support.web import STATUS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

NETWORK = ("--port", "0", "--network-host", "127.0.0.1", "--network-port", "0")
PATIENCE_S = 20.0
TICK_S = 10.0


def make_certificate(data_dir: Path, *more: str) -> Path:
    made = run_ocean("tls", "self-signed", "--data-dir", str(data_dir), *more)
    assert made.returncode == 0, made.stderr
    return data_dir / "tls" / "cert.pem"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Appliance]:
    make_certificate(tmp_path / "data")
    with Appliance(
        tmp_path / "data",
        arguments=NETWORK,
        OCEAN_NETWORK__CONNECTIONS_PER_ADDRESS_MAX="4",
        OCEAN_SERVER__REQUEST_TIMEOUT_S="2",
    ) as box:
        yield box.start()
        assert "Traceback" not in box.log()
        assert "SSL error" not in box.log()


def network(box: Appliance) -> tuple[str, int]:
    info = json.loads((box.data_dir / "run.json").read_bytes())
    parts = urlsplit(info["network_url"])
    assert (parts.scheme, parts.hostname) == ("https", "127.0.0.1")
    assert parts.port is not None
    return parts.hostname, parts.port


def trusting(box: Appliance) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=box.data_dir / "tls" / "cert.pem")


def ask(box: Appliance, context: ssl.SSLContext, path: str = "/health") -> int:
    connection = http.client.HTTPSConnection(*network(box), timeout=PATIENCE_S, context=context)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def raw(box: Appliance) -> socket.socket:
    return socket.create_connection(network(box), PATIENCE_S)


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while part := sock.recv(65536):
        found += part
    return found


def test_tls_is_served_beside_the_local_listener(box: Appliance) -> None:
    until(lambda: "for other machines" in box.log(), within_s=10, what="the startup lines")
    host, port = network(box)
    assert f"https://{host}:{port} for other machines: every request needs a key" in box.log()
    assert "open to every program on this machine\n" in box.log()
    assert box.url.startswith("http://127.0.0.1:")
    assert ask(box, trusting(box)) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(box, ssl.create_default_context())
    assert box.http().get("/health").status == 200
    # Loopback or not: who comes through the network listener is not trusted.
    assert box.http().get(STATUS).status == 200
    assert ask(box, trusting(box), STATUS) == 401
    assert box.stop() == 0


def test_the_line_that_the_command_prints_works(tmp_path: Path) -> None:
    require_tool("curl")
    made = run_ocean("tls", "self-signed", "--data-dir", str(tmp_path / "data"))
    line = shlex.split(made.stdout.strip().splitlines()[-1])
    assert line[:2] == ["curl", "--cacert"]
    assert line[-1].endswith(":8443/health")
    with Appliance(tmp_path / "data", arguments=NETWORK) as box:
        box.start()
        # The address printed is that of all interfaces, on a port that may be taken here.
        for host in ("127.0.0.1", "localhost"):
            line[-1] = f"https://{host}:{network(box)[1]}/health"
            answer = subprocess.run(
                [*line, "--silent", "--show-error", "--fail"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (answer.returncode, answer.stderr) == (0, "")
        assert box.stop() == 0


def test_plain_http_and_other_noise_is_sent_away(box: Appliance) -> None:
    with raw(box) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = read_all(plain)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"OC-6011" in answer
    with raw(box) as noise:
        noise.sendall(b"\0\1\2\3" * 100)
        assert read_all(noise) == b""
    assert ask(box, trusting(box)) == 200
    assert 'network.handshake_failed address=127.0.0.1 reason="does not speak TLS"' in box.log()


def test_a_handshake_that_never_finishes_is_ended(box: Appliance) -> None:
    with raw(box) as silent, raw(box) as half:
        half.sendall(b"\x16\x03\x01\x00\xff\x01\x00")
        assert read_all(silent) == b""
        assert read_all(half) == b""
    assert ask(box, trusting(box)) == 200


def test_one_address_cannot_fill_the_box(box: Appliance) -> None:
    with ExitStack() as open_connections:
        silent = [open_connections.enter_context(raw(box)) for _ in range(12)]
        # Those who waited longest made room, and there is room for one that asks.
        assert read_all(silent[0]) == b""
        assert ask(box, trusting(box)) == 200
        assert box.http().get("/health").status == 200


def test_a_new_certificate_is_taken_over_without_a_restart(box: Appliance) -> None:
    old = trusting(box)
    assert ask(box, old) == 200
    pid = box.pid
    make_certificate(box.data_dir, "--force", "--days", "20")
    until(lambda: "tls.reloaded" in box.log(), within_s=3 * TICK_S, what="the new certificate")
    assert ask(box, trusting(box)) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(box, old)
    until(lambda: "tls.expiring" in box.alarms(), within_s=10, what="the alarm")
    # A broken one is not.
    (box.data_dir / "tls" / "key.pem").write_bytes(b"broken")
    until(lambda: "tls.reload_failed" in box.log(), within_s=3 * TICK_S, what="the warning")
    assert ask(box, trusting(box)) == 200
    assert box.pid == pid
    assert box.stop() == 0


def test_a_stop_does_not_wait_for_silent_clients(box: Appliance) -> None:
    context = trusting(box)
    with raw(box) as silent, raw(box) as greeted:
        silent.sendall(b"\x16")
        with context.wrap_socket(greeted, server_hostname="localhost") as tls:
            assert box.stop() == 0
            assert tls.recv(10) == b""


def test_without_tls_only_on_demand_and_with_an_alarm(tmp_path: Path) -> None:
    refused = run_ocean("serve", "--data-dir", str(tmp_path / "none"), *NETWORK)
    assert refused.returncode == 78
    assert "OC-1003" in refused.stderr
    with Appliance(tmp_path / "data", arguments=NETWORK, OCEAN_NETWORK__ALLOW_PLAIN="true") as box:
        box.start()
        assert "network.plain" in box.alarms()
        until(lambda: "stop with Ctrl-C" in box.log(), within_s=10, what="the startup lines")
        assert "WARNING: without TLS" in box.log()
        assert box.stop() == 0


def test_a_host_beyond_loopback_is_found_by_commands_through_its_certificate(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    # The name of the certificate is not the address that commands use.
    make_certificate(data_dir, "--name", "gateway.example")
    with Appliance(data_dir, arguments=("--host", "0.0.0.0", "--port", "0")) as box:
        box.launch()
        until(box.knows_address, within_s=30, what="run.json")
        assert box.url.startswith("https://127.0.0.1:")
        until(lambda: "runtime.started" in box.log(), within_s=30, what="the start")
        status = run_ocean("status", "--data-dir", str(data_dir))
        # With or without a key: it was reached, and its certificate was known.
        assert "certificate" not in status.stderr
        assert "OC-7004" not in status.stderr
        assert "closed to the network" not in box.log()
        assert box.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator makes files for others")
def test_made_by_the_administrator_it_belongs_to_the_owner_of_the_data(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    shutil.chown(data_dir, 12345, 12345)
    make_certificate(data_dir)
    for path in (data_dir / "tls", data_dir / "tls" / "key.pem", data_dir / "tls" / "cert.pem"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)
    assert stat.S_IMODE((data_dir / "tls" / "key.pem").stat().st_mode) == 0o600
