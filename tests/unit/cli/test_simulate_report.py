"""What `ocean simulate` says at its end when nothing was stored."""

import pytest

from ocean_core.cli.simulate_report import audit_lines, nothing_lines
from ocean_core.simulator.audit import Audit, Difference
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.plan import FrameOrder, Order, Transport
from ocean_core.simulator.run import Outcome


def told(
    figures: Figures, *, unresolved: int = 0, frames: FrameOrder | None = None
) -> tuple[str, str, str]:
    outcome = Outcome(figures, unresolved, interrupted=False, gave_up=False)
    head, why, following = nothing_lines(Order(frames=frames), outcome)
    assert "OK" not in head
    return head, why, following


def test_refusals_are_why() -> None:
    figures = Figures()
    figures.sent_readings = 1_500
    figures.refuse_together(1_500, {"E_MAC": 1_200, "E_STALE": 300})
    # It was met after all.
    figures.unreachable("127.0.0.1:1: connection refused")
    head, why, following = told(figures, frames=FrameOrder())
    assert head == "NOTHING STORED  1,500 readings sent, none acknowledged"
    assert why == "  why   refused: E_MAC (1,200), E_STALE (300)"
    assert "--secret-file" in following


def test_other_refusals_are_told_as_they_came() -> None:
    figures = Figures()
    figures.sent_readings = 10
    figures.refuse(10, "403 OC-6002 This key may not.")
    _, why, following = told(figures)
    assert why == "  why   refused: 403 OC-6002 This key may not. (1)"
    assert "ocean status" in following


@pytest.mark.parametrize("frames", [None, FrameOrder(), FrameOrder(Transport.UDP)])
def test_a_connection_that_could_not_be_made_is_why(frames: FrameOrder | None) -> None:
    figures = Figures()
    figures.unreachable("127.0.0.1:5999: connection refused")
    _, why, following = told(figures, frames=frames)
    assert why.startswith("  why   127.0.0.1:5999: connection refused")
    assert "ocean status" in following
    assert ("--to" in following) == (frames is not None)


def test_silence_is_why() -> None:
    figures = Figures()
    assert "nothing was sent" in told(figures)[1]
    figures.sent_readings = 10
    head, why, _ = told(figures, unresolved=10)
    assert head.startswith("NOTHING ACKNOWLEDGED")
    assert "10 never answered" in head
    assert "no answer" in why


def test_of_nothing_at_all_it_is_not_ok_that_all_of_it_is_there() -> None:
    assert audit_lines(Audit()) == []
    assert audit_lines(Audit(acknowledged=3, found=3))[0].startswith("OK  3 acknowledged")
    wrong = Audit(found=3, doubled=3, series_differing=1)
    wrong.differences.append(Difference("a", "value", 0, 3, "more"))
    assert audit_lines(wrong)[0].startswith("FAILED")
