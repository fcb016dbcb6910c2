"""HTTP answers: where one ends, and what it means for the request. Sans-IO.

A 2xx is an acknowledgement: on disk. 408, 425, 429, 503 and 507 say busy: nothing was done; the same
again, after the time it asks for. 500, 502 and 504 are unclear: as if no answer had come. After 401
the key may have changed with a restart: once more with the new one. Anything else refuses.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
REASON_LETTERS_MAX: Final = 300
RETRY_AFTER_S_MAX: Final = 60.0

_FRAME_ERROR: Final = "E_"
_OWN_ERROR: Final = "OC-"
_HEAD_BYTES_MAX: Final = 64 * 1024
_BUSY: Final = frozenset({408, 425, 429, 503, 507})
_UNCLEAR: Final = frozenset({500, 502, 504})


class BrokenAnswerError(Exception):
    """What came is no answer that can be read; the connection is of no use any more."""


class Fate(Enum):
    """What an answer means for the request."""

    ACKNOWLEDGED = auto()
    BUSY = auto()
    UNCLEAR = auto()
    KEY_REFUSED = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``head`` without the empty line at its end."""

    status: int
    head: bytes
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return b"\nconnection: close" in self.head.lower()

    @property
    def retry_after_s(self) -> float:
        """How long it asks to wait; 0 if it does not."""
        text = _header(self.head.lower(), b"retry-after")
        return min(float(text), RETRY_AFTER_S_MAX) if text.isdigit() else 0.0


def read_answer(data: bytes) -> Answer | None:
    """Return the answer that ``data`` holds, None while it is not complete.

    Raises BrokenAnswerError for what is no answer, is too long, has no length, or goes on behind
    its end.
    """
    split = data.find(b"\r\n\r\n")
    if split < 0:
        if len(data) > _HEAD_BYTES_MAX or not data.startswith(b"HTTP/1."[: len(data)]):
            raise BrokenAnswerError("it does not speak HTTP/1.1")
        return None
    head = data[:split]
    status = data[9:12]
    length = _header(head.lower(), b"content-length")
    if not head.startswith(b"HTTP/1.") or not status.isdigit() or not length.isdigit():
        raise BrokenAnswerError("an answer without status or Content-Length")
    if int(length) > ANSWER_BYTES_MAX:
        raise BrokenAnswerError("an answer of more than 64 MiB")
    end = split + 4 + int(length)
    if len(data) < end:
        return None
    if len(data) > end:
        raise BrokenAnswerError("more than one answer to a request")
    return Answer(int(status), head, data[split + 4 :])


def fate_of(status: int) -> Fate:
    """Return what a status means; see the head of the module."""
    if 200 <= status < 300:
        return Fate.ACKNOWLEDGED
    if status in _BUSY:
        return Fate.BUSY
    if status in _UNCLEAR:
        return Fate.UNCLEAR
    return Fate.KEY_REFUSED if status == 401 else Fate.REFUSED


def reason_of(answer: Answer) -> str:
    """Return why a request was refused: the problem document's code and sentence."""
    try:
        problem = json.loads(answer.body)
        text = f"{problem['code']} {problem['detail']}"
    except (ValueError, TypeError, KeyError):
        text = answer.body.decode("utf-8", "replace")
    # What came over the network must not steer the terminal.
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return f"{answer.status} {shown}"[:REASON_LETTERS_MAX].strip()


def refused_frames(body: bytes) -> dict[int, str] | None:
    """Return which frames of a request were refused while others were stored, and why.

    None if the answer does not list all of them.
    """
    try:
        answer = json.loads(body)
        listed = [entry for entry in answer["rejected"] if entry.get("item") is not None]
        refused = {int(entry["item"]): error_of(str(entry["found"])) for entry in listed}
        return refused if len(refused) == answer["rejected_count"] else None
    except (ValueError, TypeError, KeyError):
        return None


def refusals_of(answer: Answer, frames: int) -> dict[str, int] | None:
    """Return how many of the frames of a refused request had which error; None if it is not said.

    Those that the answer does not list count for the error that is the most frequent in it.
    """
    try:
        listed = [
            entry for entry in json.loads(answer.body)["errors"] if entry.get("item") is not None
        ]
        errors = Counter(error_of(str(entry["found"])) for entry in listed)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not errors or not all(error.startswith(_FRAME_ERROR) for error in errors):
        return None
    errors[errors.most_common(1)[0][0]] += max(0, frames - errors.total())
    return dict(errors)


def error_of(found: str) -> str:
    """Return the error of a frame without the place in it and its detail.

    >>> error_of("E_STALE at byte 8: too old"), error_of("OC-6006: no"), error_of("not taken")
    ('E_STALE', 'OC-6006', 'not taken')
    """
    if found.startswith((_FRAME_ERROR, _OWN_ERROR)):
        return found.split(" ", 1)[0].rstrip(":")
    return found[:REASON_LETTERS_MAX]


def _header(head: bytes, name: bytes) -> bytes:
    """Return what a header of a lower-case head says, empty if it is not there."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    begin = at + len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else len(head)].strip()
