"""HTTP answers: where one ends, and what it means."""

import json

import pytest

from ocean_core.simulator.answers import (
    Answer,
    BrokenAnswerError,
    Fate,
    fate_of,
    read_answer,
    reason_of,
    refusals_of,
    refused_frames,
)

GOOD = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 8\r\n\r\n{"id":1}'


def test_an_answer_is_read_at_any_split() -> None:
    for end in range(len(GOOD)):
        assert read_answer(GOOD[:end]) is None, end
    answer = read_answer(GOOD)
    assert answer is not None
    assert (answer.status, answer.body, answer.closes) == (200, b'{"id":1}', False)
    assert answer.retry_after_s == 0


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01",
        GOOD + b"H",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read_answer(data)


def test_headers_are_found_in_any_case_and_place() -> None:
    head = (
        b"HTTP/1.1 503 Busy\r\nRETRY-AFTER: 7\r\nX-Content-Length: 5\r\nContent-length:2\r\n"
        b"Connection: close\r\n\r\n{}"
    )
    answer = read_answer(head)
    assert answer is not None
    assert (answer.retry_after_s, answer.closes, answer.body) == (7, True, b"{}")


@pytest.mark.parametrize(
    ("text", "seconds"), [(b"3", 3), (b"100000", 60), (b"soon", 0), (b"-1", 0), (b"", 0)]
)
def test_retry_after_is_bounded(text: bytes, seconds: float) -> None:
    assert Answer(429, b"HTTP/1.1 429 X\r\nRetry-After: " + text, b"").retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (200, Fate.ACKNOWLEDGED), (201, Fate.ACKNOWLEDGED),
        (408, Fate.BUSY), (425, Fate.BUSY), (429, Fate.BUSY), (503, Fate.BUSY), (507, Fate.BUSY),
        (500, Fate.UNCLEAR), (502, Fate.UNCLEAR), (504, Fate.UNCLEAR),
        (401, Fate.KEY_REFUSED),
        (301, Fate.REFUSED), (400, Fate.REFUSED), (403, Fate.REFUSED), (404, Fate.REFUSED),
        (413, Fate.REFUSED), (415, Fate.REFUSED), (422, Fate.REFUSED), (501, Fate.REFUSED),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, fate: Fate) -> None:
    assert fate_of(status) is fate


def test_a_reason_is_the_problems_sentence() -> None:
    body = json.dumps({"code": "OC-2002", "detail": "item 1, value: found\x1b[2J null."}).encode()
    assert reason_of(Answer(422, b"", body)) == "422 OC-2002 item 1, value: found [2J null."
    assert reason_of(Answer(404, b"", b"<html>")) == "404 <html>"
    assert reason_of(Answer(400, b"", b"[1]")) == "400 [1]"
    assert reason_of(Answer(400, b"", b"\xff" * 1_000)).startswith("400 ")


def test_frames_that_were_refused_among_others() -> None:
    body = (
        b'{"count":2,"ids":[1,2],"rejected_count":2,"rejected":['
        b'{"field":"frame","found":"E_STALE at byte 8","expected":"...","item":1},'
        b'{"field":"frame","found":"E_MAC","expected":"...","item":3}]}'
    )
    assert refused_frames(body) == {1: "E_STALE", 3: "E_MAC"}
    unlisted = body.replace(b'"rejected_count":2', b'"rejected_count":300')
    assert refused_frames(unlisted) is None
    assert refused_frames(b"nonsense") is None


def test_errors_of_a_refused_request_are_counted_frame_by_frame() -> None:
    found = ["E_MAC: other secret", "E_STALE at byte 8: of 1970", "E_MAC"]
    errors = [{"item": number, "found": text} for number, text in enumerate(found)]
    unlisted = {"found": "7 more items", "field": ""}
    body = json.dumps({"code": "OC-2010", "errors": [*errors, unlisted]}).encode()
    assert refusals_of(Answer(422, b"", body), 10) == {"E_MAC": 9, "E_STALE": 1}
    assert refusals_of(Answer(422, b"", body), 3) == {"E_MAC": 2, "E_STALE": 1}
    other = json.dumps({"errors": [{"item": 0, "found": "a text"}]}).encode()
    for nothing in (other, b"nonsense", b"[]", b'{"errors":[]}', b'{"errors":["x"]}'):
        assert refusals_of(Answer(422, b"", nothing), 3) is None
