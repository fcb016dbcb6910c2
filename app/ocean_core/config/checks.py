"""Checks of settings that need more than a type and bounds."""

from __future__ import annotations

import ipaddress

from ocean_core.model.errors import ListenAddressError


def check_listen_address(host: str) -> None:
    """Refuse any address but loopback: there are no keys yet that could protect another.

    Raises ListenAddressError.
    """
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ListenAddressError(
            f"server.host is {host!r}, which is no IP address", hint="Use --host 127.0.0.1."
        ) from error
    if not is_loopback:
        raise ListenAddressError(
            f"server.host is {host}: everyone in that network could read and write, because this "
            "version has no access keys; only loopback (127.0.0.1 or ::1) is allowed"
        )
