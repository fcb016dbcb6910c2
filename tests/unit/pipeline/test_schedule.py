from ocean_core.pipeline.schedule import DrainSchedule, MoverSettings

SETTINGS = MoverSettings(rows_per_drain=100)


def started() -> DrainSchedule:
    schedule = DrainSchedule(SETTINGS)
    schedule.drained(0, 0.0)
    return schedule


def test_nothing_waits_nothing_is_due() -> None:
    assert started().due_in(1e9) is None


def test_idle_readings_wait_half_a_minute() -> None:
    schedule = started()
    schedule.grown(5, 100.0)
    assert schedule.due_in(100.0) == 30.0
    schedule.grown(6, 120.0)
    assert schedule.due_in(120.0) == 10.0
    assert schedule.due_in(130.0) == 0.0


def test_many_readings_are_due_at_once() -> None:
    schedule = started()
    schedule.grown(100, 1.0)
    assert schedule.due_in(1.0) == 0.0


def test_queries_quicken_the_pace_and_it_slackens_again() -> None:
    schedule = started()
    schedule.drained(1, 10.0)
    schedule.touched(10.0)
    schedule.grown(5, 10.1)
    assert schedule.due_in(10.1) == 10.25 - 10.1
    schedule.drained(5, 10.3)
    schedule.grown(6, 20.0)
    assert schedule.due_in(20.0) == 30.0


def test_waiting_for_an_id_shares_a_transaction_unless_urgent() -> None:
    schedule = started()
    schedule.drained(1, 10.0)
    schedule.grown(5, 10.05)
    schedule.wanted(5, urgent=False)
    assert schedule.due_in(10.05) == 10.25 - 10.05
    schedule.wanted(5, urgent=True)
    assert schedule.due_in(10.05) == 0.0
    schedule.drained(5, 10.06)
    assert schedule.due_in(10.06) is None


def test_an_id_that_does_not_exist_does_not_keep_the_mover_busy() -> None:
    schedule = started()
    schedule.grown(1_000_000, 1.0)
    schedule.wanted(1_000_000, urgent=True)
    assert schedule.due_in(1.0) == 0.0
    schedule.drained(1_000_000, 1.0)
    assert schedule.due_in(1.0) is None
    schedule.grown(1_000_003, 2.0)
    assert schedule.due_in(2.0) == 30.0
