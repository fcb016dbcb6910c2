"""Names and addresses of this machine."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def own_addresses() -> list[str]:
    """Return the addresses that other machines may reach this one by, IPv4 first.

    Without loopback, and without link-local addresses, which mean something else on each link.
    """
    found: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, None] = {}
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in {socket.AF_INET, socket.AF_INET6}:
                value = ipaddress.ip_address(address.address.partition("%")[0])
                if not value.is_loopback and not value.is_link_local:
                    found[value] = None
    return [str(value) for value in sorted(found, key=lambda value: value.version)]
