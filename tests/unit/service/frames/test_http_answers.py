"""What is told over HTTP of a refused frame."""

import pytest

from ocean_core.protocol.nanogridata.frame import Outcome
from ocean_core.service.frames.http_answers import EXPECTED, Judged, problem_of
from ocean_core.service.frames.terms import FrameResult


def test_for_each_refusal_there_is_what_would_be_right() -> None:
    assert set(EXPECTED) == set(Outcome) - {Outcome.OK}
    assert len(set(EXPECTED.values())) == len(EXPECTED)
    for words in EXPECTED.values():
        assert len(words) <= 80
        assert not words.endswith(".")


@pytest.mark.parametrize(
    ("result", "found", "expected"),
    [
        (FrameResult("E_MAC", "b000 found", offset=29), "E_MAC at byte 29: b000 found", "E_MAC"),
        (FrameResult("E_REPLAY", "it came before"), "E_REPLAY: it came before", "E_REPLAY"),
        (FrameResult("OC-6006", "not for a"), "OC-6006: not for a", None),
        (FrameResult("OC-3001", "full", may_retry=True), "OC-3001: full", "later"),
        (FrameResult("E_KEY", ""), "E_KEY", "E_KEY"),
    ],
)
def test_found_and_expected_make_a_sentence(
    result: FrameResult, found: str, expected: str | None
) -> None:
    problem = problem_of(Judged(3, result))
    assert (problem.item, problem.field, problem.found) == (3, "frame", found)
    if expected == "later":
        assert problem.expected == "the same again later"
    else:
        assert problem.expected == EXPECTED.get(expected or "", "a frame that this box can take")


def test_long_details_are_cut() -> None:
    assert len(problem_of(Judged(None, FrameResult("E_CBOR", "x" * 5000))).found) <= 300
