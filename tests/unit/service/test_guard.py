"""Pages of other sites are kept away, programs and tunnels are not."""

import socket

import pytest

from ocean_core.model.errors import OriginError
from ocean_core.service.guard import HostNames

MACHINE = socket.gethostname()
OWN = [
    "localhost",
    "LOCALHOST:9999",
    "localhost.:8030",
    "127.0.0.1:8030",
    "[::1]:8030",
    "192.168.1.7",
    "box.localhost",
    MACHINE,
    f"{MACHINE.upper()}:8030",
    f"{MACHINE.partition('.')[0]}.local:8030",
    "metrics.factory.example:9090",
]
FOREIGN = [
    "evil.example",
    "evil.example:8030",
    "localhost.evil.example",
    "",
    "a b",
    "127.0.0.1.evil",
    "[::1",
    "factory.example",
    "localhost@evil.example",
    f"{MACHINE}.evil.example",
]


@pytest.fixture
def names() -> HostNames:
    return HostNames(["metrics.factory.example"])


@pytest.mark.parametrize("host", OWN)
def test_this_machine_under_any_of_its_names(names: HostNames, host: str) -> None:
    assert names.is_own(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names(names: HostNames, host: str) -> None:
    assert not names.is_own(host)


def check(
    names: HostNames,
    method: str,
    *,
    host: str | None = None,
    origin: str | None = None,
    fetch_site: str | None = None,
    any_host: bool = False,
) -> None:
    names.check(method, host=host, origin=origin, fetch_site=fetch_site, any_host=any_host)


def test_programs_tunnels_and_our_own_pages_pass(names: HostNames) -> None:
    check(names, "POST")
    check(names, "POST", host="localhost:18030", origin="http://localhost:18030")
    check(
        names,
        "POST",
        host="127.0.0.1:8030",
        origin="http://127.0.0.1:8030",
        fetch_site="same-origin",
    )
    check(names, "GET", host="localhost", origin="https://grafana.example")
    # On the network, under a name that only the client knows, with a key.
    check(names, "POST", host="gw.lan", origin="https://gw.lan", any_host=True)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
@pytest.mark.parametrize("any_host", [True, False])
@pytest.mark.parametrize(
    ("host", "origin", "fetch_site"),
    [
        ("localhost", "http://evil.example", None),
        ("localhost", "null", None),
        ("localhost", "", None),
        ("localhost", "http://[::1", None),
        ("localhost", "http://localhost.evil.example", None),
        # Anybody can serve a page from an address.
        ("127.0.0.1:8030", "http://6.6.6.6", None),
        ("127.0.0.1:8030", "http://192.168.1.66:8000", None),
        ("127.0.0.1:8030", "https://[2001:db8::1]", None),
        ("localhost", None, "cross-site"),
    ],
)
def test_pages_of_other_sites_change_nothing(
    names: HostNames, method: str, any_host: bool, host: str, origin: str, fetch_site: str
) -> None:
    with pytest.raises(OriginError):
        check(names, method, host=host, origin=origin, fetch_site=fetch_site, any_host=any_host)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_was_pointed_here_is_refused(names: HostNames, method: str) -> None:
    with pytest.raises(OriginError):
        check(names, method, host="evil.example:8030")


def test_remembered_names_are_bounded(names: HostNames) -> None:
    for number in range(2000):
        assert not names.is_own(f"n{number}.example")
    assert len(names._known) <= 256
