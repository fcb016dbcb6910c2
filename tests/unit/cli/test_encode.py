"""`ocean encode`: frames that decode to what was typed, and precise words for what cannot be."""

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.cli.decode import decode_command
from ocean_core.cli.encode import encode_command, made
from ocean_core.cli.frame_explained import explain
from ocean_core.protocol.nanogridata.encode import cbor_payload
from ocean_core.protocol.nanogridata.frame import Options, Outcome
from ocean_core.protocol.nanogridata.secret import HmacSecret

NOW = 1_768_650_000
SECRET = bytes(range(1, 33))
PRESSURE = ("--device-id", "p1", "--pressure-pa", "101325")


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(SECRET.hex())
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(encode_command, ["--timestamp", str(NOW), *arguments])


def decoded(frame: str, *arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(
        decode_command, ["--json", "--now", str(NOW), *arguments, "-"], input=frame
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_without_a_secret_it_is_level_0() -> None:
    done = run(*PRESSURE, "--lab-id", "L")
    assert (done.exit_code, done.stderr) == (0, "")
    result = decoded(done.stdout)
    assert result["outcome"] == "ok"
    assert result["crc_variant"] == "ccitt"
    assert result["measurements"] == [
        {"metric": "pressure", "ts": NOW, "value": 101325, "unit": "Pa"}
    ]


@pytest.mark.parametrize("level", ["1", "2", "3"])
def test_levels_with_a_secret(key: str, level: str) -> None:
    done = run(*PRESSURE, "--secret-file", key, "--level", level, "--measured-at", "1768649000")
    assert (done.exit_code, done.stderr) == (0, "")
    result = decoded(done.stdout, "--secret-file", key)
    assert result["outcome"] == "ok"
    assert result["encrypted"] == (level in "23")
    header = result["header"]
    assert isinstance(header, dict)
    assert header["flags"] == int(level)
    assert SECRET.hex() not in done.output


def test_gas_cbor_and_raw(key: str) -> None:
    gas = run("--device-id", "g", "--gas-type", "CO2", "--concentration-ppm", "412.5",
              "--secret-file", key)  # fmt: skip
    assert decoded(gas.stdout, "--secret-file", key)["measurements"] == [
        {"metric": "gas:CO2", "ts": NOW, "value": 412.5, "unit": "ppm"}
    ]
    fields = {"device_id": "pi", "n": [1, -2.5, None, True], "key": {"$bytes": "00ff"}}
    cbor = run("--model", "0x40", "--type", "config", "--cbor", json.dumps(fields))
    result = decoded(cbor.stdout)
    assert (result["encoding"], result["decoded"]) == ("cbor", fields)
    raw = run("--model", "255", "--raw", "00:01 ff")
    assert decoded(raw.stdout)["decoded"] == {"raw": "0001ff"}


def test_forms_of_output() -> None:
    plain = bytes.fromhex(run(*PRESSURE).stdout)
    assert base64.b64decode(run(*PRESSURE, "--base64").stdout) == plain
    assert run(*PRESSURE, "--binary").stdout_bytes == plain
    assert run(*PRESSURE, "--binary", "--base64").exit_code == 2


def test_an_iv_is_random_unless_it_is_given(key: str) -> None:
    encrypted = (*PRESSURE, "--secret-file", key, "--level", "2")
    assert run(*encrypted).stdout != run(*encrypted).stdout
    fixed = (*encrypted, "--iv", "00" * 12)
    assert run(*fixed).stdout == run(*fixed).stdout
    frame = made(
        16, 1, b"x", level=2, timestamp=NOW, secret=SECRET, iv=None, options=Options(),
        random_bytes=lambda size: b"\x07" * size,
    )  # fmt: skip
    assert frame[14:26] == b"\x07" * 12


def test_forms_of_old_senders(key: str) -> None:
    split = run(*PRESSURE, "--option", "crc_variants=split")
    assert decoded(split.stdout)["outcome"] == "E_MAC"
    assert decoded(split.stdout, "--option", "crc_variants=split")["crc_variant"] == "split"
    old = ("--option", "high_mac_size=16", "--option", "plaintext_high=true")
    plain = run(*PRESSURE, "--secret-file", key, "--level", "2", *old)
    result = decoded(plain.stdout, "--secret-file", key, *old)
    assert (result["outcome"], result["encrypted"]) == ("ok", False)


def test_a_frame_that_is_refused_is_made_with_a_warning() -> None:
    done = run("--model", "0x10", "--cbor", '{"device_id": "p1"}')
    assert done.exit_code == 0
    assert bytes.fromhex(done.stdout)
    assert "warning: a server refuses this frame with E_PROFILE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "exactly one says what to send; found none"),
        ((*PRESSURE, "--raw", "00"), "found --pressure-pa and --raw"),
        (("--pressure-pa", "1"), "--device-id is missing"),
        (("--device-id", "g", "--concentration-ppm", "1"), "--gas-type is missing"),
        (("--cbor", "{}"), "--model is missing"),
        (("--model", "1", "--cbor", "{}", "--lab-id", "x"), "--lab-id goes with --pressure-pa"),
        (("--model", "256", "--raw", ""), "expected 0x00 to 0xff"),
        (("--model", "1", "--raw", "0"), "expected hex digits in pairs"),
        (("--model", "1", "--cbor", "[]"), "a payload is a map"),
        (("--model", "1", "--cbor", "{"), "is no JSON"),
        ((*PRESSURE, "--level", "1"), "Level 1 needs a secret"),
        ((*PRESSURE, "--iv", "00" * 12), "nothing is encrypted at level 0"),
        (("--device-id", "x" * 65, "--pressure-pa", "1"), "1 to 64 expected"),
        (("--device-id", "x", "--pressure-pa", "-1"), "pressure_pa is -1"),
        (("--device-id", "x", "--gas-type", "y", "--concentration-ppm", "nan"), "finite"),
        (("--model", "1", "--raw", "00" * 1025), "0 to 1024 expected"),
        (("--model", "1", "--cbor", '{"a": {"$bytes": "0"}}'), "hex digits in pairs"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())


@given(
    fields=st.dictionaries(
        st.text(max_size=20), st.integers(-(2**63), 2**63) | st.booleans() | st.text(max_size=20),
        max_size=20,
    ),
    level=st.integers(0, 3), timestamp=st.integers(NOW - 3600, NOW + 60),
)  # fmt: skip
def test_what_was_made_is_what_is_read(
    fields: dict[str, object], level: int, timestamp: int
) -> None:
    frame = made(
        0x40, 1, cbor_payload(fields), level=level, timestamp=timestamp, secret=SECRET, iv=None,
        options=Options(), random_bytes=bytes,
    )  # fmt: skip
    told = explain(frame, NOW, Options(), HmacSecret(SECRET, "it"))
    assert told.outcome is Outcome.OK
    assert told.content is not None
    assert told.content.decoded == fields
