"""A frame explained, as text for people and as an object for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from ocean_core.cli.frame_explained import Explained, Problem
from ocean_core.cli.tables import counted, shown, table_lines
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.nanogridata.frame import (
    HEADER_BYTES,
    Header,
    Outcome,
    PayloadType,
)

WIDTH: Final = 96
_ROW: Final = 16
_WHOLE_DUMP_ROWS: Final = 6
_MODELS: Final = {
    0x10: "ESP32 pressure, pressure_v1",
    0x20: "STM32 gas, gas_v1",
    0x30: "ASIC multi-sensor, multi_sensor_v1",
    0x40: "Raspberry Pi",
    0xFF: "custom",
}
_LEVELS: Final = {
    0: "0 none: checksum only",
    1: "1 standard: signed",
    2: "2 high: signed and encrypted",
    3: "3 military: signed and encrypted",
}
_PROBLEM_BYTES: Final = {
    Outcome.MAGIC: 2,
    Outcome.RESERVED: 2,
    Outcome.LENGTH: 2,
    Outcome.FUTURE: 4,
    Outcome.STALE: 4,
}
_TO_THE_END: Final = frozenset({Outcome.MAC, Outcome.TRAILING})
_CHECKS: Final = len(Outcome) - 1


# --- for programs -------------------------------------------------------------------------------


def as_object(told: Explained) -> dict[str, Any]:
    """Return the verdict for programs, in the words of the wire format's test vectors.

    What stands beyond a failing check is under ``beyond``.
    """
    content = told.content
    is_ok = told.outcome is Outcome.OK
    first = told.problems[0] if told.problems else None
    result: dict[str, Any] = {
        "outcome": str(told.outcome),
        "detail": first.detail if first else None,
        "offset": first.offset if first else None,
        "header": _header_object(told),
        "mac": None,
        "encrypted": False,
        "encoding": None,
        "decoded": None,
        "measurements": None,
        "crc_variant": None,
    }
    if is_ok and content is not None:
        assert told.proof is not None
        result |= _content_object(told)
        result["mac"] = told.frame[_payload_end(told) : told.end].hex()
        result["crc_variant"] = told.proof.crc_variant
    elif told.problems[1:] or content is not None:
        result["beyond"] = {
            "proven": told.is_proven,
            "problems": [
                {"outcome": str(each.outcome), "offset": each.offset, "detail": each.detail}
                for each in told.problems[1:]
            ],
            **(_content_object(told) if content is not None else {}),
        }
    return result


def _content_object(told: Explained) -> dict[str, Any]:
    assert told.content is not None
    encrypted, encoding, decoded, measurements = told.content
    return {
        "encrypted": encrypted,
        "encoding": encoding,
        "decoded": plain(decoded),
        "measurements": [plain(each._asdict()) for each in measurements],
    }


def plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return a decoded value as JSON can say it: bytes as ``{"$bytes": hex}``, NaN as text."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _header_object(told: Explained) -> dict[str, Any] | None:
    if told.header is None:
        return None
    return {"magic": told.frame[:2].hex(), **told.header._asdict()}


# --- for people ---------------------------------------------------------------------------------


def report_lines(told: Explained, advice: Sequence[str], secret_note: str) -> list[str]:
    """Return the report. ``secret_note`` tells of the secret that was used, never what it is."""
    lines = list(_verdict(told, advice))
    lines += ["", *_header(told)]
    if told.header is not None:
        lines += ["", *_payload(told), "", *_check(told, secret_note)]
        lines += _holdings(told)
    return lines


def _verdict(told: Explained, advice: Sequence[str]) -> Iterator[str]:
    size = counted(len(told.frame), "byte")
    if not told.problems:
        yield f"ok  a good frame of {size}"
        yield "    (whether it came before only a server can tell)"
        return
    first, *others = told.problems
    yield f"{first.outcome}  refused at byte {first.offset} of {len(told.frame)} (error {first.outcome.number} of {_CHECKS})"
    yield from _wrapped(first.detail, "  ")
    yield ""
    yield from _dump(told.frame, first)
    yield ""
    for number, step in enumerate(advice):
        yield from _wrapped(step, "  what to do: " if number == 0 else "              ")
    for each in others:
        yield from _wrapped(f"then {each.outcome} at byte {each.offset}: {each.detail}", "  and ")


def _wrapped(text: str, first: str) -> list[str]:
    # What comes from a frame must not steer the terminal.
    return click.wrap_text(shown(text), WIDTH, first, " " * len(first)).splitlines()


def _dump(frame: bytes, problem: Problem) -> Iterator[str]:
    """Yield the bytes around a problem in hex, marked by a line of carets."""
    size = len(frame)
    if problem.outcome in _TO_THE_END:
        end = size
    else:
        end = problem.offset + _PROBLEM_BYTES.get(problem.outcome, 1)
    rows = max(1, math.ceil((max(size, problem.offset + 1)) / _ROW))
    first_row, last_row = problem.offset // _ROW, (max(end, problem.offset + 1) - 1) // _ROW
    if rows <= _WHOLE_DUMP_ROWS:
        chosen = list(range(rows))
    else:
        last_row = min(last_row, first_row + 2)
        chosen = list(range(max(0, first_row - 1), min(rows, last_row + 2)))
    if chosen[0]:
        yield "  ..."
    for row in chosen:
        part = frame[row * _ROW : (row + 1) * _ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"  {row * _ROW:04d}  {part.hex(' '):<{3 * _ROW}} {text}".rstrip()
        marked = [at for at in range(row * _ROW, (row + 1) * _ROW) if problem.offset <= at < end]
        if marked and first_row <= row <= last_row:
            carets = " ".join(["^^"] * len(marked))
            note = "  the frame ends here" if problem.offset >= size else ""
            yield f"        {' ' * 3 * (marked[0] - row * _ROW)}{carets}{note}"
    if chosen[-1] < rows - 1:
        yield "  ..."


def _field(at: int, data: bytes, name: str, meaning: str) -> str:
    return f"  {at:>4}  {data.hex(' '):<13}{name:<11}{meaning}".rstrip()


def _header(told: Explained) -> Iterator[str]:
    yield "header"
    frame, header = told.frame, told.header
    names = ("magic", "version", "model", "type", "flags", "length", "timestamp", "reserved")
    sizes = (2, 1, 1, 1, 1, 2, 4, 2)
    meanings = ("",) * len(names) if header is None else _meanings(told, header)
    at = 0
    for name, size, meaning in zip(names, sizes, meanings, strict=True):
        data = frame[at : at + size]
        yield _field(
            at, data, name, meaning if len(data) == size else "cut off" if data else "missing"
        )
        at += size


def _meanings(told: Explained, header: Header) -> tuple[str, ...]:
    types = {int(each): each.name.lower() for each in PayloadType}
    wrong = "undefined"
    model = _MODELS.get(header.model_id, "none of the five of the wire format")
    return (
        "Nanogridata" if told.frame.startswith(b"\xc1\x53") else "not that of Nanogridata, c1 53",
        f"{header.version}" if header.version == 1 else f"{header.version}, {wrong}",
        f"0x{header.model_id:02x} {model}",
        f"{header.payload_type} {types.get(header.payload_type, wrong)}",
        f"level {_LEVELS.get(header.level, f'{header.level}, {wrong}')}"
        + (f"; high bits 0x{header.flags & 0xF0:02x}, {wrong}" if header.flags & 0xF0 else ""),
        f"{counted(header.length, 'byte')} of payload",
        f"{_moment(header.timestamp)}, {_apart(header.timestamp - told.now_s)}",
        f"{header.reserved}" if not header.reserved else f"0x{header.reserved:04x}, not 0",
    )


def _payload_end(told: Explained) -> int:
    assert told.header is not None
    return HEADER_BYTES + told.header.length


def _payload(told: Explained) -> Iterator[str]:
    yield "payload"
    assert told.header is not None
    data = told.frame[HEADER_BYTES : _payload_end(told)]
    missing = told.header.length - len(data)
    size = counted(len(data), "byte")
    if missing > 0:
        yield f"  {HEADER_BYTES:>4}  {size}, {missing:,} missing"
        return
    content = told.content
    if content is not None:
        how = f"{content.encoding}, {'encrypted' if content.encrypted else 'not encrypted'}"
    elif told.header.level in {2, 3}:
        how = (
            "encrypted"
            if told.is_proven
            else "encrypted: not to be read without a right check value"
        )
    else:
        how = "not encrypted"
    yield f"  {HEADER_BYTES:>4}  {size}, {how}"


def _check(told: Explained, secret_note: str) -> Iterator[str]:
    yield "check value"
    header, size = told.header, told.mac_bytes
    assert header is not None
    start = _payload_end(told)
    data = told.frame[start : start + size]
    if len(data) < size or not size:
        have = counted(len(data), "byte")
        yield (
            f"  {start:>4}  {have} of {size}"
            if size
            else "        level undefined: its size is not known"
        )
        return
    for at in range(0, size, _ROW):
        yield f"  {start + at:>4}  {data[at : at + _ROW].hex(' ')}"
    yield f"        {_check_verdict(told, header, secret_note)}"


def _check_verdict(told: Explained, header: Header, secret_note: str) -> str:
    kind = "CRC-16" if header.level == 0 else "HMAC-SHA256"
    if header.level == 1 or (header.level == 2 and told.mac_bytes == 16):
        kind += ", its first 16 bytes"
    if told.proof is not None:
        if told.proof.crc_variant is not None:
            return f"{kind}, right in the form {told.proof.crc_variant}; no secret needed"
        return f"{kind}, right with {secret_note}"
    outcomes = {each.outcome for each in told.problems}
    if Outcome.MAC in outcomes:
        return f"{kind}, WRONG" + (f" with {secret_note}" if header.level else "")
    if Outcome.KEY in outcomes:
        return f"{kind}, not checked: no secret was given"
    return f"{kind}, not checked"


def _holdings(told: Explained) -> list[str]:
    content = told.content
    if content is None:
        return []
    lines = [""]
    if not told.is_proven:
        lines.append(
            "UNPROVEN: the check value is not known to be right; anybody may have written this"
        )
    elif told.problems:
        lines.append("The check value is right; the frame is refused all the same. It holds:")
    lines.append("fields")
    lines += [f"  {line}" for line in _tree(plain(content.decoded))] or ["  none"]
    if content.measurements:
        rows = [
            [each.metric, _moment(each.ts), repr(each.value), each.unit]
            for each in content.measurements
        ]
        heads = ("METRIC", "MEASURED AT", "VALUE", "UNIT")
        lines += ["measurements", *(f"  {line}" for line in table_lines(heads, rows, None))]
    elif told.header is not None and told.outcome is not Outcome.PROFILE:
        why = (
            "none: no profile says what it measures; it becomes an event"
            if told.header.payload_type == PayloadType.TELEMETRY
            else "none: only telemetry has them; it becomes an event"
        )
        lines += ["measurements", f"  {why}"]
    return lines


def _tree(value: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield a decoded map as lines: one per value, nested ones indented."""
    items: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        items = [(shown(key) if key else '""', inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(f"[{place}]", inner) for place, inner in enumerate(value)]
    if name:
        yield name
    width = max((len(key) for key, inner in items if not _is_nested(inner)), default=0)
    indent = "  " if name else ""
    for key, inner in items:
        if _is_nested(inner):
            yield from (f"{indent}{line}" for line in _tree(inner, key))
        else:
            yield f"{indent}{key:<{width}}  {_value(inner)}".rstrip()


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list) and bool(value) and not _is_bytes(value)


def _is_bytes(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"$bytes"}


def _value(value: object) -> str:
    if _is_bytes(value):
        assert isinstance(value, dict)
        return f"bytes {value['$bytes']}"
    if isinstance(value, str):
        return shown(value) if value else '""'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _moment(seconds: float) -> str:
    if not -62_000_000_000 < seconds < 253_000_000_000:
        return f"{seconds!r}"
    return f"{iso_utc(round(seconds * 1_000_000))} ({seconds!r})"


def _apart(seconds: int) -> str:
    if not seconds:
        return "now"
    size = abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if size >= 2 * length:
            return f"{size / length:.1f} {unit} {'before' if seconds < 0 else 'after'} now"
    return f"{size} s {'before' if seconds < 0 else 'after'} now"
