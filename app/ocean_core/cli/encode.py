"""`ocean encode`: makes a Nanogridata frame, as a device would."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ocean_core.cli.decode import (
    NOW_S_MAX,
    frame_options_option,
    secret_file_option,
)
from ocean_core.cli.frame_explained import explain
from ocean_core.cli.options import examples
from ocean_core.obs.clock import SystemClock
from ocean_core.protocol.nanogridata.encode import (
    cbor_payload,
    encode,
    gas_payload,
    pressure_payload,
)
from ocean_core.protocol.nanogridata.encryption import IV_BYTES
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE, Options, PayloadType
from ocean_core.protocol.nanogridata.secret import HmacSecret

_TYPES: Final = {kind.name.lower(): int(kind) for kind in PayloadType}
_SECONDS_MAX: Final = (1 << 32) - 1
_BYTES_KEY: Final = "$bytes"


def _model(_context: object, _parameter: object, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        model = int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        model = -1
    if not 0 <= model <= 0xFF:
        raise click.BadParameter(f"found {text!r}, expected 0x00 to 0xff, or 0 to 255")
    return model


def _hex(_context: object, _parameter: object, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(re.sub(r"0[xX]|[:,]", " ", text))
    except ValueError:
        raise click.BadParameter(f"found {text!r}, expected hex digits in pairs") from None


def _iv(context: object, parameter: object, text: str | None) -> bytes | None:
    iv = _hex(context, parameter, text)
    if iv is not None and len(iv) != IV_BYTES:
        raise click.BadParameter(f"has {len(iv)} bytes, expected {IV_BYTES}")
    return iv


def _map(_context: object, _parameter: object, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter("is no object; a payload is a map")
    mapped = _with_bytes(value)
    assert isinstance(mapped, dict)
    return mapped


def _with_bytes(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON with ``{"$bytes": hex}`` as byte strings."""
    if isinstance(value, list):
        return [_with_bytes(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_BYTES_KEY} and isinstance(value[_BYTES_KEY], str):
        return _hex(None, None, value[_BYTES_KEY])
    return {key: _with_bytes(inner) for key, inner in value.items()}


@click.command(
    "encode",
    epilog=examples(
        "ocean encode --device-id p1 --pressure-pa 101325",
        "ocean encode --device-id g1 --gas-type CO2 --concentration-ppm 412.5 --secret-file k",
        """ocean encode --model 0x40 --type config --cbor '{"device_id": "pi", "v": 2}'""",
        "ocean encode --device-id p1 --pressure-pa 101325 --binary > /dev/tcp/127.0.0.1/5678",
    ),
)
@click.option("--device-id", metavar="TEXT", help="Device, 1 to 64 bytes.")
@click.option("--pressure-pa", type=int, help="Pressure, Pa: a payload of model 0x10.")
@click.option("--lab-id", metavar="TEXT", help="Laboratory, with --pressure-pa.")
@click.option("--gas-type", metavar="TEXT", help="Gas, with --concentration-ppm.")
@click.option("--concentration-ppm", type=float, help="Gas, ppm: a payload of model 0x20.")
@click.option(
    "--measured-at", type=click.IntRange(0, _SECONDS_MAX), metavar="EPOCH",
    help="When it was measured. Default: --timestamp.",
)  # fmt: skip
@click.option(
    "--cbor", "fields", metavar="JSON", callback=_map,
    help='A CBOR payload; {"$bytes": "00ff"} stands for a byte string.',
)  # fmt: skip
@click.option("--raw", metavar="HEX", callback=_hex, help="The payload byte by byte.")
@click.option(
    "--model", metavar="ID", callback=_model,
    help="Model, such as 0x40. Default: that of the payload.",
)  # fmt: skip
@click.option(
    "--type", "kind", type=click.Choice(list(_TYPES)), default="telemetry", show_default=True,
    help="What the payload is for.",
)  # fmt: skip
@click.option(
    "--level", type=click.IntRange(0, 3),
    help="Security level. Default: 1 with a secret, else 0.",
)  # fmt: skip
@secret_file_option
@click.option(
    "--timestamp", type=click.IntRange(0, _SECONDS_MAX), metavar="EPOCH",
    help="When the frame is made, seconds since 1970 UTC. Default: now.",
)  # fmt: skip
@click.option(
    "--iv", metavar="HEX", callback=_iv,
    help="12 bytes for levels 2 and 3; never use one twice. Default: random.",
)  # fmt: skip
@frame_options_option
@click.option("--base64", "as_base64", is_flag=True, help="Print base64 instead of hex.")
@click.option("--binary", "as_binary", is_flag=True, help="Write the bytes themselves.")
def encode_command(
    *,
    device_id: str | None,
    pressure_pa: int | None,
    lab_id: str | None,
    gas_type: str | None,
    concentration_ppm: float | None,
    measured_at: int | None,
    fields: dict[str, Any] | None,
    raw: bytes | None,
    model: int | None,
    kind: str,
    level: int | None,
    secret: tuple[bytes, Path] | None,
    timestamp: int | None,
    iv: bytes | None,
    options: Options,
    as_base64: bool,
    as_binary: bool,
) -> None:
    """Make a Nanogridata frame, and print it as hex.

    Of the options of a server those count that a device may follow, too: the first of
    crc_variants, high_mac_size, and plaintext_high, which leaves levels 2 and 3 unencrypted. A frame
    that a server would refuse is printed all the same, with a warning. Needs no server.
    """
    if as_base64 and as_binary:
        raise click.UsageError("--base64 and --binary: choose one")
    made_at = SystemClock().now_us() // 1_000_000 if timestamp is None else timestamp
    measured = made_at if measured_at is None else measured_at
    level = level if level is not None else int(secret is not None)
    if level and secret is None:
        raise click.UsageError(
            f"Level {level} needs a secret: --secret-file FILE with 32 bytes or more, as hex or raw, "
            "for example from `openssl rand -hex 32`."
        )
    try:
        usual_model, payload = _payload(
            device_id, pressure_pa, lab_id, gas_type, concentration_ppm, measured, fields, raw
        )
        chosen = usual_model if model is None else model
        if chosen is None:
            raise click.UsageError("--model is missing: name the device's model, such as 0x40")
        frame = made(
            chosen, _TYPES[kind], payload, level=level, timestamp=made_at,
            secret=None if secret is None else secret[0], iv=iv, options=options,
            random_bytes=os.urandom,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"{error}.") from error
    _warn(frame, made_at, options, None if secret is None else secret[0])
    _write(frame, as_base64=as_base64, as_binary=as_binary)


def made(
    model: int,
    payload_type: int,
    payload: bytes,
    *,
    level: int,
    timestamp: int,
    secret: bytes | None,
    iv: bytes | None,
    options: Options,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    """Return a frame; an IV that is needed and not given is random. Raises ValueError."""
    is_encrypted = level >= 2 and not options.plaintext_high
    if iv is not None and not is_encrypted:
        raise ValueError(f"an IV is given, but nothing is encrypted at level {level}")
    return encode(
        model, payload_type, payload, level=level, timestamp=timestamp, secret=secret,
        iv=random_bytes(IV_BYTES) if is_encrypted and iv is None else iv,
        crc_variant=options.crc_variants[0], high_mac_size=options.high_mac_size,
        encrypted=is_encrypted,
    )  # fmt: skip


def _payload(
    device_id: str | None,
    pressure_pa: int | None,
    lab_id: str | None,
    gas_type: str | None,
    concentration_ppm: float | None,
    measured: int,
    fields: dict[str, Any] | None,
    raw: bytes | None,
) -> tuple[int | None, bytes]:
    """Return the model that a payload is of, if that is clear, and the payload.

    Raises UsageError for options that do not go together, ValueError and TypeError for what cannot
    be encoded.
    """
    ways = {
        "--pressure-pa": pressure_pa,
        "--concentration-ppm": concentration_ppm,
        "--cbor": fields,
        "--raw": raw,
    }
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) != 1:
        found = " and ".join(chosen) or "none"
        raise click.UsageError(
            f"Of {', '.join(ways)} exactly one says what to send; found {found}."
        )
    way = chosen[0]
    belongs = {
        "--device-id": (device_id, {"--pressure-pa", "--concentration-ppm"}),
        "--lab-id": (lab_id, {"--pressure-pa"}),
        "--gas-type": (gas_type, {"--concentration-ppm"}),
    }
    for name, (value, to) in belongs.items():
        if value is not None and way not in to:
            raise click.UsageError(f"{name} goes with {' or '.join(sorted(to))}, not with {way}.")
    if fields is not None:
        return None, cbor_payload(fields)
    if raw is not None:
        return None, raw
    if device_id is None:
        raise click.UsageError(f"--device-id is missing; {way} needs it")
    if pressure_pa is not None:
        return PRESSURE, pressure_payload(device_id, lab_id or "", measured, pressure_pa)
    if gas_type is None:
        raise click.UsageError(f"--gas-type is missing; {way} needs it")
    assert concentration_ppm is not None
    return GAS, gas_payload(device_id, gas_type, measured, concentration_ppm)


def _warn(frame: bytes, now_s: int, options: Options, secret: bytes | None) -> None:
    """Say on standard error if no server would take the frame, whatever its clock."""
    assert now_s < NOW_S_MAX
    signer = None if secret is None else HmacSecret(secret, "the secret")
    told = explain(frame, now_s, options, signer)
    for problem in told.problems:
        click.echo(
            f"warning: a server refuses this frame with {problem.outcome}: {problem.detail}",
            err=True,
        )


def _write(frame: bytes, *, as_base64: bool, as_binary: bool) -> None:
    if as_binary:
        sys.stdout.buffer.write(frame)
        sys.stdout.buffer.flush()
    elif as_base64:
        click.echo(base64.b64encode(frame).decode())
    else:
        click.echo(frame.hex())
