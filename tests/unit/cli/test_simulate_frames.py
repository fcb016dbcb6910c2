"""Where simulated frames go, and with which secrets."""

import json
from pathlib import Path

import click
import pytest

from ocean_core.cli.simulate_frames import locator, read_secrets
from ocean_core.client.connection import Target
from ocean_core.client.http import FixedServer
from ocean_core.facade.source import DataDirSource
from ocean_core.model.errors import CommandError, NotRunningError
from ocean_core.obs.clock import ManualClock
from ocean_core.simulator.plan import Transport


def nothing(*_: object) -> None:
    pass


def source_of(data_dir: Path) -> DataDirSource:
    return DataDirSource(data_dir, clock=ManualClock(), pause=nothing, tell=nothing, warn=nothing)


def test_the_box_says_where_it_listens_also_after_a_restart(tmp_path: Path) -> None:
    locate = locator(source_of(tmp_path), Transport.TCP, None)
    assert locate is not None
    with pytest.raises(NotRunningError):
        locate()
    run_file = tmp_path / "run.json"
    for port in (5678, 40_001):
        run_file.write_text(json.dumps({"frames_tcp": f"127.0.0.1:{port}"}))
        assert locate() == ("127.0.0.1", port)
    run_file.write_text(json.dumps({"frames_tcp": "[::1]:5678"}))
    assert locate() == ("::1", 5678)


def test_a_listener_that_is_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"frames_tcp": "127.0.0.1:1", "frames_udp": ""}))
    locate = locator(source_of(tmp_path), Transport.UDP, None)
    assert locate is not None
    with pytest.raises(CommandError) as caught:
        locate()
    assert "nanogridata.udp" in caught.value.hint


def test_an_address_that_was_typed_counts(tmp_path: Path) -> None:
    locate = locator(source_of(tmp_path), Transport.TCP, ("gateway", 9))
    assert locate is not None
    assert locate() == ("gateway", 9)


def test_beside_a_url_it_is_the_usual_port() -> None:
    source = FixedServer(Target("https://gateway:8443"))
    for transport, port in ((Transport.TCP, 5678), (Transport.UDP, 5679)):
        locate = locator(source, transport, None)
        assert locate is not None
        assert locate() == ("gateway", port)
    assert locator(source, Transport.HTTP, None) is None


def test_secrets_are_for_all_models_or_for_one(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b=c"
    first.write_text("ab" * 32)
    second.write_bytes(bytes(range(200, 250)))
    assert read_secrets((str(first),)) == {0x10: b"\xab" * 32, 0x20: b"\xab" * 32}
    both = read_secrets((f"32={second}", str(first)))
    assert both == {0x10: b"\xab" * 32, 0x20: bytes(range(200, 250))}
    assert read_secrets((f"0x10={first}",)) == {0x10: b"\xab" * 32}
    assert read_secrets(()) == {}


def test_secrets_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        read_secrets((str(tmp_path / "none"),))
    with pytest.raises(click.UsageError):
        read_secrets((f"0x30={tmp_path}",))
