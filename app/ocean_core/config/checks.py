"""Checks of settings that need more than a type and bounds."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ocean_core.config.settings import Settings
from ocean_core.model.errors import ListenAddressError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_listeners(settings: Settings, *, has_certificate: bool) -> None:
    """Refuse addresses that cannot be listened on, or not safely.

    Loopback alone is always fine. What other machines can reach needs a certificate, or the
    explicit wish to do without. Raises ListenAddressError.
    """
    server = _address("server.host", settings.server.host)
    network = settings.network
    setting, exposed = "server.host", settings.server.host
    if network.host:
        _check_overlap(settings, server, _address("network.host", network.host))
        setting, exposed = "network.host", network.host
    elif server.is_loopback:
        return
    if not has_certificate and not network.allow_plain:
        raise ListenAddressError(
            f"{setting} is {exposed}, which needs TLS, and there is no certificate",
            hint="Three commands open the box to the network: `ocean tls self-signed`, "
            "`ocean keys create`, `ocean serve --network`. A certificate of your own: "
            "network.tls_cert and network.tls_key. Without encryption: network.allow_plain.",
        )


def check_frame_listeners(
    settings: Settings, *, has_secrets: bool, min_level: int | None = None
) -> None:
    """Refuse addresses where Nanogridata cannot be listened for, or not safely.

    Beyond loopback frames must be signed: there has to be a secret, and the lowest level must be 1
    or more. ``min_level`` is the lowest that any model may use, if not that of the settings. Raises
    ListenAddressError.
    """
    frames = settings.nanogridata
    if not (frames.tcp or frames.udp):
        return
    address = _address("nanogridata.host", frames.host)
    if frames.tcp:
        _check_frame_port(settings, address)
    if address.is_loopback:
        return
    level = frames.min_level if min_level is None else min_level
    missing = [] if has_secrets else ["there is no secret"]
    if level < 1 <= frames.min_level:
        missing.append("the models file lets a model send unsigned ones (min_level = 0)")
    elif level < 1:
        missing.append("nanogridata.min_level is 0, which takes unsigned ones")
    if missing:
        raise ListenAddressError(
            f"nanogridata.host is {frames.host}, where frames must be signed, and "
            + "; and ".join(missing),
            hint="To open it to devices: `ocean keys nanogridata add --model 0x10 --out esp32.key`, "
            "then `OCEAN_NANOGRIDATA__MIN_LEVEL=1 ocean serve`. For this machine alone: "
            'nanogridata.host = "127.0.0.1".',
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a listener at this address."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _address(setting: str, host: str) -> _Address:
    if host == "localhost":
        return ipaddress.ip_address("127.0.0.1")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        detail, hint = _told(setting, host)
        raise ListenAddressError(f"{setting} is {host!r}, {detail}", hint=hint) from None
    if address.is_multicast or host == "255.255.255.255":
        raise ListenAddressError(
            f"{setting} is {host}, which stands for many machines; this one needs its own",
            hint="Use 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses.",
        )
    return address


def _told(setting: str, host: str) -> tuple[str, str]:
    """Return what is wrong with a host, and what would be right."""
    section = setting.partition(".")[0]
    port_setting = f"{section}.tcp_port" if section == "nanogridata" else f"{section}.port"
    stripped = host.strip()
    if "://" in host:
        inner = urlsplit(stripped).hostname or "127.0.0.1"
        return "which is a URL", f"Give the address alone: {inner}; the port is {port_setting}."
    if stripped in {"*", "any", "all"}:
        return "which is no IP address", "For all addresses of this machine use 0.0.0.0."
    if stripped != host or stripped.startswith("["):
        bare = stripped.strip("[]")
        if _is_address(bare):
            return "which has characters around the address", f"Give the address alone: {bare}"
    name, _, port = stripped.rpartition(":")
    if port.isdigit() and (_is_address(name.strip("[]")) or name == "localhost"):
        return "which has a port in it", f"Set {port_setting} to {port} and {setting} to {name}."
    names = (
        "Names are not looked up: use 127.0.0.1 (this machine alone), 0.0.0.0 (all addresses) or "
        "one of this machine's addresses (ip -brief address)."
    )
    return "which is no IP address", names


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_overlap(settings: Settings, server: _Address, network: _Address) -> None:
    """Refuse one port for both listeners where their addresses overlap.

    The kernel would say so only after one of them has begun to listen.
    """
    port = settings.server.port
    if port != 0 and port == settings.network.port and _overlap(server, network):
        raise ListenAddressError(
            f"server and network would both listen on port {port}",
            hint="Give network.port another value; its default is 8443.",
        )


def _check_frame_port(settings: Settings, frames: _Address) -> None:
    """Refuse the TCP port of an HTTP listener where their addresses overlap."""
    port = settings.nanogridata.tcp_port
    for section, http in (("server", settings.server), ("network", settings.network)):
        if not http.host or port == 0 or port != http.port:
            continue
        if _overlap(frames, _address(f"{section}.host", http.host)):
            raise ListenAddressError(
                f"{section} and nanogridata would both listen on TCP port {port}",
                hint="Give nanogridata.tcp_port another value; its default is 5678.",
            )


def _overlap(one: _Address, other: _Address) -> bool:
    # "::" takes IPv4 along.
    takes_all = any(
        a.is_unspecified and (a.version == 6 or b.version == 4)
        for a, b in ((one, other), (other, one))
    )
    return one == other or takes_all
