"""Latencies in bounded memory, and the figures of a run."""

import random

import pytest

from ocean_core.simulator.figures import REASONS_MAX, Figures, Latencies


def test_percentiles_are_within_two_percent() -> None:
    chance = random.Random(3)
    seconds = [chance.lognormvariate(-5, 1.5) for _ in range(50_000)]
    latencies = Latencies()
    for number, latency in enumerate(seconds):
        latencies.add(latency)
        if number % 7_000 == 0:
            latencies.fold()
    seconds.sort()
    for percent in (1, 50, 90, 99, 99.9):
        exact = seconds[int(len(seconds) * percent / 100)]
        assert latencies.percentile_s(percent) == pytest.approx(exact, rel=0.021)
    assert latencies.percentile_s(100) == latencies.longest_s == seconds[-1]


def test_extremes_do_no_harm() -> None:
    latencies = Latencies()
    assert latencies.percentile_s(99) == 0
    for latency in (0.0, 1e-9, 5_000.0):
        latencies.add(latency)
    assert latencies.percentile_s(10) < 2e-6
    assert latencies.longest_s == 5_000


def test_reasons_are_bounded() -> None:
    figures = Figures()
    for number in range(10 * REASONS_MAX):
        figures.refuse(2, f"reason {number}")
    figures.refuse(2, "reason 0")
    assert len(figures.reasons) == REASONS_MAX + 1
    assert figures.reasons["reason 0"] == 2
    assert figures.refused_readings == 2 * figures.refused_requests == 2 * (10 * REASONS_MAX + 1)


def test_the_progress_line_says_that_nobody_listens_until_something_is_acknowledged() -> None:
    figures = Figures()
    figures.unreachable("127.0.0.1:5999: connection refused")
    assert figures.progress(1, 0).endswith("127.0.0.1:5999: connection refused")
    figures.acknowledged_requests = 1
    assert "connection refused" not in figures.progress(1, 0)
    assert (figures.failed_connections, figures.connection_error[-7:]) == (1, "refused")


def test_the_progress_line_has_what_matters() -> None:
    figures = Figures()
    figures.sent_readings, figures.acknowledged_readings, figures.resent = 2_000, 1_900, 3
    figures.latencies.add(0.0123)
    line = figures.progress(4.2, 950.4)
    assert line == (
        "   4 s  sent 2,000  acknowledged 1,900 (950/s)  refused 0  resent 3  p50 12.3 ms  p99 12.3 ms"
    )
