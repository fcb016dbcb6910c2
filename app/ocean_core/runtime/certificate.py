"""Makes a self-signed certificate for this machine.

It is no authority: whoever trusts it trusts this box alone, also if its key is stolen. Loaded by
`ocean tls self-signed` only; the server does without the library that this needs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ocean_core.model.errors import CommandError
from ocean_core.runtime.addresses import own_addresses
from ocean_core.runtime.tls import TlsFiles

NAMES_MAX: Final = 100
COMMON_NAME_LETTERS_MAX: Final = 64
BUILT: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""No clock that is right shows an earlier time; a gateway without a battery may believe it is 1970."""
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_DNS_NAME_LETTERS_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate that was written."""

    names: list[str]
    not_before: dt.datetime
    not_after: dt.datetime
    clock_is_wrong: bool


def own_names() -> list[str]:
    """Return names and addresses that clients may know this machine by."""
    host = socket.gethostname().rstrip(".").lower()
    hosts = [host] if "." in host else [host, f"{host}.local"]
    found = ["localhost", *hosts, "127.0.0.1", "::1", *own_addresses()]
    return [name for name in dict.fromkeys(found) if _general_name(name) is not None]


def make_self_signed(
    files: TlsFiles, names: Iterable[str], days: int, now_us: int, *, replace: bool
) -> Made:
    """Write a new key and a certificate for these names.

    Raises CommandError if a name is none, if there is a certificate and it is not to be replaced,
    or if the files cannot be written.
    """
    if not replace:
        for path in (files.cert, files.key):
            if path.exists():
                raise CommandError(
                    f"{path}: exists",
                    hint="Clients that trust it would have to trust another one. "
                    "`ocean tls show` tells how long it is valid; --force replaces it.",
                )
    names = list(dict.fromkeys(names))
    if len(names) > NAMES_MAX:
        raise CommandError(f"{len(names)} names; a certificate takes {NAMES_MAX}")
    now = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=now_us // 1_000_000)
    base = max(now, BUILT)
    made = Made(
        names,
        base - dt.timedelta(days=1),
        base + dt.timedelta(days=days),
        clock_is_wrong=now < BUILT,
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(key, made)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        _write(files, certificate.public_bytes(serialization.Encoding.PEM), key_pem)
    except OSError as error:
        raise CommandError(f"{files.cert.parent}: {error.strerror or error}") from error
    return made


def _sign(key: ec.EllipticCurvePrivateKey, made: Made) -> x509.Certificate:
    general: list[x509.GeneralName] = []
    for name in made.names:
        found = _general_name(name)
        if found is None:
            raise CommandError(
                f"--name {name!r} is neither a host name nor an IP address",
                hint="Give each by itself, without port: --name gateway.example --name 10.0.0.5",
            )
        general.append(found)
    host = next(
        (
            name
            for name in made.names
            if name != "localhost" and len(name) <= COMMON_NAME_LETTERS_MAX
        ),
        "localhost",
    )
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Clisonix Ocean Core"),
            x509.NameAttribute(NameOID.COMMON_NAME, host),
        ]
    )
    public = key.public_key()
    # No key usage: one that does not allow to sign certificates makes some verifiers doubt that it
    # has signed itself, one that does makes others take it for an authority.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(made.not_before)
        .not_valid_after(made.not_after)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName | None:
    """Return a name or address as certificates write it, None if it is neither."""
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    with contextlib.suppress(UnicodeError):
        ascii_name = name.encode("idna").decode("ascii")
        if len(ascii_name) <= _DNS_NAME_LETTERS_MAX and _DNS_NAME.fullmatch(ascii_name):
            return x509.DNSName(ascii_name)
    return None


def _write(files: TlsFiles, cert: bytes, key: bytes) -> None:
    """Put both files in place, each whole or not at all. Raises OSError."""
    folder = files.cert.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    owner = folder.parent.stat()
    for path, content, mode in ((files.key, key, 0o600), (files.cert, cert, 0o644)):
        temporary = path.with_name(path.name + ".new")
        # One left behind may have looser permissions.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                # Made by the administrator, read by the user that runs the server.
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    if os.geteuid() == 0:
        os.chown(folder, owner.st_uid, owner.st_gid)
    for path in (files.key, files.cert):
        path.with_name(path.name + ".new").replace(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
