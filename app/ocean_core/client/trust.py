"""Which certificates a client takes for its server's."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocean_core.model.errors import CommandError


@dataclass(frozen=True, slots=True)
class Trust:
    """What is trusted: the system's authorities, unless ``cacert`` or ``pinned`` is given.

    ``cacert`` is a PEM file to trust instead, ``also`` one to trust beside the system's if it
    can be read. ``pinned`` is one certificate (DER) that the server must show, whatever names it has:
    for the server of one's own data directory, which is asked at a loopback address.
    """

    cacert: Path | None = None
    also: Path | None = None
    pinned: bytes = b""


SYSTEM_TRUST: Final = Trust()


def context_of(trust: Trust) -> ssl.SSLContext:
    """Return the context. Raises CommandError if a file holds no certificate."""
    try:
        if trust.pinned and trust.cacert is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cadata=trust.pinned)
        else:
            context = ssl.create_default_context(cafile=trust.cacert)
            if trust.cacert is None and trust.also is not None and os.access(trust.also, os.R_OK):
                context.load_verify_locations(trust.also)
    except (OSError, ssl.SSLError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise CommandError(
            f"{trust.cacert or trust.also or 'the certificate of run.json'}: {told}",
            hint="Name a PEM file with a certificate.",
        ) from error
    # The certificate of one server may be trusted without that of who signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
