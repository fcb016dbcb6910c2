"""Where the box may listen: safe by default, and what is wrong is said precisely."""

import pytest

from ocean_core.config.checks import check_frame_listeners, check_listeners, is_loopback
from ocean_core.config.settings import (
    NanogridataSettings,
    NetworkSettings,
    ServerSettings,
    Settings,
)
from ocean_core.model.errors import ListenAddressError


def check(
    host: str = "127.0.0.1",
    *,
    network: str = "",
    plain: bool = False,
    certificate: bool = False,
    ports: tuple[int, int] = (8030, 8443),
) -> None:
    settings = Settings(
        server=ServerSettings(host=host, port=ports[0]),
        network=NetworkSettings(host=network, port=ports[1], allow_plain=plain),
    )
    check_listeners(settings, has_certificate=certificate)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    check(host)
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "fe80::1%eth0", "::ffff:1.2.3.4"])
def test_beyond_loopback_there_must_be_a_certificate_or_the_wish_to_do_without(host: str) -> None:
    for where in ({"host": host}, {"network": host}):
        with pytest.raises(ListenAddressError, match="needs TLS") as caught:
            check(**where)  # type: ignore[arg-type]
        assert host in caught.value.detail
        for command in ("ocean tls self-signed", "ocean keys create", "ocean serve --network"):
            assert command in caught.value.hint
        check(**where, certificate=True)  # type: ignore[arg-type]
        check(**where, plain=True)  # type: ignore[arg-type]


def test_the_network_listener_is_never_without_its_conditions() -> None:
    with pytest.raises(ListenAddressError, match=r"network\.host is 127\.0\.0\.1"):
        check(network="127.0.0.1")


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("gateway.local", "Names are not looked up"),
        ("", "Names are not looked up"),
        ("*", "use 0.0.0.0"),
        ("https://10.0.0.5:8443", "alone: 10.0.0.5; the port is server.port"),
        ("10.0.0.5:8443", "Set server.port to 8443 and server.host to 10.0.0.5"),
        ("[::1]:8443", "Set server.port to 8443"),
        ("localhost:80", "Set server.port to 80 and server.host to localhost"),
        ("[::1]", "alone: ::1"),
        (" 127.0.0.1", "alone: 127.0.0.1"),
        ("224.0.0.1", "0.0.0.0 for all"),
        ("ff02::1", "0.0.0.0 for all"),
        ("255.255.255.255", "0.0.0.0 for all"),
        ("127.0.0.256", "Names are not looked up"),
        ("0x7f.1", "Names are not looked up"),
    ],
)
def test_nonsense_is_refused_with_what_was_meant(host: str, told: str) -> None:
    with pytest.raises(ListenAddressError, match=r"server\.host is") as caught:
        check(host, plain=True)
    assert told in caught.value.hint
    if host:
        with pytest.raises(ListenAddressError, match=r"network\.host is"):
            check(network=host, plain=True)


@pytest.mark.parametrize(
    ("server", "network", "is_fine"),
    [
        ("127.0.0.1", "0.0.0.0", False),
        ("127.0.0.1", "::", False),
        ("0.0.0.0", "192.0.2.1", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.1", True),
        ("::1", "0.0.0.0", True),
    ],
)
def test_two_listeners_do_not_take_each_others_port(
    server: str, network: str, *, is_fine: bool
) -> None:
    check(server, network=network, plain=True)
    check(server, network=network, plain=True, ports=(0, 0))
    if is_fine:
        check(server, network=network, plain=True, ports=(8443, 8443))
    else:
        with pytest.raises(ListenAddressError, match="both listen on port 8443"):
            check(server, network=network, plain=True, ports=(8443, 8443))


def frames(**values: object) -> Settings:
    return Settings(nanogridata=NanogridataSettings(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_frames_on_loopback_need_nothing(host: str) -> None:
    check_frame_listeners(frames(host=host), has_secrets=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_beyond_loopback_frames_must_be_signed(host: str) -> None:
    for level, has_secrets, missing in (
        (0, False, ("there is no secret", "min_level is 0")),
        (1, False, ("there is no secret",)),
        (0, True, ("min_level is 0",)),
    ):
        with pytest.raises(ListenAddressError, match=r"nanogridata\.host is") as caught:
            check_frame_listeners(frames(host=host, min_level=level), has_secrets=has_secrets)
        assert host in caught.value.detail
        for part in missing:
            assert part in caught.value.detail
        for part in ("ocean keys nanogridata add --model 0x10 --out", "MIN_LEVEL=1 ocean serve"):
            assert part in caught.value.hint
    open_one = frames(host=host, min_level=1)
    check_frame_listeners(open_one, has_secrets=True)
    check_frame_listeners(frames(host=host), has_secrets=True, min_level=1)
    with pytest.raises(ListenAddressError, match="the models file lets a model"):
        check_frame_listeners(open_one, has_secrets=True, min_level=0)


def test_listeners_that_are_switched_off_need_nothing() -> None:
    check_frame_listeners(frames(host="nonsense", tcp=False, udp=False), has_secrets=False)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("gateway.local", "Names are not looked up"),
        ("10.0.0.5:5678", "Set nanogridata.tcp_port to 5678 and nanogridata.host to 10.0.0.5"),
        ("224.0.0.1", "0.0.0.0 for all"),
    ],
)
def test_nonsense_for_frames_is_refused(host: str, told: str) -> None:
    with pytest.raises(ListenAddressError, match=r"nanogridata\.host is") as caught:
        check_frame_listeners(frames(host=host, min_level=1), has_secrets=True)
    assert told in caught.value.hint


def test_frames_do_not_take_the_port_of_http() -> None:
    for values in ({"tcp_port": 8030}, {"host": "0.0.0.0", "tcp_port": 8030, "min_level": 1}):
        with pytest.raises(ListenAddressError, match="both listen on TCP port 8030"):
            check_frame_listeners(frames(**values), has_secrets=True)
        check_frame_listeners(frames(**values, tcp=False), has_secrets=True)
    check_frame_listeners(frames(tcp_port=8443), has_secrets=True)
    check_frame_listeners(frames(tcp_port=0, udp_port=8030), has_secrets=True)
