"""What the ingest and the analytics process say to each other.

Over one Unix socket pair, each message a MessagePack array behind its length (4 bytes,
little-endian). Bodies of answers are the JSON text that the client will get, so that the ingest
process never looks into them.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, OceanError, all_error_classes
from ocean_core.model.naming import NameRule
from ocean_core.obs.metrics import HistogramSample, Sample

LENGTH = struct.Struct("<I")
SERIES_NAMES_MAX: Final = 10_000


class Query(msgspec.Struct, tag="query", array_like=True, frozen=True):
    """Ask a question. ``head_id`` is the last reading acknowledged when it was asked."""

    id: int
    name: str
    params: dict[str, Any]
    head_id: int
    wait: bool


class Head(msgspec.Struct, tag="head", array_like=True, frozen=True):
    """The journal has grown."""

    head_id: int


class Rules(msgspec.Struct, tag="rules", array_like=True, frozen=True):
    """All rules about names, in their order: first of all, and again after each change.

    Until they come, for a while, nothing is moved.
    """

    rules: list[NameRule]


class Work(msgspec.Struct, tag="work", array_like=True, frozen=True):
    """Begin long work: its progress and its end are told by its id."""

    id: int
    kind: str
    params: dict[str, Any]


class CancelWork(msgspec.Struct, tag="cancel_work", array_like=True, frozen=True):
    """End long work as soon as it can be ended."""

    id: int


class Stop(msgspec.Struct, tag="stop", array_like=True, frozen=True):
    """Finish what is running, close the files, end."""


class Hello(msgspec.Struct, tag="hello", array_like=True, frozen=True):
    """The analytics process is ready. ``rebuild_reason`` is empty if its file was in order."""

    pid: int
    epoch: str
    watermark: int
    rebuild_reason: str


class SeriesKnown(msgspec.Struct, tag="series", array_like=True, frozen=True):
    """Names (sensor_id, metric) of series that analytics hold, at most SERIES_NAMES_MAX.

    Sent right after Hello, and for what is new in each transaction: thus also during a rebuild.
    """

    names: list[tuple[str, str]]


class RulesApplied(msgspec.Struct, tag="rules_applied", array_like=True, frozen=True):
    """What was asked for is done, up to a rule's id; nothing that was to vanish is there any more.

    ``forgotten`` counts the readings and events that each rule which forgets made vanish. It tells
    of all rules, also after a restart or a rebuild, and then the same.
    """

    up_to_rule: int
    forgotten: dict[int, int]


class RulesLost(msgspec.Struct, tag="rules_lost", array_like=True, frozen=True):
    """Rules that were followed are not among those given: what they made vanish shows again."""

    detail: str


class ErrorReport(msgspec.Struct, array_like=True, frozen=True):
    """An OceanError on its way between processes."""

    code: str
    detail: str
    hint: str
    fields: tuple[FieldProblem, ...] = ()
    retry_after_s: int | None = None


class Answer(msgspec.Struct, tag="answer", array_like=True, frozen=True):
    """The answer to a query: a JSON body, or an error."""

    id: int
    body: bytes = b""
    error: ErrorReport | None = None


class WorkProgress(msgspec.Struct, tag="work_progress", array_like=True, frozen=True):
    """How far long work is; ``total`` 0: not known yet."""

    id: int
    done: int
    total: int
    note: str = ""


class WorkDone(msgspec.Struct, tag="work_done", array_like=True, frozen=True):
    """Long work has ended: a JSON body, or an error."""

    id: int
    body: bytes = b""
    error: ErrorReport | None = None


class Sealed(msgspec.Struct, tag="sealed", array_like=True, frozen=True):
    """Everything up to this id is in the archive: the journal may let go of it."""

    up_to_id: int


class ArchiveState(msgspec.Struct, array_like=True, frozen=True):
    """What the archive holds. ``trouble`` tells why nothing can be sealed, empty if it can.

    ``oldest`` and ``newest`` are UTC days, empty if there are no readings or events.
    """

    sealed_up_to: int
    parts: int
    rows: int
    bytes: int
    oldest: str = ""
    newest: str = ""
    trouble: str = ""


class Report(msgspec.Struct, tag="report", array_like=True, frozen=True):
    """How analytics are doing; sent when something changed, and as a sign of life.

    ``trouble`` tells why readings cannot be moved at the moment, empty if they can.
    """

    watermark: int
    rebuilding: bool
    rebuild_target: int
    series: int
    samples: list[Sample]
    histograms: list[HistogramSample]
    trouble: str = ""
    archive: ArchiveState | None = None


class Damage(msgspec.Struct, tag="damage", array_like=True, frozen=True):
    """Blocks of the journal that cannot be read."""

    ranges: list[tuple[int, int]]


class JournalDamaged(msgspec.Struct, tag="journal_damaged", array_like=True, frozen=True):
    """The journal file itself cannot be read."""

    reason: str


class WatermarkAhead(msgspec.Struct, tag="watermark_ahead", array_like=True, frozen=True):
    """Analytics hold readings that the journal does not: ids first..last."""

    first: int
    last: int


Message = (
    Query | Head | Rules | Work | CancelWork | Stop | Hello | SeriesKnown | RulesApplied | RulesLost | Answer | Report
    | Damage | JournalDamaged | WatermarkAhead | WorkProgress | WorkDone | Sealed
)  # fmt: skip

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_ERROR_CLASSES = {cls.code: cls for cls in all_error_classes()}


def pack_message(message: Message) -> bytes:
    """Return the message with its length in front."""
    body = _ENCODER.encode(message)
    assert len(body) <= limits.IPC_MESSAGE_BYTES_MAX, len(body)
    return LENGTH.pack(len(body)) + body


def unpack_message(body: bytes | memoryview) -> Message:
    """Return the message in ``body`` (without its length)."""
    return _DECODER.decode(body)


def report_error(error: OceanError) -> ErrorReport:
    """Return the error as it travels."""
    return ErrorReport(error.code, error.detail, error.hint, error.fields, error.retry_after_s)


def restore_error(report: ErrorReport) -> OceanError:
    """Return the error that a report stands for, to be raised again."""
    cls = _ERROR_CLASSES.get(report.code, OceanError)
    return cls(
        report.detail, hint=report.hint, fields=report.fields, retry_after_s=report.retry_after_s
    )
