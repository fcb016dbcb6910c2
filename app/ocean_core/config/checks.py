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
    stripped = host.strip()
    if "://" in host:
        inner = urlsplit(stripped).hostname or "127.0.0.1"
        return "which is a URL", f"Give the address alone: {inner}; the port is {section}.port."
    if stripped in {"*", "any", "all"}:
        return "which is no IP address", "For all addresses of this machine use 0.0.0.0."
    if stripped != host or stripped.startswith("["):
        bare = stripped.strip("[]")
        if _is_address(bare):
            return "which has characters around the address", f"Give the address alone: {bare}"
    name, _, port = stripped.rpartition(":")
    if port.isdigit() and (_is_address(name.strip("[]")) or name == "localhost"):
        return "which has a port in it", f"Set {section}.port to {port} and {setting} to {name}."
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
    if port == 0 or port != settings.network.port:
        return
    # "::" takes IPv4 along.
    takes_all = any(
        a.is_unspecified and (a.version == 6 or b.version == 4)
        for a, b in ((server, network), (network, server))
    )
    if server == network or takes_all:
        raise ListenAddressError(
            f"server and network would both listen on port {port}",
            hint="Give network.port another value; its default is 8443.",
        )
