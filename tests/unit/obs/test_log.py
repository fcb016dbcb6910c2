"""Log events: one line each, throttled, never in the way."""

import io
import json

from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import THROTTLE_BURST, EventLog


def test_text_is_one_line_whatever_the_fields_hold() -> None:
    stream = io.StringIO()
    log = EventLog(ManualClock(), stream=stream)
    log.info("buffer.failed", reason="two\nlines", path="/a b")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert 'buffer.failed reason="two\\nlines" path="/a b"' in line
    log.info("buffer.recovered", source="\x1b[2Jx", what="")
    assert stream.getvalue().endswith('source="\\u001b[2Jx" what=""\n')


def test_json_has_time_level_event_and_fields() -> None:
    stream = io.StringIO()
    log = EventLog(ManualClock(1_700_000_000_000_000), as_json=True, stream=stream)
    log.warning("buffer.failed", reason="full")
    assert json.loads(stream.getvalue()) == {
        "time": "2023-11-14T22:13:20Z",
        "level": "warning",
        "event": "buffer.failed",
        "reason": "full",
    }


def test_a_flood_of_one_event_is_cut_and_counted() -> None:
    stream = io.StringIO()
    clock = ManualClock()
    log = EventLog(clock, stream=stream)
    for _ in range(THROTTLE_BURST + 7):
        log.info("buffer.failed")
    log.info("buffer.recovered")
    assert stream.getvalue().count("buffer.failed") == THROTTLE_BURST
    assert "buffer.recovered" in stream.getvalue()
    clock.advance(11)
    log.info("buffer.failed")
    assert "log.throttled throttled=buffer.failed count=7" in stream.getvalue()


def test_levels_below_the_chosen_one_are_silent_and_a_broken_stream_is_no_harm() -> None:
    stream = io.StringIO()
    log = EventLog(ManualClock(), level="warning", stream=stream)
    log.info("buffer.failed")
    assert stream.getvalue() == ""
    stream.close()
    log.error("buffer.failed")
