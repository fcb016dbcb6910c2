"""Sockets for this machine and for the network."""

import asyncio
import io
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ocean_core.config.settings import DataSettings, NetworkSettings, ServerSettings, Settings
from ocean_core.model.access import ListenerInfo
from ocean_core.model.errors import ListenAddressError, PortError, TlsError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.runtime import listeners as module
from ocean_core.runtime.listeners import (
    Listener,
    bind_listeners,
    look_after,
    prepare_tls,
    run_info,
    startup_lines,
)
from ocean_core.runtime.tls import TlsFiles
from ocean_core.service.alarms import AlarmBook
from support.listening import make_certificate

LOCAL = ListenerInfo("local", trusted=True)
NETWORK = ListenerInfo("network", trusted=False)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_certificate(tmp_path)


@contextmanager
def bound(
    data_dir: Path, host: str = "127.0.0.1", network: str = "", **more: object
) -> Iterator[list[Listener]]:
    settings = Settings(
        server=ServerSettings(host=host, port=0),
        network=NetworkSettings(host=network, port=0, **more),  # type: ignore[arg-type]
        data=DataSettings(str(data_dir)),
    )
    clock = ManualClock()
    tls = prepare_tls(settings, clock, EventLog(clock, stream=io.StringIO()))
    found = bind_listeners(settings, tls)
    try:
        yield found
    finally:
        for listener in found:
            listener.socket.close()


def port(listener: Listener) -> int:
    number: int = listener.socket.getsockname()[1]
    return number


def test_by_default_there_is_one_for_this_machine(tmp_path: Path) -> None:
    with bound(tmp_path) as found:
        assert [(item.info, item.tls) for item in found] == [(LOCAL, None)]
        assert found[0].url == f"http://127.0.0.1:{port(found[0])}"
        assert startup_lines(found, trust_loopback=True) == [
            "open to every program on this machine; closed to the network"
        ]
        (line,) = startup_lines(found, trust_loopback=True, frames_exposed=True)
        assert line.endswith("; HTTP is closed to the network")
        assert "need a key" in startup_lines(found, trust_loopback=False)[0]
        info = run_info(found, "/d", "now")
        assert (info.url, info.network_url, info.cert) == (found[0].url, "", "")


def test_the_certificate_is_not_looked_at_without_a_network_listener(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "cert.pem").write_bytes(b"broken")
    with bound(tmp_path) as found:
        assert found[0].tls is None
    with pytest.raises(TlsError), bound(tmp_path, network="0.0.0.0"):
        pass


def test_the_network_listener_has_tls_and_no_trust_wherever_it_is(
    files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "own_addresses", lambda: ["192.0.2.7"])
    with bound(tmp_path, network="127.0.0.1") as found:
        assert [item.info for item in found] == [LOCAL, NETWORK]
        assert found[1].tls is not None
    with bound(tmp_path, network="0.0.0.0") as found:
        number = port(found[1])
        assert startup_lines(found, trust_loopback=True) == [
            "open to every program on this machine",
            f"https://0.0.0.0:{number} (for example https://192.0.2.7:{number}) for other machines: every request needs a key",
        ]
        info = run_info(found, "/d", "now")
        assert info.url == found[0].url
        assert info.network_url == f"https://127.0.0.1:{number}"
        assert info.cert == ""


def test_a_server_host_beyond_loopback_is_a_network_listener(
    files: TlsFiles, tmp_path: Path
) -> None:
    with bound(tmp_path, host="0.0.0.0") as found:
        assert [item.info for item in found] == [NETWORK]
        info = run_info(found, "/d", "now")
        assert info.url == f"https://127.0.0.1:{port(found[0])}"
        assert info.cert == str(files.cert)


def test_without_tls_there_must_be_the_wish_and_is_a_warning(tmp_path: Path) -> None:
    with pytest.raises(ListenAddressError), bound(tmp_path, network="0.0.0.0"):
        pass
    with bound(tmp_path, network="0.0.0.0", allow_plain=True) as found:
        assert found[1].tls is None
        assert "WARNING" in startup_lines(found, trust_loopback=True)[-1]
        clock = ManualClock()
        book = AlarmBook(clock, EventLog(clock, stream=io.StringIO()), MetricsRegistry(METRICS))
        asyncio.run(look_after(found, book))
        assert [alarm.name for alarm in book.open_alarms()] == ["network.plain"]


def test_a_named_certificate_that_is_missing_is_never_replaced_by_plain(tmp_path: Path) -> None:
    names = {"tls_cert": str(tmp_path / "c"), "tls_key": str(tmp_path / "k")}
    with (
        pytest.raises(TlsError, match="no such file"),
        bound(tmp_path, network="0.0.0.0", allow_plain=True, **names),
    ):
        pass


def test_all_ipv6_addresses_are_all_addresses(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bound(tmp_path, network="::", allow_plain=True) as found:
        found[1].socket.listen()
        for host in ("127.0.0.1", "::1"):
            with closing(socket.create_connection((host, port(found[1])), 10)):
                pass


def test_an_address_that_cannot_be_had_is_named_with_its_setting(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        number = taken.getsockname()[1]
        settings = Settings(
            server=ServerSettings(port=0),
            network=NetworkSettings(host="127.0.0.1", port=number, allow_plain=True),
        )
        with pytest.raises(PortError, match=rf"network\.port: 127\.0\.0\.1:{number}") as caught:
            bind_listeners(settings, None)
        assert "--network-port" in caught.value.hint
    with pytest.raises(PortError, match=r"network\.host") as caught:
        bind_listeners(Settings(network=NetworkSettings(host="192.0.2.123", port=0)), None)
    assert "address of this machine" in caught.value.hint


def test_a_certificate_about_to_expire_raises_an_alarm_that_renewal_clears(
    files: TlsFiles, tmp_path: Path
) -> None:
    make_certificate(tmp_path, days=20)
    clock = ManualClock()
    book = AlarmBook(clock, EventLog(clock, stream=io.StringIO()), MetricsRegistry(METRICS))
    with bound(tmp_path, network="127.0.0.1") as found:
        asyncio.run(look_after(found, book))
        (alarm,) = book.open_alarms()
        assert (alarm.name, alarm.detail[-10:]) == ("tls.expiring", "in 20 days")
        make_certificate(tmp_path, days=200)
        asyncio.run(look_after(found, book))
        assert book.open_alarms() == []
