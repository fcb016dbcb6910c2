"""Pages of other sites are kept away, programs and tunnels are not."""

import pytest
from litestar import Request
from litestar.testing import RequestFactory

from ocean_core.api.guard import is_own_host, refuse_foreign_pages
from ocean_core.model.errors import OriginError

OWN = [
    "localhost",
    "localhost:9999",
    "127.0.0.1:8030",
    "[::1]:8030",
    "192.168.1.7",
    "box.localhost",
]
FOREIGN = [
    "evil.example",
    "evil.example:8030",
    "localhost.evil.example",
    "",
    "a b",
    "127.0.0.1.evil",
]


def request(method: str, **headers: str) -> Request:  # type: ignore[type-arg]
    factory = RequestFactory()
    make = factory.post if method == "POST" else factory.get
    return make("/x", headers=headers)


@pytest.mark.parametrize("host", OWN)
def test_this_machine_under_any_of_its_names(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names(host: str) -> None:
    assert not is_own_host(host)


def test_programs_send_neither_origin_nor_foreign_host() -> None:
    refuse_foreign_pages(request("POST"))
    refuse_foreign_pages(request("POST", host="localhost:18030", origin="http://localhost:18030"))
    refuse_foreign_pages(request("GET", origin="https://grafana.example"))


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"origin": "http://evil.example"}),
        ("POST", {"origin": "null"}),
        ("POST", {"sec-fetch-site": "cross-site"}),
        ("POST", {"host": "evil.example"}),
        ("GET", {"host": "evil.example:8030"}),
    ],
)
def test_pages_of_other_sites_are_refused(method: str, headers: dict[str, str]) -> None:
    with pytest.raises(OriginError):
        refuse_foreign_pages(request(method, **headers))
