"""Self-signed certificates: names, times, files, and that clients take them."""

import shutil
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from ocean_core.model.errors import CommandError
from ocean_core.obs.clock import ManualClock
from ocean_core.runtime import certificate
from ocean_core.runtime.certificate import make_self_signed, own_names
from ocean_core.runtime.tls import TlsFiles, default_files, describe_certificate, server_context

DAY_US = 86_400_000_000
NOW_US = ManualClock().now_us() // 1_000_000 * 1_000_000


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return default_files(tmp_path)


def make(files: TlsFiles, *names: str, now_us: int = NOW_US, replace: bool = False) -> None:
    make_self_signed(files, names or ("localhost",), 90, now_us, replace=replace)


def shake_hands(files: TlsFiles, name: str, flags: int = 0) -> None:
    """Do a handshake in memory; raises ssl.SSLError if the client does not like the server."""
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=files.cert)
    context.verify_flags |= flags | 0x200000  # X509_V_FLAG_NO_CHECK_TIME
    client = context.wrap_bio(client_in, client_out, server_hostname=name)
    server = server_context(files).wrap_bio(client_out, client_in, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_only_the_owner_gets_at_the_key(files: TlsFiles) -> None:
    make(files)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in files.key.parent.iterdir()) == ["cert.pem", "key.pem"]


def test_a_certificate_that_is_there_is_replaced_on_demand_only(files: TlsFiles) -> None:
    make(files)
    first = files.cert.read_bytes()
    with pytest.raises(CommandError, match="exists") as caught:
        make(files)
    assert "--force" in caught.value.hint
    assert files.cert.read_bytes() == first
    make(files, replace=True)
    assert files.cert.read_bytes() != first
    files.cert.unlink()
    with pytest.raises(CommandError, match=r"key\.pem: exists"):
        make(files)


@pytest.mark.parametrize("flags", [0, ssl.VERIFY_X509_STRICT, ssl.VERIFY_X509_PARTIAL_CHAIN])
def test_clients_take_it_for_all_its_names(files: TlsFiles, flags: int) -> None:
    names = ("localhost", "gateway-1.example", "127.0.0.1", "::1", "2001:db8::5", "bücher.example")
    make(files, *names)
    for name in names:
        shake_hands(files, name, flags)
    for stranger in ("other.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            shake_hands(files, stranger, flags)


def test_it_is_no_authority(files: TlsFiles) -> None:
    make(files)
    made = x509.load_pem_x509_certificate(files.cert.read_bytes())
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


@pytest.mark.parametrize(
    "name", ["", "a b", "10.0.0.5:8443", "https://x", "-x.example", "a..b", "x" * 254, "10.0.0.0/8"]
)
def test_what_is_no_name_is_refused_and_nothing_written(files: TlsFiles, name: str) -> None:
    with pytest.raises(CommandError, match="neither a host name nor an IP address"):
        make(files, "localhost", name)
    assert not files.cert.parent.exists()


def test_a_clock_that_cannot_be_right_does_not_count(files: TlsFiles) -> None:
    make(files)
    info = describe_certificate(files.cert)
    assert info.not_before_us == NOW_US - DAY_US
    assert info.not_after_us == NOW_US + 90 * DAY_US
    # A gateway without a battery.
    made = make_self_signed(files, ["localhost"], 90, 0, replace=True)
    assert made.clock_is_wrong
    assert made.not_before.isoformat() == "2025-12-31T00:00:00+00:00"


def test_own_names_are_those_that_clients_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Gateway-7")
    monkeypatch.setattr(certificate, "own_addresses", lambda: ["192.0.2.7", "2001:db8::7"])
    assert own_names() == [
        "localhost", "gateway-7", "gateway-7.local", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7",
    ]  # fmt: skip
    # A name that no certificate can hold is left out: the others still help.
    monkeypatch.setattr("socket.gethostname", lambda: "my box")
    assert "my box" not in own_names()


def test_a_folder_that_cannot_be_written_is_told(files: TlsFiles) -> None:
    files.cert.parent.write_bytes(b"")
    with pytest.raises(CommandError, match="File exists"):
        make(files)


def test_an_interrupted_replacement_left_files_that_do_not_matter(files: TlsFiles) -> None:
    make(files)
    left = files.key.with_name("key.pem.new")
    shutil.copy(files.key, left)
    left.chmod(0o666)
    make(files, replace=True)
    assert not left.exists()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
