"""The certificate: what is wrong with it is said by file, and a new one is taken over."""

import io
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ocean_core.config.settings import NetworkSettings
from ocean_core.model.errors import TlsError
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.runtime.tls import (
    ServerTls,
    TlsFiles,
    default_files,
    describe_certificate,
    find_files,
    fingerprint,
    server_context,
)
from support.listening import make_certificate
from support.tools import require_tool

DAY_US = 86_400_000_000


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_certificate(tmp_path, "localhost", "::1")


class Watched:
    """A certificate in use, its clock and what was logged."""

    def __init__(self, files: TlsFiles) -> None:
        self.clock = ManualClock()
        self._stream = io.StringIO()
        self.tls = ServerTls(files, self.clock, EventLog(self.clock, stream=self._stream))

    def told(self) -> str:
        text = self._stream.getvalue()
        self._stream.truncate(0)
        self._stream.seek(0)
        return text


def test_a_good_pair_makes_a_strict_context(files: TlsFiles) -> None:
    context = server_context(files)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert {cipher["protocol"] for cipher in context.get_ciphers()} == {"TLSv1.2", "TLSv1.3"}
    assert all(cipher["aead"] for cipher in context.get_ciphers())


def _lock(files: TlsFiles) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _other_key(files: TlsFiles) -> None:
    cert = files.cert.read_bytes()
    make_certificate(files.cert.parent.parent)
    files.cert.write_bytes(cert)


def _directory(files: TlsFiles) -> None:
    files.key.unlink()
    files.key.mkdir()


SPOILED: dict[str, tuple[Callable[[TlsFiles], object], str, str]] = {
    "no certificate": (lambda files: files.cert.unlink(), "cert.pem", "there is no such file"),
    "no key": (lambda files: files.key.unlink(), "key.pem", "there is no such file"),
    "empty": (lambda files: files.cert.write_bytes(b""), "cert.pem", "is empty"),
    "junk key": (lambda files: files.key.write_bytes(b"x"), "key.pem", "holds no private key"),
    "junk certificate": (lambda files: files.cert.write_bytes(b"x"), "cert.pem", "no certificate"),
    "binary": (lambda files: files.cert.write_bytes(b"\0\xff"), "cert.pem", "no certificate"),
    "der": (
        lambda files: files.cert.write_bytes(ssl.PEM_cert_to_DER_cert(files.cert.read_text())),
        "cert.pem",
        "holds no certificate in PEM",
    ),
    "certificate twice": (
        lambda files: files.key.write_bytes(files.cert.read_bytes()),
        "key.pem",
        "holds no private key",
    ),
    "key twice": (
        lambda files: files.cert.write_bytes(files.key.read_bytes()),
        "cert.pem",
        "holds no certificate",
    ),
    "other key": (_other_key, "key.pem", "is not the key of the certificate"),
    "encrypted": (_lock, "key.pem", "is encrypted"),
    "directory": (_directory, "key.pem", "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_wrong_is_said_by_file(files: TlsFiles, case: str) -> None:
    spoil, file, told = SPOILED[case]
    spoil(files)
    with pytest.raises(TlsError, match=told) as caught:
        server_context(files)
    assert caught.value.detail.startswith(str(files.cert.parent / file))


def test_files_are_found_where_they_are_named_or_made(files: TlsFiles, tmp_path: Path) -> None:
    none = NetworkSettings()
    assert find_files(none, tmp_path) == files == default_files(tmp_path)
    assert find_files(none, tmp_path / "elsewhere") is None
    # Named, they are meant, also if they do not exist: no going on without TLS.
    named = NetworkSettings(tls_cert="/c", tls_key="/k")
    assert find_files(named, tmp_path) == TlsFiles(Path("/c"), Path("/k"))
    with pytest.raises(TlsError, match="tls_key is not"):
        find_files(NetworkSettings(tls_cert="/c"), tmp_path)
    files.key.unlink()
    with pytest.raises(TlsError, match=r"key\.pem: is missing"):
        find_files(none, tmp_path)


def test_a_certificate_is_described(files: TlsFiles) -> None:
    info = describe_certificate(files.cert)
    assert info.names == ["localhost", "::1"]
    assert (info.not_after_us - info.not_before_us) == 91 * DAY_US


def test_the_fingerprint_is_that_of_other_programs(files: TlsFiles) -> None:
    openssl = require_tool("openssl")
    answer = subprocess.run(
        [openssl, "x509", "-in", str(files.cert), "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert answer.stdout.strip().partition("=")[2] == fingerprint(files.cert)


def test_time_is_watched_and_never_a_refusal(files: TlsFiles) -> None:
    watched = Watched(files)
    assert watched.tls.problem() == ""
    assert watched.told() == ""
    watched.clock.advance(61 * 86_400)
    assert watched.tls.problem().endswith("in 29 days")
    watched.clock.advance(30 * 86_400)
    assert "expired on" in watched.tls.problem()
    watched.clock.set_wall(0)
    assert "this machine's clock says 1970-01-01T00:00:00Z" in watched.tls.problem()


def test_an_expired_certificate_is_loaded_with_a_warning(tmp_path: Path) -> None:
    now_us = ManualClock().now_us()
    files = make_certificate(tmp_path, days=1, now_us=now_us - 10 * DAY_US)
    assert "expired on" in Watched(files).told()


def test_a_key_that_others_may_read_is_warned_of(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    assert "other users may read the key" in Watched(files).told()


def test_a_changed_certificate_is_taken_over_once(files: TlsFiles, tmp_path: Path) -> None:
    watched = Watched(files)
    before = watched.tls.context
    watched.tls.reload_if_changed()
    assert watched.tls.context is before
    make_certificate(tmp_path, days=10)
    watched.tls.reload_if_changed()
    assert watched.tls.context is not before
    told = watched.told()
    assert "tls.reloaded" in told
    assert "in 10 days" in told
    watched.tls.reload_if_changed()
    assert watched.told() == ""


def test_a_broken_new_certificate_is_told_once_and_not_used(
    files: TlsFiles, tmp_path: Path
) -> None:
    watched = Watched(files)
    before = watched.tls.context
    old_key = files.key.read_bytes()
    make_certificate(tmp_path)
    new_key = files.key.read_bytes()
    # Half of a renewal: the certificate is the new one, the key is not.
    files.key.write_bytes(old_key)
    for _ in range(3):
        watched.tls.reload_if_changed()
    assert watched.tls.context is before
    assert watched.told().count("tls.reload_failed") == 1
    files.key.unlink()
    for _ in range(3):
        watched.tls.reload_if_changed()
    assert watched.told().count("there is no such file") == 1
    files.key.write_bytes(new_key)
    watched.tls.reload_if_changed()
    assert watched.tls.context is not before
