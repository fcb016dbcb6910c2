"""`ocean decode`: every vector of the wire format, every error in words, every form of input."""

import base64
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from ocean_core.cli.decode import decode_command, options_of
from ocean_core.cli.frame_advice import NEXT_STEPS, advice
from ocean_core.cli.frame_explained import explain
from ocean_core.cli.frame_input import InputError, frame_of_bytes, frame_of_text, secret_of
from ocean_core.cli.frame_report import as_object, report_lines
from ocean_core.protocol.nanogridata.encode import cbor_payload, encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import Options, Outcome
from ocean_core.protocol.nanogridata.secret import HmacSecret
from support.nanogrid import golden

VECTORS = {vector["id"]: vector for vector in golden()["vectors"]}
NOW = 1_768_650_000
SECRET = bytes(range(1, 33))
GOOD = VECTORS["py-esp32-telemetry-s1"]
FRAME = bytes.fromhex(GOOD["frame"])


def options_for(vector: dict[str, Any]) -> Options:
    return msgspec.convert(vector["options"], Options)


def frame(
    payload: bytes = b"", *, level: int = 1, model: int = 0x10, timestamp: int = NOW
) -> bytes:
    return encode(
        model, 1, payload or pressure_payload("p1", "", NOW, 101_325),
        level=level, timestamp=timestamp, secret=SECRET if level else None,
        iv=bytes(12) if level > 1 else None,
    )  # fmt: skip


def told(data: bytes, secret: bytes | None = SECRET, **options: Any) -> str:
    signer = None if secret is None else HmacSecret(secret, "it")
    explained = explain(data, NOW, Options(**options), signer)
    return "\n".join(report_lines(explained, advice(explained, secret), "the secret"))


def run(*arguments: str, data: bytes = b"") -> Result:
    return CliRunner().invoke(decode_command, list(arguments), input=data)


def same(found: object, expected: object) -> bool:
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(
            same(found[key], expected[key]) for key in expected
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=1e-9)
    return found == expected


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector["id"])
def test_every_vector_is_judged_and_told(vector: dict[str, Any]) -> None:
    secret = None if vector["secret"] is None else bytes.fromhex(vector["secret"])
    signer = None if secret is None else HmacSecret(secret, "it")
    explained = explain(bytes.fromhex(vector["frame"]), vector["now"], options_for(vector), signer)
    result = json.loads(json.dumps(as_object(explained), allow_nan=False))
    lines = report_lines(explained, advice(explained, secret), "the secret")
    assert all(line.isprintable() for line in lines)
    if secret:
        assert secret.hex() not in "\n".join(lines)
    if vector["outcome"] == "E_REPLAY":
        # Only a server knows what came before.
        assert result["outcome"] != "E_REPLAY"
        return
    assert result["outcome"] == vector["outcome"]
    names = ["header", "mac", "encrypted", "encoding", "decoded", "measurements"]
    assert same({name: result[name] for name in names}, {name: vector[name] for name in names})
    if vector["outcome"] == "ok":
        assert result["crc_variant"] == vector.get("crc_variant")
        assert (result["detail"], result["offset"]) == (None, None)
        assert lines[0].startswith("ok ")
    else:
        assert result["detail"]
        assert 0 <= result["offset"] <= len(vector["frame"]) // 2
        assert lines[0].startswith(vector["outcome"] + " ")
        assert any("^^" in line for line in lines)
        assert any("what to do: " in line for line in lines)


@pytest.mark.parametrize(
    "name",
    ["py-esp32-telemetry-s1", "py-esp32-telemetry-s2", "trunc-05", "cbor-indef-array"],
)  # fmt: skip
def test_the_command_itself_says_the_same(name: str, tmp_path: Path) -> None:
    vector = VECTORS[name]
    secret = tmp_path / "secret"
    secret.write_bytes(bytes.fromhex(vector["secret"]))
    done = subprocess.run(
        [
            sys.executable, "-m", "ocean_core", "decode", "--json", "--secret-file", str(secret),
            "--now", str(vector["now"]), "-",
        ],
        input=bytes.fromhex(vector["frame"]), capture_output=True, timeout=60, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == (0 if vector["outcome"] == "ok" else 1), done.stderr
    assert json.loads(done.stdout)["outcome"] == vector["outcome"]
    assert not (tmp_path / "ocean-data").exists()


# --- what is told -------------------------------------------------------------------------------


def test_every_error_has_a_next_step() -> None:
    assert set(NEXT_STEPS) == set(Outcome) - {Outcome.OK}


def test_a_good_frame_is_told_field_by_field() -> None:
    text = told(FRAME, bytes.fromhex(GOOD["secret"]))
    assert text.startswith("ok  a good frame of 61 bytes\n")
    assert "  8  69 6b 75 09  timestamp  2026-01-17T11:39:53Z (1768649993), 7 s before now" in text
    assert "HMAC-SHA256, its first 16 bytes, right with the secret" in text
    assert "  device_id     ESP32-002" in text
    assert "  pressure  2026-01-17T11:39:52Z (1768649992)  101339  Pa" in text


def test_the_place_of_a_fault_is_marked() -> None:
    data = bytearray(frame())
    data[2] = 7
    lines = told(bytes(data)).split("\n")
    assert lines[0] == "E_VERSION  refused at byte 2 of 42 (error 3 of 21)"
    row = next(place for place, line in enumerate(lines) if line.startswith("  0000"))
    assert lines[row].startswith("  0000  c1 53 07 10")
    assert lines[row + 1] == "              ^^"


def test_what_is_missing_is_marked_behind_the_last_byte() -> None:
    text = told(frame()[:-3])
    assert "39 bytes found, 42 needed" in text
    assert "^^  the frame ends here" in text


def test_a_frame_that_is_too_old_shows_what_it_holds_and_what_else_is_wrong() -> None:
    data = frame(timestamp=NOW - 7200)
    text = told(data)
    assert text.startswith("E_STALE")
    assert "off by -2 h: the device sends local time" in text
    assert "The check value is right; the frame is refused all the same" in text
    assert "  pressure  " in text
    bad = frame(cbor_payload({"device_id": "p1"}), timestamp=NOW + 999)
    text = told(bad)
    assert text.startswith("E_FUTURE")
    assert "and then E_PROFILE" in text
    assert "device_id  p1" in text


def test_an_unproven_payload_is_marked_and_an_encrypted_one_not_decrypted() -> None:
    other = bytes(32)
    text = told(frame(), other)
    assert "UNPROVEN" in text
    assert "device_id     p1" in text
    assert "WRONG with the secret" in text
    text = told(frame(level=2), other)
    assert "encrypted: not to be read without a right check value" in text
    assert "device_id" not in text
    text = told(frame(), None)
    assert text.startswith("E_KEY")
    assert "not checked: no secret was given" in text
    assert "UNPROVEN" in text


def test_json_tells_what_stands_beyond() -> None:
    explained = explain(frame(), NOW, Options(), HmacSecret(bytes(32), "it"))
    result = as_object(explained)
    assert result["decoded"] is None
    assert result["beyond"]["proven"] is False
    assert result["beyond"]["decoded"]["device_id"] == "p1"


@pytest.mark.parametrize(
    ("data", "secret", "words"),
    [
        (b"\0\0" + frame(), SECRET, "C1 53 stands at byte 2: leave out the 2 bytes before it."),
        (frame() + b"\n", SECRET, "an end of line that a shell or an editor added"),
        (frame() + frame(), SECRET, "a second frame"),
        (frame()[:28], SECRET, "with a check value of 2 bytes"),
        (encode(16, 1, b"x", level=1, timestamp=60, secret=SECRET), SECRET, "clock was never set"),
        (
            encode(16, 1, b"x", level=1, timestamp=NOW, secret=SECRET.hex().encode()),
            SECRET, "right for the hex text of the secret",
        ),
        (
            encode(16, 1, b"x", level=1, timestamp=NOW, secret=SECRET + b"\n"),
            SECRET, "right for the secret with an end of line",
        ),
        (
            encode(16, 1, b"x", level=1, timestamp=NOW, secret=SECRET),
            SECRET + b"\n", "without the end of line that the file has",
        ),
        (
            encode(16, 1, b"x", level=2, timestamp=NOW, secret=SECRET, iv=bytes(12), high_mac_size=16),
            SECRET, "`--option high_mac_size=16`",
        ),
        (
            encode(0xFF, 1, cbor_payload({"a": "x" * 30}), level=2, timestamp=NOW, secret=SECRET,
                   encrypted=False),
            SECRET, "plaintext_high=true",
        ),
    ],
)  # fmt: skip
def test_usual_mistakes_are_named(data: bytes, secret: bytes, words: str) -> None:
    assert words in " ".join(told(data, secret).split())


def test_checksums_of_the_c_firmware_are_recognised() -> None:
    data = bytes.fromhex(VECTORS["c-crc-split-enabled"]["frame"])
    assert "fits the form split" in " ".join(told(data).split())


def test_what_a_frame_holds_does_not_steer_the_terminal() -> None:
    data = frame(
        cbor_payload({"device_id": "p\x1b[2J", "lab_id": "", "pressure_pa": 1, "\n": "\x07"})
    )
    assert "\x1b" not in told(data)
    assert "\x07" not in told(data)


# --- input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (FRAME.hex(), "hex"),
        (FRAME.hex(" ").upper(), "hex"),
        (FRAME.hex(":"), "hex"),
        ("\n".join(FRAME.hex(" ", 8).split()), "hex"),
        (", ".join(f"0x{byte:02X}" for byte in FRAME), "hex"),
        (f"0x{FRAME.hex()}\n", "hex"),
        (base64.b64encode(FRAME).decode(), "base64"),
        (base64.urlsafe_b64encode(FRAME).decode().rstrip("="), "base64"),
        (base64.encodebytes(FRAME).decode(), "base64"),
    ],
)
def test_text_is_told_apart(text: str, form: str) -> None:
    assert frame_of_text(text)[:2] == (FRAME, form)
    assert frame_of_bytes(text.encode())[:2] == (FRAME, form)
    assert frame_of_bytes(b"\xef\xbb\xbf" + text.encode()).data == FRAME


def test_bytes_are_taken_as_they_are() -> None:
    assert frame_of_bytes(FRAME) == (FRAME, "binary", "")
    assert frame_of_bytes(b"\xff\x00") == (b"\xff\x00", "binary", "")
    assert frame_of_bytes(b"").data == b""


@pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector["id"])
def test_no_frame_is_mistaken(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["frame"])
    given = frame_of_text(data.hex())
    assert given.data == data
    if data.startswith(b"\xc1\x53"):
        assert not given.note
        encoded = base64.b64encode(data).decode()
        if len(data) >= 3:
            assert frame_of_text(encoded)[:2] == (data, "base64")
        assert frame_of_bytes(data).data == data


def test_what_could_be_both_is_told() -> None:
    given = frame_of_text("beefbeef")
    assert (given.data, given.form) == (b"\xbe\xef\xbe\xef", "hex")
    assert "hex (4 bytes) and as base64 (6 bytes)" in given.note
    assert frame_of_text("beefbeef", "base64").form == "base64"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c1530", "5 digits, an odd number"),
        ("c1 5g!", "letter 5 is 'g'"),
        ("wV=MB", "'=' stands in the middle"),
        ("wVMB=", "the number of '=' at the end is wrong"),
    ],
)
def test_what_is_neither_is_explained(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        frame_of_text(text)


def test_secrets_are_hex_or_bytes() -> None:
    assert secret_of(SECRET.hex().encode() + b"\r\n") == (SECRET, "hex")
    assert secret_of(SECRET) == (SECRET, "binary")
    assert secret_of(b"a raw secret, as it is\n") == (b"a raw secret, as it is\n", "binary")
    with pytest.raises(InputError, match="empty"):
        secret_of(b" \n")


# --- the command --------------------------------------------------------------------------------


def test_exit_codes_and_streams(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(GOOD["secret"])
    good = ["--secret-file", str(secret), "--now", str(NOW)]
    assert run(*good, *FRAME.hex(" ", 4).split()).exit_code == 0
    assert run(*good, "-", data=FRAME).exit_code == 0
    refused = run("--now", str(NOW), FRAME.hex())
    assert refused.exit_code == 1
    assert refused.stdout.startswith("E_KEY")
    assert refused.stderr == ""
    assert run("z!").exit_code == 2
    assert run().exit_code == 2
    assert run("--secret-file", str(tmp_path / "none"), FRAME.hex()).exit_code == 2


def test_a_short_secret_is_used_with_a_warning(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_bytes(b"short")
    data = encode(255, 1, b"", level=1, timestamp=NOW, secret=b"short")
    done = run("--secret-file", str(secret), "--now", str(NOW), data.hex())
    assert done.exit_code == 0
    assert "has 5 bytes (read as raw bytes)" in done.stderr


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("max_aeg_s=1", "Did you mean max_age_s?"),
        ("max_age_s", "has no value; write max_age_s=VALUE"),
        ("max_age_s=-1", "found '-1', expected a whole number from 0 to"),
        ("max_payload=1025", "a whole number from 0 to 1024"),
        ("min_level=4", "a whole number from 0 to 3"),
        ("plaintext_high=yes", "expected true or false"),
        ("high_mac_size=20", "expected 32 or 16"),
        ("crc_variants=ccitt,ccitt", "some of ccitt,split,modbus, each once"),
        ("unknown_model=ask", "expected accept or reject"),
    ],
)
def test_bad_options_are_told_precisely(typed: str, words: str) -> None:
    done = run("--option", typed, FRAME.hex())
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())


def test_options_are_those_of_the_wire_format() -> None:
    names = {field.name for field in msgspec.structs.fields(Options)}
    for name in names:
        with pytest.raises(click.BadParameter, match="expected"):
            options_of(None, None, (f"{name}=?",))
    typed = ("crc_variants=modbus,ccitt", "plaintext_high=true", "max_age_s=86400")
    options = options_of(None, None, typed)
    assert options.crc_variants == ("modbus", "ccitt")
    assert (options.plaintext_high, options.max_age_s, options.min_level) == (True, 86400, 0)
    with pytest.raises(click.BadParameter, match="given twice"):
        options_of(None, None, ("min_level=1", "min_level=2"))


def test_too_much_input_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(70_000))))
    with pytest.raises(click.UsageError, match="more than 65536 bytes"):
        decode_command.callback(  # type: ignore[misc]
            frame=("-",),
            secret=None,
            now=None,
            options=Options(),
            described={},
            form=None,
            as_json=False,
        )


def test_models_of_the_operator_are_read_with_their_file(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(
        '[model.0x50]\nlabel = "t"\nfields = [{ name = "device_id", type = "text8" }, '
        '{ name = "air", type = "i16", scale = 0.01, metric = "temperature", unit = "C" }]\n',
        encoding="utf-8",
    )
    data = encode(0x50, 1, b"\x02p1\x08\x00", level=0, timestamp=NOW)
    typed = ["--json", "--now", str(NOW), "--option", "unknown_model=reject", data.hex()]
    assert json.loads(run(*typed).stdout)["outcome"] == "E_MODEL"
    result = json.loads(run("--models-file", str(models), *typed).stdout)
    assert result["outcome"] == "ok"
    assert result["measurements"] == [
        {"metric": "temperature", "ts": NOW, "value": 20.48, "unit": "C"}
    ]
