"""What is sent again and what is not: the table at the head of ``client.http``, row by row."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ocean_core.client.connection import (
    Connections,
    LostError,
    RawAnswer,
    Target,
    UnreachableError,
)
from ocean_core.client.http import ApiClient, to_json
from ocean_core.model.errors import (
    BufferFullError,
    CommandError,
    DiskFullError,
    LoginBackoffError,
    MalformedBodyError,
    NotRunningError,
    OceanError,
    RecordsFullError,
    UnauthenticatedError,
    UnknownRecordError,
)
from ocean_core.obs.clock import ManualClock

HERE = Target("http://127.0.0.1:1", "owner_a")
THERE = Target("http://127.0.0.1:2", "owner_b")

Step = RawAnswer | Exception


def good(value: Any = True) -> RawAnswer:
    return RawAnswer(200, {}, json.dumps(value).encode())


def problem(status: int, code: str, retry_after: int | None = None) -> RawAnswer:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return RawAnswer(status, headers, json.dumps({"detail": "d", "code": code}).encode())


class Sent:
    def __init__(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> None:
        self.method, self.path, self.body, self.headers = method, path, body, dict(headers)


class Rig:
    """A client whose connections play a script."""

    def __init__(
        self, *steps: Step, targets: tuple[Target, ...] = (HERE,), patient: bool = False
    ) -> None:
        self.clock = ManualClock()
        self.steps = list(steps)
        self.sent: list[Sent] = []
        self.waits: list[float] = []
        self.targets = list(targets)
        self.is_patient = patient
        self.closed = 0
        self.told: list[OceanError] = []
        self.api = ApiClient(
            self,
            timeout_s=30,
            clock=self.clock,
            pause=self._pause,
            tell=self.told.append,
            connect=self._connect,
        )

    def _pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    # The source:

    def target(self) -> Target:
        return self.targets[0]

    def renewed(self, stale: Target) -> Target:
        if len(self.targets) > 1:
            self.targets.pop(0)
        return self.targets[0]

    def _connect(self, target: Target) -> Connections:
        rig = self

        class Played(Connections):
            def exchange(
                self,
                method: str,
                path: str,
                body: bytes | None,
                headers: Mapping[str, str],
                timeout_s: float,
            ) -> RawAnswer:
                assert timeout_s > 0
                rig.sent.append(Sent(method, path, body, headers))
                step = rig.steps.pop(0) if len(rig.steps) > 1 else rig.steps[0]
                if isinstance(step, Exception):
                    raise step
                return step

            def close(self) -> None:
                rig.closed += 1

        return Played(target)


def test_a_call_sends_json_query_and_key() -> None:
    rig = Rig(good({"a": [1]}))
    query = {"limit": 5, "wait": True, "after": None, "q": "a b&c", "start": dt.date(2026, 1, 17)}
    assert rig.api.call("POST", "/x", query=query, body={"v": 1}, idempotency_key="k") == {"a": [1]}
    (sent,) = rig.sent
    assert (sent.method, sent.path) == ("POST", "/x?limit=5&wait=true&q=a+b%26c&start=2026-01-17")
    assert sent.body == b'{"v":1}'
    assert sent.headers == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Idempotency-Key": "k",
        "Authorization": "Bearer owner_a",
    }


def test_without_a_key_none_is_sent_and_bytes_go_as_they_are() -> None:
    rig = Rig(good(), targets=(Target("http://127.0.0.1:1"),))
    rig.api.call("POST", "/x", body=b"[1]")
    assert "Authorization" not in rig.sent[0].headers
    assert rig.sent[0].body == b"[1]"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_lost_answer_is_asked_for_again(method: str) -> None:
    rig = Rig(LostError("gone"), LostError("gone"), good(7))
    assert rig.api.call(method, "/x") == 7
    assert rig.waits == [0.1, 0.2]


def test_a_lost_post_is_repeated_only_with_its_idempotency_key() -> None:
    rig = Rig(LostError("gone"), good(7))
    assert rig.api.call("POST", "/x", body={}, idempotency_key="k1") == 7
    assert {sent.headers["Idempotency-Key"] for sent in rig.sent} == {"k1"}
    assert Rig(LostError("gone"), good(7)).api.call("POST", "/x", repeatable=True) == 7
    alone = Rig(LostError("gone"), good(7))
    with pytest.raises(NotRunningError, match="lost before the answer") as caught:
        alone.api.call("POST", "/x", body={})
    assert "may have been done" in caught.value.hint
    assert len(alone.sent) == 1


def test_nobody_at_a_named_address_is_told_at_once() -> None:
    rig = Rig(UnreachableError("http://127.0.0.1:1: Connection refused"))
    with pytest.raises(NotRunningError, match="Connection refused"):
        rig.api.call("GET", "/x")
    assert (len(rig.sent), rig.waits) == (1, [])


def test_a_server_that_was_met_is_waited_for_but_not_for_ever() -> None:
    rig = Rig(good(), UnreachableError("refused"))
    rig.api.call("GET", "/x")
    with pytest.raises(NotRunningError):
        rig.api.call("POST", "/x", body={})
    assert rig.waits[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert [type(failure) for failure in rig.told] == [NotRunningError], "once for each call"
    assert 27 < sum(rig.waits) <= 30


def test_a_patient_source_is_waited_for_from_the_start() -> None:
    rig = Rig(UnreachableError("refused"), UnreachableError("refused"), good(1), patient=True)
    assert rig.api.call("GET", "/x") == 1


def test_another_address_is_tried_when_the_first_has_gone() -> None:
    rig = Rig(UnreachableError("refused"), good(1), targets=(HERE, THERE))
    assert rig.api.call("POST", "/x", body={}) == 1
    assert [sent.headers["Authorization"] for sent in rig.sent] == [
        "Bearer owner_a",
        "Bearer owner_b",
    ]
    assert rig.closed == 1


@pytest.mark.parametrize(
    ("status", "code"), [(429, "OC-3001"), (503, "OC-3002"), (507, "OC-4001"), (429, "OC-6007")]
)
def test_busy_is_tried_again_when_the_server_says(status: int, code: str) -> None:
    rig = Rig(problem(status, code, retry_after=3), good(1))
    assert rig.api.call("POST", "/x", body={}) == 1
    assert rig.waits == [3]


def test_a_wait_beyond_the_timeout_is_not_begun() -> None:
    rig = Rig(problem(429, "OC-3001", retry_after=31))
    with pytest.raises(BufferFullError) as caught:
        rig.api.call("POST", "/x", body={})
    assert caught.value.retry_after_s == 31
    assert rig.waits == []


def test_a_server_that_stays_busy_ends_in_its_error() -> None:
    rig = Rig(problem(507, "OC-4001", retry_after=1))
    with pytest.raises(DiskFullError):
        rig.api.call("GET", "/x")
    assert 27 < sum(rig.waits) <= 30


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        (problem(429, "OC-6009", retry_after=2), LoginBackoffError),
        (problem(507, "OC-8007"), RecordsFullError),
        (problem(404, "OC-8005", retry_after=1), UnknownRecordError),
    ],
    ids=["wrong passwords", "507 for good", "404"],
)
def test_what_a_repeat_would_not_mend_is_told_at_once(
    answer: RawAnswer, cls: type[OceanError]
) -> None:
    rig = Rig(answer, good())
    with pytest.raises(cls):
        rig.api.call("GET", "/x")
    assert rig.waits == []


def test_a_refused_key_is_replaced_once() -> None:
    refused = problem(401, "OC-6005")
    rig = Rig(refused, good(1), targets=(HERE, THERE))
    assert rig.api.call("POST", "/x", body={}) == 1
    assert rig.waits == [0.0]
    again = Rig(refused, targets=(HERE, THERE))
    with pytest.raises(UnauthenticatedError):
        again.api.call("GET", "/x")
    assert len(again.sent) == 2
    same = Rig(refused)
    with pytest.raises(UnauthenticatedError):
        same.api.call("GET", "/x")
    assert len(same.sent) == 1


def test_a_deletion_that_was_done_before_its_answer_got_lost_counts_as_done() -> None:
    gone = problem(404, "OC-8005")
    assert Rig(LostError("x"), gone).api.call("DELETE", "/x") is None
    with pytest.raises(UnknownRecordError):
        Rig(gone).api.call("DELETE", "/x")


def test_what_is_not_json_is_told() -> None:
    with pytest.raises(CommandError, match="answered 502: <html>"):
        Rig(RawAnswer(502, {}, b"<html>")).api.call("GET", "/x")
    assert Rig(RawAnswer(200, {}, b"")).api.call("GET", "/x") is None


def test_numbers_of_numpy_and_moments_have_a_json_form() -> None:
    moment = dt.datetime(2026, 1, 17, 12, tzinfo=dt.UTC)
    assert to_json([np.int64(3), np.float32(0.5), moment]) == b'[3,0.5,"2026-01-17T12:00:00+00:00"]'


def nested() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), object(), b"x", nested()],
    ids=["NaN", "infinity", "object", "bytes", "endless"],
)
def test_what_json_does_not_have_is_refused_here(value: object) -> None:
    rig = Rig(good())
    with pytest.raises(MalformedBodyError):
        rig.api.call("POST", "/x", body={"value": value})
    assert rig.sent == []
