"""A refused frame as people read it: what it is, why it is here, what to do, its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from ocean_core.cli.frame_advice import NEXT_STEPS, advice
from ocean_core.cli.frame_explained import explain
from ocean_core.cli.tables import counted, moment, record_lines, shown
from ocean_core.protocol.nanogridata.frame import Options, Outcome

_BYTES_A_LINE: Final = 16
_STATES: Final = {
    "held": "kept, can be tried again",
    "trying": "is being tried again",
    "unsure": "a retry was cut off; nobody can tell whether it was stored",
}
_EARLY: Final = "this box's clock was not trusted then; tried again once it is"
_UNKNOWN: Final = "not known"
_NO_KEY: Final = "no access key"
_OF_TIME: Final = frozenset({Outcome.FUTURE, Outcome.STALE})


def frame_lines(frame: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a frame, as the quarantine's API gives it."""
    data = bytes.fromhex(frame["frame"])
    lines = record_lines(dict(_rows(frame, len(data))))
    lines += ["", f"why         {shown(frame['meaning'])}"]
    heads = ["what to do  "]
    for step in _steps(frame, data):
        lines.append((heads.pop() if heads else " " * 12) + shown(step))
    lines.append(f"then        {_commands(frame)}")
    if frame["header"] is None:
        lines += ["", "header: none, or not all of it"]
    else:
        plain = {name: str(value) for name, value in frame["header"].items() if value is not None}
        lines += ["", "header", *("  " + line for line in record_lines(plain))]
    lines += ["", "bytes", *_hex_lines(data, frame["offset"])]
    if data:
        lines += ["", "explained field by field, as of its arrival, by"]
        lines.append(f"ocean decode --now {_arrival_s(frame)} {data.hex()}")
    return lines


def _rows(frame: Mapping[str, Any], size: int) -> Iterator[tuple[str, str]]:
    yield "frame", str(frame["id"])
    first, last = moment(frame["first_seen_at"]), moment(frame["last_seen_at"])
    times = frame["seen"]
    yield "came", f"{first}" if times == 1 else f"{times:,} times, first {first}, last {last}"
    yield "from", f"{frame['transport']} {frame['address']}".rstrip()
    yield "sent with", _NO_KEY if frame["sender"] == "local" else frame["sender"]
    where = "" if frame["offset"] is None else f" at byte {frame['offset']}"
    yield "refused", f"{frame['outcome']}{where}: {frame['detail']}"
    yield "model", frame["model"] or _UNKNOWN
    given = f"{_UNKNOWN}; {frame['given']} was named beside the frame" if frame["given"] else ""
    yield "sensor", frame["sensor_id"] or given or _UNKNOWN
    state = _STATES.get(frame["state"], frame["state"])
    yield "state", _EARLY if frame["early"] and frame["state"] == "held" else state
    whole = counted(frame["size"], "byte")
    yield "size", whole if size == frame["size"] else f"{whole}, of which {size:,} were kept"


def _steps(frame: Mapping[str, Any], data: bytes) -> list[str]:
    """Return what `ocean decode` says of such a frame; what the box says if that is no help."""
    outcomes: dict[str, Outcome] = {str(each): each for each in NEXT_STEPS}
    outcome = outcomes.get(frame["outcome"])
    if outcome is None or frame["state"] == "unsure":
        return [frame["next_step"]]
    if len(data) == frame["size"]:
        told = explain(data, _arrival_s(frame), Options(), None)
        if told.outcome is outcome:
            return advice(told, None)
    return [NEXT_STEPS[outcome]]


def _commands(frame: Mapping[str, Any]) -> str:
    name = frame["id"]
    extra = " --any-time" if frame["outcome"] in _OF_TIME else ""
    return f"`ocean quarantine retry {name}{extra}`, or `ocean quarantine forget {name}`"


def _arrival_s(frame: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(frame["last_seen_at"]).timestamp())


def _hex_lines(data: bytes, offset: int | None) -> list[str]:
    """Return bytes in lines, with a mark below the one that a check failed at."""
    lines: list[str] = []
    for at in range(0, len(data), _BYTES_A_LINE):
        lines.append(f"  {at:04d}  {data[at : at + _BYTES_A_LINE].hex(' ')}")
        if offset is not None and at <= offset < at + _BYTES_A_LINE:
            ends = "  the frame ends here" if offset == len(data) else ""
            lines.append(" " * (8 + 3 * (offset - at)) + "^^" + ends)
    if offset == len(data) and not offset % _BYTES_A_LINE:
        lines.append(" " * 8 + "^^  the frame ends here")
    return lines
