"""What a client is told over HTTP about its Nanogridata frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, FrameError, OceanError, all_error_classes
from ocean_core.model.receipt import CarriedFrame, Intake, Receipt
from ocean_core.obs.clock import iso_utc
from ocean_core.protocol.nanogridata.frame import MAGIC, Outcome
from ocean_core.protocol.readings import rejected_items
from ocean_core.protocol.readings.assemble import unlisted_items
from ocean_core.protocol.readings.wording import sentence, shorten
from ocean_core.service.frames.terms import DUPLICATE, FrameResult
from ocean_core.service.ingest_answers import BatchAnswer, SingleAnswer

FIELD: Final = "frame"
COUNTED_ELSEWHERE: Final[Mapping[str, int]] = MappingProxyType({})
"""What the error of a request holds for the ledger if all of it was counted frame by frame."""

_CLASSES: Final = {cls.code: cls for cls in all_error_classes()}
_FOUND_CHARS_MAX: Final = 280
_LATER: Final = "the same again later"
_TAKEN: Final = "a frame that this box can take"
EXPECTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        Outcome.SHORT: "one whole frame",
        Outcome.MAGIC: "bytes that begin with C1 53",
        Outcome.VERSION: "version 1",
        Outcome.LEVEL: "a security level from 0 to 3",
        Outcome.FLAGS: "0 in the high four bits of the flags",
        Outcome.TYPE: "a payload type from 1 to 5",
        Outcome.RESERVED: "two reserved bytes that are 0",
        Outcome.LENGTH: "a payload no longer than nanogridata.max_payload",
        Outcome.TRAILING: "one frame and nothing after its check value",
        Outcome.MODEL: "a model that is described on the box",
        Outcome.POLICY: "a security level that is demanded of the model, or a higher one",
        Outcome.KEY: "a level that needs no secret, or a model whose secret the box has",
        Outcome.MAC: "the check value of these bytes, made with the model's secret if it is signed",
        Outcome.FUTURE: "the time of now, in UTC",
        Outcome.STALE: "a time no longer ago than nanogridata.max_age_s",
        Outcome.REPLAY: "a new frame: another time, payload or IV",
        Outcome.DECRYPT: "a payload encrypted as section 5 of docs/nanogridata.md says",
        Outcome.PAYLOAD: "a payload laid out as its model's is",
        Outcome.CBOR: "one CBOR map as section 6.3 of docs/nanogridata.md says",
        Outcome.CBOR_LIMIT: "a payload within the limits of section 6.3 of docs/nanogridata.md",
        Outcome.PROFILE: "the fields of the model's profile, each of its kind",
    }
)
"""What would be right instead of each refused frame, in a few words."""

_TEXT: Final = (
    "The body is text: send the frame's bytes (`xxd -r -p`), or the text as "
    '{"sensor_id": ..., "data": "<text>"} with Content-Type: application/json.'
)


class Judged(NamedTuple):
    """A frame's position in its request, and what became of it."""

    item: int | None
    result: FrameResult


def answer_to_frame(frame: bytes, given: str, result: FrameResult) -> bytes:
    """Return the JSON about one frame that is durable. Raises the error of one that is not."""
    if not result.is_good:
        raise error_of([Judged(None, result)], text_hint=_hint_for(frame))
    # Of a repeat less is known; the header of what was stored once is whole.
    moment_us = result.timestamp_us or int.from_bytes(frame[8:12]) * 1_000_000
    return msgspec.json.encode(
        SingleAnswer(
            id=result.first_id,
            sensor_id=result.sensor_id or given,
            buffered=True,
            timestamp=iso_utc(moment_us),
            count=max(result.rows, 1),
            kind="event" if result.is_event else "reading",
            quality=result.quality,
            duplicate=result.outcome == DUPLICATE,
        )
    )


def answer_to_frames(body: bytes, results: Sequence[FrameResult], arrival_us: int) -> bytes:
    """Return the JSON about frames back to back.

    Raises the error of their request if none is durable.
    """
    judged = [Judged(item, result) for item, result in enumerate(results)]
    good = [result for result in results if result.is_good]
    if not good:
        raise error_of(judged, text_hint=_hint_for(body))
    refused = [problem_of(one) for one in judged if not one.result.is_good]
    return msgspec.json.encode(
        BatchAnswer(
            count=len(good),
            ids=[result.first_id for result in good],
            buffered=True,
            timestamp=iso_utc(arrival_us),
            duplicates=_duplicates(good),
            rejected_count=len(refused),
            rejected=_listed(refused),
        )
    )


def answer_to_mixed(
    receipt: Receipt, frames: Sequence[CarriedFrame], results: Sequence[FrameResult]
) -> bytes:
    """Return the JSON about a batch with frames among its items; ids are in the items' order.

    The receipt knows what was refused, see ``with_refused``.
    """
    others = receipt.item_ids()
    ids: list[int] = []
    taken = 0
    for frame, result in zip(frames, results, strict=True):
        ids += others[taken : frame.before]
        taken = frame.before
        if result.is_good:
            ids.append(result.first_id)
    ids += others[taken:]
    return msgspec.json.encode(
        BatchAnswer(
            count=len(ids),
            ids=ids,
            buffered=True,
            timestamp=iso_utc(receipt.arrival_us),
            duplicate=receipt.duplicate,
            duplicates=_duplicates(results),
            rejected_count=rejected_items(receipt.rejects),
            rejected=receipt.rejects,
        )
    )


def with_refused(intake: Intake, results: Sequence[FrameResult]) -> Intake:
    """Return the Intake with those of its frames among its rejects that were refused.

    So they are kept with an Idempotency-Key, and a repeat is told the same.
    """
    judged = judged_of(intake.carried, results)
    refused = [problem_of(one) for one in judged if not one.result.is_good]
    return replace(intake, rejects=_listed(refused, intake.rejects)) if refused else intake


def repeated_results(receipt: Receipt, frames: Sequence[CarriedFrame]) -> list[FrameResult] | None:
    """Return what is told of the frames of a request that was stored, with this receipt, before.

    None if too many were refused for the receipt to know each of them.
    """
    refused = {problem.item for problem in receipt.rejects}
    if None in refused:
        return None
    good, bad = FrameResult(DUPLICATE), FrameResult(FrameError.code)
    return [bad if frame.item in refused else good for frame in frames]


def judged_of(frames: Iterable[CarriedFrame], results: Iterable[FrameResult]) -> list[Judged]:
    """Return results with their positions in the request."""
    return [Judged(frame.item, result) for frame, result in zip(frames, results, strict=True)]


def error_of(
    judged: Sequence[Judged],
    others: tuple[FieldProblem, ...] = (),
    *,
    text_hint: str | None = None,
) -> OceanError:
    """Return the error of a request of which nothing is stored.

    That of one of its frames which may be taken later, if there is one, for then the request is to
    be repeated; that which all frames share, if it is one of ours; else FrameError. ``others`` are
    the problems of items that are no frames.
    """
    refused = [one for one in judged if not one.result.is_good]
    problems = [problem_of(one) for one in refused]
    listed = _listed(problems, others)
    total = len(problems) + rejected_items(others)
    detail = sentence(listed[0]) + (f" (and {total - 1} more items)" if total > 1 else "") + "."
    later = next((one.result for one in refused if _is_later(one.result)), None)
    codes = {one.result.outcome for one in refused}
    cls: type[OceanError] = FrameError
    if later is not None:
        cls, detail = _CLASSES[later.outcome], later.detail
    elif len(codes) == 1 and not others:
        cls = _CLASSES.get(codes.pop(), FrameError)
    error = cls(detail, fields=listed, hint=text_hint if cls is FrameError else None)
    if not others:
        error.refused = COUNTED_ELSEWHERE
    return error


def later_error(judged: Sequence[Judged]) -> OceanError | None:
    """Return why frames cannot be taken now but later, None if no frame is one of these."""
    waiting = [one for one in judged if _is_later(one.result)]
    return error_of(waiting) if waiting else None


def problem_of(judged: Judged) -> FieldProblem:
    """Return what is wrong with a frame: check, byte and detail as found; what would be right."""
    item, result = judged
    where = "" if result.offset is None else f" at byte {result.offset}"
    words = f": {result.detail}" if result.detail else ""
    found = shorten(f"{result.outcome}{where}{words}", _FOUND_CHARS_MAX)
    if result.may_retry:
        return FieldProblem(FIELD, found, _LATER, item)
    return FieldProblem(FIELD, found, EXPECTED.get(result.outcome, _TAKEN), item)


def _is_later(result: FrameResult) -> bool:
    """Whether a repeat of the request is what helps: the box could not take the frame now."""
    cls = _CLASSES.get(result.outcome)
    return cls is not None and cls.transient and result.may_retry


def _duplicates(results: Iterable[FrameResult]) -> int:
    return sum(result.outcome == DUPLICATE for result in results)


def _listed(
    problems: Sequence[FieldProblem], others: tuple[FieldProblem, ...] = ()
) -> tuple[FieldProblem, ...]:
    """Return problems in the order of items, and how many items found no place in the list."""
    total = len(problems) + rejected_items(others)
    known = [
        *problems,
        *(problem for problem in others if problem.field or problem.item is not None),
    ]
    known.sort(key=lambda problem: -1 if problem.item is None else problem.item)
    listed = known[: limits.REJECTS_LISTED_MAX]
    unlisted = total - len({problem.item for problem in listed})
    return (*listed, *([unlisted_items(unlisted)] if unlisted > 0 else []))


def _hint_for(body: bytes) -> str | None:
    """Return what to do about a body that is a frame written as text."""
    start = body[:8].lstrip()
    is_text = start[:4].lower() == MAGIC.hex().encode() or start.startswith(b"wVMB")
    return _TEXT if is_text else None
