"""Large requests wait while analytics fall behind, small ones never."""

import asyncio

import pytest

from ocean_core.service.pace import BACKLOG_FREE, ROWS_FREE, Pace


@pytest.mark.parametrize(
    ("backlog", "rows", "pause_s"),
    [
        (0, 1000, 0.0),
        (BACKLOG_FREE, 1000, 0.0),
        (2 * BACKLOG_FREE, 1000, 0.004),
        (3 * BACKLOG_FREE, 1000, 0.008),
        (3 * BACKLOG_FREE, 10_000, 0.08),
        (3 * BACKLOG_FREE, ROWS_FREE - 1, 0.0),
        (1000 * BACKLOG_FREE, 500_000, 0.5),
    ],
)
def test_the_pause_grows_with_backlog_and_rows(backlog: int, rows: int, pause_s: float) -> None:
    assert Pace(lambda: backlog).pause_s(rows) == pytest.approx(pause_s)


def test_only_who_has_to_wait_waits() -> None:
    slept: list[float] = []
    backlog = 0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(lambda: backlog, sleep)
    asyncio.run(pace.keep(1000))
    backlog = 2 * BACKLOG_FREE
    asyncio.run(pace.keep(1))
    asyncio.run(pace.keep(1000))
    assert slept == [pytest.approx(0.004)]
