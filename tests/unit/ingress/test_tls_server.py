"""TLS: who speaks it is served, who does not is told, who says nothing holds nothing for long."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ocean_core.ingress.tls_server import REFUSED_HANDSHAKES_MAX
from ocean_core.runtime.tls import TlsFiles
from support.listening import (
    PLAIN,
    REFUSAL,
    REQUEST,
    Rig,
    ask,
    client_context,
    descriptors,
    hang_up,
    make_certificate,
    run,
)

# A ClientHello of which only the beginning comes.
HALF_A_HELLO = b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb\x03\x03"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def play(files: TlsFiles, scenario: Callable[[Rig], Awaitable[None]], **options: int) -> str:
    """Return what the log told."""
    return run(scenario, files=files, **options).told.getvalue()


def test_both_listeners_answer_at_the_same_time(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        local, network = await rig.connect(0), await rig.connect(1, client_context(files))
        for _ in range(3):
            assert await ask(local) == await ask(network) == b"200"
        assert [scope["scheme"] for scope in rig.scopes[:2]] == ["http", "https"]
        assert rig.scopes[1]["client"][0] == "127.0.0.1"
        await hang_up(local, network)
        await rig.counted(0)

    assert play(files, scenario) == ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(files: TlsFiles, version: ssl.TLSVersion) -> None:
    async def scenario(rig: Rig) -> None:
        context = client_context(files)
        context.minimum_version = context.maximum_version = version
        connection = await rig.connect(1, context)
        assert await ask(connection) == b"200"
        await hang_up(connection)

    play(files, scenario)


def test_plain_http_is_told_in_plain_http_that_this_is_tls(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await rig.connect(1)
        connection[1].write(REQUEST)
        assert await connection[0].read() == PLAIN
        await hang_up(connection)
        await rig.counted(0)

    assert 'reason="does not speak TLS"' in play(files, scenario)


@pytest.mark.parametrize(
    "said", [b"", b"\x00", b"\x80\x2e\x01\x00\x02"], ids=["none", "nul", "sslv2"]
)
def test_what_is_no_tls_at_all_is_closed_without_a_word(files: TlsFiles, said: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await rig.connect(1)
        connection[1].write(said)
        if not said:
            connection[1].write_eof()
        assert await connection[0].read() == b""
        await hang_up(connection)
        await rig.counted(0)

    play(files, scenario)


@pytest.mark.parametrize("said", [b"", HALF_A_HELLO], ids=["silent", "half"])
def test_a_handshake_that_does_not_end_is_ended(files: TlsFiles, said: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await rig.connect(1)
        connection[1].write(said)
        await rig.counted(1)
        assert await connection[0].read() == b""
        await hang_up(connection)
        await rig.counted(0)

    assert 'reason="the handshake took too long"' in play(files, scenario)


def test_a_client_that_does_not_trust_us_is_told_of_in_plain_words(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        def distrust() -> None:
            with socket.create_connection(("127.0.0.1", rig.ports[1]), 10) as raw:
                ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")

        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(distrust)
        while not rig.told.getvalue():  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0)

    assert 'reason="the client does not trust our certificate"' in play(files, scenario)


def test_handshakes_count_as_connections_and_give_way(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        silent = await rig.connect(1)
        await rig.counted(1)
        rig.clock.advance(1)
        connections = [await rig.connect(1, client_context(files)) for _ in range(2)]
        for connection in connections:
            assert await ask(connection) == b"200"
        assert await silent[0].read() == b""
        await hang_up(silent, *connections)

    assert "too long" not in play(files, scenario, per_address_max=2)


def test_when_all_are_busy_the_new_one_is_refused_in_tls(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open_gate.clear()
        busy = await rig.connect(1, client_context(files))
        busy[1].write(REQUEST)
        await rig.all_busy(1)
        late = await rig.connect(1, client_context(files))
        assert await late[0].read() == REFUSAL
        rig.open_gate.set()
        assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await hang_up(busy, late)
        await rig.counted(0)

    assert "network.refused address=127.0.0.1" in play(files, scenario, per_address_max=1)


def test_a_flood_of_refused_handshakes_is_cut_off(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open_gate.clear()
        busy = await rig.connect(1, client_context(files))
        busy[1].write(REQUEST)
        await rig.all_busy(1)
        waiting = [await rig.connect(1) for _ in range(REFUSED_HANDSHAKES_MAX)]
        late = await rig.connect(1)
        assert await late[0].read() == b""
        # Those before it are still being heard.
        assert not any(reader.at_eof() for reader, _ in waiting)
        await hang_up(busy, late, *waiting)

    play(files, scenario, per_address_max=1)


def test_clients_that_break_off_leave_nothing_behind(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await rig.connect(1, client_context(files))
        assert await ask(connection) == b"200"
        await hang_up(connection)
        await rig.counted(0)
        before = descriptors()
        for said in (b"", HALF_A_HELLO, REQUEST) * 5:
            with socket.create_connection(("127.0.0.1", rig.ports[1])) as rude:
                rude.send(said)
                # Close with a reset.
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        last = await rig.connect(1, client_context(files))
        assert await ask(last) == b"200"
        await rig.counted(1)
        await hang_up(last)
        await rig.counted(0)
        while descriptors() > before:  # noqa: ASYNC110 - the loop closes them in its own time
            await asyncio.sleep(0)

    assert "Traceback" not in play(files, scenario)


def test_a_stop_ends_handshakes_at_once(files: TlsFiles) -> None:
    async def scenario(rig: Rig) -> None:
        silent, half = await rig.connect(1), await rig.connect(1)
        half[1].write(HALF_A_HELLO)
        await rig.counted(2)
        await rig.server.close()
        assert await silent[0].read() == b""
        assert await half[0].read() == b""
        await hang_up(silent, half)

    assert "too long" not in play(files, scenario)


def test_junk_inside_a_connection_ends_it_quietly(
    files: TlsFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        def junk() -> bytes:
            with socket.create_connection(("127.0.0.1", rig.ports[1])) as raw:
                raw.settimeout(10)
                tls = client_context(files).wrap_socket(raw, server_hostname="localhost")
                with socket.socket(fileno=tls.detach()) as below:
                    below.settimeout(10)
                    below.send(b"this is no record " * 4)
                    while below.recv(65536):
                        pass
            return b""

        assert await asyncio.to_thread(junk) == b""
        await rig.counted(0)

    play(files, scenario)
    assert capfd.readouterr().err == ""


def test_a_new_certificate_counts_for_the_next_connection(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    old = client_context(files)

    async def scenario(rig: Rig) -> None:
        before = await rig.connect(1, old)
        assert await ask(before) == b"200"
        make_certificate(tmp_path)
        assert rig.tls is not None
        rig.tls.reload_if_changed()
        after = await rig.connect(1, client_context(files))
        assert await ask(after) == b"200"
        # Those that exist go on.
        assert await ask(before) == b"200"
        with pytest.raises(ssl.SSLCertVerificationError):
            await rig.connect(1, old)
        await hang_up(before, after)

    assert "tls.reloaded" in play(files, scenario)
