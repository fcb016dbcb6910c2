"""The certificate of the network listener: found, checked, watched, loaded again when it changes."""

from __future__ import annotations

import _ssl
import contextlib
import hashlib
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ocean_core.config.settings import NetworkSettings
from ocean_core.model.errors import TlsError
from ocean_core.obs.clock import Clock, iso_utc
from ocean_core.obs.log import EventLog

TLS_DIR: Final = "tls"
CERT_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"
EXPIRING_DAYS: Final = 30
# For TLS 1.2; what 1.3 has is good by itself. Forward secrecy and authenticated encryption only.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate and key are."""

    cert: Path
    key: Path


def default_files(data_dir: Path) -> TlsFiles:
    """Return where `ocean tls self-signed` puts them."""
    return TlsFiles(data_dir / TLS_DIR / CERT_FILE, data_dir / TLS_DIR / KEY_FILE)


def find_files(settings: NetworkSettings, data_dir: Path) -> TlsFiles | None:
    """Return the files that the settings mean, None if there are none.

    Files that are named are returned whether they exist or not: nobody wants to go on without TLS
    because of a typing error. Raises TlsError if one of a pair is missing.
    """
    default = default_files(data_dir)
    if settings.tls_cert and settings.tls_key:
        return TlsFiles(_path(settings.tls_cert), _path(settings.tls_key))
    if settings.tls_cert or settings.tls_key:
        named, other = ("cert", "key") if settings.tls_cert else ("key", "cert")
        raise TlsError(f"network.tls_{named} is set, but network.tls_{other} is not")
    found = [_exists(default.cert), _exists(default.key)]
    if any(found) and not all(found):
        missing, present = default.key, default.cert
        if found[1]:
            missing, present = present, missing
        raise TlsError(
            f"{missing}: is missing beside {present.name}",
            hint="Make both anew with `ocean tls self-signed --force`.",
        )
    return default if all(found) else None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and 1.3 with certificate and key loaded.

    Raises TlsError naming the file and what is wrong with it. An expired certificate is loaded: a
    box with a wrong clock must still start.
    """
    for path in (files.cert, files.key):
        _check_readable(path)
    describe_certificate(files.cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION

    def refuse_password() -> str:
        # OpenSSL would ask for it on the terminal.
        raise TlsError(
            f"{files.key}: is encrypted, and there is nobody to type its password",
            hint="Store it decrypted (openssl pkey -in key.pem -out plain.pem; chmod 600).",
        )

    try:
        context.load_cert_chain(files.cert, files.key, password=refuse_password)
    except ssl.SSLError as error:
        # OpenSSL names no reason for a file that is not what it expects.
        reason: str = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            raise TlsError(
                f"{files.key}: is not the key of the certificate {files.cert}"
            ) from error
        if not reason:
            raise TlsError(f"{files.key}: holds no private key in PEM format") from error
        told = reason.replace("_", " ").lower()
        raise TlsError(f"{files.cert} with {files.key}: {told}") from error
    except OSError as error:
        raise TlsError(f"{files.cert} with {files.key}: {error.strerror or error}") from error
    return context


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says. Times are microseconds since 1970-01-01 UTC."""

    subject: str
    names: list[str]
    not_before_us: int
    not_after_us: int


def describe_certificate(path: Path) -> CertificateInfo:
    """Return what the first certificate of a PEM file says.

    Raises TlsError if there is none.
    """
    try:
        # Private, but there is no other way to read a certificate with the standard library, and a
        # server has no need of a library that could make one.
        decoded = cast("Any", _ssl)._test_decode_cert(str(path))
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"{path}: holds no certificate in PEM format") from error
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror or error}") from error
    subject = ", ".join(value for part in decoded.get("subject", ()) for _, value in part)
    return CertificateInfo(
        subject,
        [_shown(value) for _, value in decoded.get("subjectAltName", ())],
        ssl.cert_time_to_seconds(decoded["notBefore"]) * 1_000_000,
        ssl.cert_time_to_seconds(decoded["notAfter"]) * 1_000_000,
    )


def _shown(name: str) -> str:
    """Return a name as people write it: OpenSSL writes IPv6 addresses out in full."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(name))
    return name


def first_certificate(path: Path) -> bytes:
    """Return the first certificate of a PEM file as DER. Raises OSError or ValueError."""
    text = path.read_text(encoding="ascii", errors="replace")
    begin = text.index(ssl.PEM_HEADER)
    end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(text[begin:end])


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the first certificate of a PEM file, as other programs show it."""
    digest = hashlib.sha256(first_certificate(path)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def validity_problem(info: CertificateInfo, now_us: int) -> str:
    """Return what is or will soon be wrong with the time of a certificate, empty if nothing."""
    until = iso_utc(info.not_after_us)
    if now_us < info.not_before_us:
        return (
            f"not valid before {iso_utc(info.not_before_us)}, and this machine's clock says "
            f"{iso_utc(now_us // 1_000_000 * 1_000_000)}"
        )
    if now_us >= info.not_after_us:
        return f"expired on {until}: clients refuse it"
    left_us = info.not_after_us - now_us
    if left_us < EXPIRING_DAYS * _DAY_US:
        return f"expires on {until}, in {left_us // _DAY_US} days"
    return ""


class ServerTls:
    """The certificate in use. A file that changes on disk is taken over without a restart."""

    def __init__(self, files: TlsFiles, clock: Clock, log: EventLog) -> None:
        """Load the certificate.

        Raises TlsError if it cannot be used.
        """
        self.files = files
        self._clock = clock
        self._log = log
        self._seen = _signature(files)
        self._context = server_context(files)
        self._info = describe_certificate(files.cert)
        self._warn()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._context

    def problem(self) -> str:
        """Return what is or will soon be wrong with the certificate's time, empty if nothing."""
        problem = validity_problem(self._info, self._clock.now_us())
        return f"{self.files.cert}: {problem}" if problem else ""

    def reload_if_changed(self) -> None:
        """Load the files again if they changed; broken ones are told once and not used.

        Reads files. Connections that exist keep what they have.
        """
        signature = _signature(self.files)
        if signature == self._seen:
            return
        # Remembered first, so that a broken file is tried once and not every time.
        self._seen = signature
        try:
            context = server_context(self.files)
            info = describe_certificate(self.files.cert)
        except TlsError as error:
            self._log.warning("tls.reload_failed", error=error.detail)
            return
        # A new context, not new files for the old one: that would be left half changed by a pair
        # that does not match.
        self._context = context
        self._info = info
        self._log.info("tls.reloaded", cert=str(self.files.cert), until=iso_utc(info.not_after_us))
        self._warn()

    def _warn(self) -> None:
        problem = self.problem()
        if problem:
            self._log.warning("tls.certificate_doubtful", problem=problem)
        if _others_may_read(self.files.key):
            self._log.warning(
                "tls.certificate_doubtful",
                problem=f"{self.files.key}: other users may read the key (chmod 600)",
            )


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        # It is there, or may be, and this user cannot see it: the check that follows says so.
        return True
    return True


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            content = file.read(1)
    except FileNotFoundError as error:
        raise TlsError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise TlsError(
            f"{path}: this user may not read it",
            hint="The user that runs the server has to own it, or to be in its group.",
        ) from error
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise TlsError(f"{path}: is empty")


def _signature(files: TlsFiles) -> tuple[tuple[int, ...], ...]:
    """Return what changes whenever one of the files does."""
    found: list[tuple[int, ...]] = []
    for path in (files.cert, files.key):
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
        except OSError as error:
            found.append((error.errno or 0,))
    return tuple(found)


def _others_may_read(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    # The group may be how this user reads it, as that of /etc/ssl/private is.
    unwanted = stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)
    return bool(status.st_mode & unwanted)
