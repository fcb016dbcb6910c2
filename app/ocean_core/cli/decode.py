"""`ocean decode`: explains a Nanogridata frame, field by field, or why it is refused."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from ocean_core.cli.frame_advice import advice
from ocean_core.cli.frame_explained import explain
from ocean_core.cli.frame_input import (
    INPUT_BYTES_MAX,
    SECRET_FILE_BYTES_MAX,
    Form,
    Given,
    InputError,
    frame_of_bytes,
    frame_of_text,
    secret_of,
)
from ocean_core.cli.frame_report import as_object, report_lines
from ocean_core.cli.options import examples
from ocean_core.cli.tables import counted, json_option
from ocean_core.config.settings import NanogridataSettings
from ocean_core.model import limits
from ocean_core.obs.clock import SystemClock
from ocean_core.protocol.nanogridata.frame import PAYLOAD_BYTES_MAX, CustomModel, Options
from ocean_core.protocol.nanogridata.secret import HmacSecret

EXIT_REFUSED: Final = 1
NOW_S_MAX: Final = 1 << 40
_SECONDS_MAX: Final = 1 << 32
_CRC_VARIANTS: Final = ("ccitt", "split", "modbus")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text[:20]) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return read


def _truth(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _mac_size(text: str) -> int:
    return int(_one_of("32", "16")(text))


def _variants(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) < len(names) or not set(names) <= set(_CRC_VARIANTS):
        raise ValueError(f"some of {','.join(_CRC_VARIANTS)}, each once, in the order to try")
    return names


_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    "max_payload": _whole(0, PAYLOAD_BYTES_MAX),
    "future_tolerance_s": _whole(0, _SECONDS_MAX),
    "max_age_s": _whole(0, _SECONDS_MAX),
    "min_level": _whole(0, 3),
    "unknown_model": _one_of("accept", "reject"),
    "crc_variants": _variants,
    "plaintext_high": _truth,
    "high_mac_size": _mac_size,
}


def options_of(_context: object, _parameter: object, typed: tuple[str, ...]) -> Options:
    """Return the options that were typed as name=value, over the defaults (click calls this)."""
    values: dict[str, Any] = {}
    for each in typed:
        name, equals, text = each.partition("=")
        name = name.strip()
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            nearest = f" Did you mean {near[0]}?" if near else ""
            raise click.BadParameter(
                f"{name!r} is no option; there are {', '.join(_OPTIONS)}.{nearest}"
            )
        if not equals:
            raise click.BadParameter(f"{each!r} has no value; write {name}=VALUE.")
        if name in values:
            raise click.BadParameter(f"{name} is given twice.")
        try:
            values[name] = _OPTIONS[name](text.strip())
        except ValueError as error:
            raise click.BadParameter(f"{name}: found {text!r}, expected {error}.") from error
    return msgspec.structs.replace(Options(), **values)


def secret_from(
    _context: object, _parameter: object, path: Path | None
) -> tuple[bytes, Path] | None:
    """Return the secret in a file, hex or raw bytes, with the file (click calls this)."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            secret, form = secret_of(file.read(SECRET_FILE_BYTES_MAX + 1))
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from error
    except InputError as error:
        raise click.BadParameter(f"{path}: {error}") from error
    if len(secret) < limits.SECRET_BYTES_MIN:
        click.echo(
            f"warning: the secret in {path} has {counted(len(secret), 'byte')} (read as "
            f"{'hex' if form == 'hex' else 'raw bytes'}); a server takes no secret below "
            f"{limits.SECRET_BYTES_MIN}",
            err=True,
        )
    return secret, path


def _described(_context: object, _parameter: object, path: Path | None) -> dict[int, CustomModel]:
    if path is None:
        return {}
    # Most calls need none of this.
    from ocean_core.service.frames.models_file import load_models

    entries = load_models(NanogridataSettings(models_file=str(path)), Path())
    return {
        model_id: entry.custom
        for model_id, entry in entries.models.items()
        if entry.custom is not None
    }


secret_file_option: Final = click.option(
    "--secret-file", "secret", type=click.Path(path_type=Path), callback=secret_from,
    metavar="FILE", help="File with the secret, as hex or raw bytes.",
)  # fmt: skip
frame_options_option: Final = click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", callback=options_of,
    help="What the server accepts, such as max_age_s=86400 or crc_variants=ccitt,split; may be "
    f"given several times. Names: {', '.join(_OPTIONS)}.",
)  # fmt: skip


@click.command(
    "decode",
    epilog=examples(
        "ocean decode --secret-file esp32.key c1530110 0101001f 696b7509 0000...",
        "ocean decode --option max_age_s=86400 wVMBEAEBAB9pa3UJ...",
        "ocean encode --device-id p1 --pressure-pa 101325 | ocean decode -",
        "ocean decode --json - < frame.bin | jq .outcome",
    ),
)
@click.argument("frame", nargs=-1, required=True, metavar="FRAME|-")
@secret_file_option
@click.option(
    "--now", type=click.IntRange(0, NOW_S_MAX), metavar="EPOCH",
    help="Judge the frame's time by this clock, seconds since 1970 UTC. Default: now.",
)  # fmt: skip
@frame_options_option
@click.option(
    "--models-file", "described", type=click.Path(path_type=Path), callback=_described,
    metavar="FILE", help="The models of the box, its nanogridata.toml.",
)  # fmt: skip
@click.option(
    "--as", "form", type=click.Choice(["hex", "base64", "binary"]),
    help="What FRAME is, if it could be several.",
)  # fmt: skip
@json_option
def decode_command(
    *,
    frame: tuple[str, ...],
    secret: tuple[bytes, Path] | None,
    now: int | None,
    options: Options,
    described: Mapping[int, CustomModel],
    form: Form | None,
    as_json: bool,
) -> None:
    """Explain a Nanogridata frame, field by field, or why it is refused.

    FRAME is hex (blanks, colons, commas, 0x and case do not matter) or base64; - reads hex, base64
    or the bytes themselves from standard input. Needs no server. Whether a frame came before is the
    one thing that only a server can tell.

    Exit code 0: a good frame; 1: it is refused; 2: wrong usage.
    """
    given = _given(frame, form)
    now_s = SystemClock().now_us() // 1_000_000 if now is None else now
    keyed = None if secret is None else HmacSecret(secret[0], "the secret")
    told = explain(given.data, now_s, options, keyed, described)
    if as_json:
        result = as_object(told)
        if given.note:
            result["note"] = given.note
        click.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        if given.note:
            click.echo(f"note: {given.note}", err=True)
        note = "no secret" if secret is None else f"the secret in {secret[1]}"
        steps = advice(told, None if secret is None else secret[0])
        click.echo("\n".join(report_lines(told, steps, note)))
    if told.problems:
        sys.exit(EXIT_REFUSED)


def _given(typed: tuple[str, ...], form: Form | None) -> Given:
    try:
        if typed == ("-",):
            return frame_of_bytes(sys.stdin.buffer.read(INPUT_BYTES_MAX + 1), form)
        if form == "binary":
            raise InputError("bytes themselves come from standard input: give - instead")
        return frame_of_text(" ".join(typed), form)
    except InputError as error:
        raise click.UsageError(f"FRAME: {error}.") from error
