"""The sender: whatever the server does, each request meets its fate once, with one key."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from ocean_core.client.connection import Target
from ocean_core.obs.clock import ManualClock
from ocean_core.protocol.media import Encoding
from ocean_core.simulator.channel import ANSWER_WITHIN_S
from ocean_core.simulator.figures import Figures
from ocean_core.simulator.fleet import Fleet
from ocean_core.simulator.parcels import Parcels
from ocean_core.simulator.plan import Faults, Form, Order, sensor_names, timing_of
from ocean_core.simulator.sender import HOPELESS_REQUESTS, Run, Sender
from ocean_core.simulator.tally import Tally
from support.scripted_rim import (
    LATENCY_S,
    LOST,
    SILENT,
    Reply,
    Request,
    ScriptedRim,
    ScriptedServer,
)

Decide = Callable[[Request], Reply | None]


@dataclass
class Lab:
    """A sender in virtual time, and what can be asked of it."""

    sender: Sender
    rim: ScriptedRim
    server: ScriptedServer
    tally: Tally
    figures: Figures

    def run(self, within_s: float = 600.0) -> None:
        self.sender.begin()
        self.rim.run(lambda: self.sender.is_done, within_s=within_s)

    @property
    def acknowledged(self) -> int:
        return int(self.tally.counts.sum())

    def attempts(self) -> Counter[str | None]:
        return Counter(request.key for request in self.server.requests)


def lab_of(
    decide: Decide = lambda _: None,
    *,
    count: int | None = 400,
    faults: Faults = Faults.NONE,
    connections: int = 3,
    keys: bool = True,
    rate: float | None = None,
    batch: int = 10,
    form: Form = Form.ROWS,
    encoding: Encoding = Encoding.IDENTITY,
) -> Lab:
    clock = ManualClock()
    order = Order(
        sensors=10, faults=faults, form=form, batch=batch, count=count, seconds=None, rate=rate,
        connections=connections, keys=keys, encoding=encoding,
    )  # fmt: skip
    timing = timing_of(order, clock.now_us())
    fleet = Fleet(
        sensor_names("s-", 10), order.metrics, seed=1, faults=faults, timing=timing,
        now_us=clock.now_us(),
    )  # fmt: skip
    server = ScriptedServer(decide)
    rim = ScriptedRim(server, clock)
    tally, figures = Tally(10), Figures()
    run = Run(order, timing, "cafe", Parcels(order, fleet, timing), tally, figures)
    return Lab(Sender(run, rim, clock, Random(5)), rim, server, tally, figures)


def on(*numbers: int, reply: Reply) -> Decide:
    """Answer these requests, counted from 0 in the order they come, so."""
    count = itertools.count()
    return lambda _: reply if next(count) in numbers else None


def test_everything_is_sent_once_and_counted() -> None:
    lab = lab_of()
    lab.run()
    assert len(lab.server.stored) == len(lab.server.requests) == 40
    assert lab.acknowledged == lab.figures.acknowledged_readings == lab.figures.sent_readings == 400
    assert lab.tally.counts.tolist() == [40] * 10
    assert lab.figures.resent == lab.figures.refused_requests == 0
    assert lab.figures.latencies.percentile_s(50) == pytest.approx(LATENCY_S, rel=0.03)
    assert len(lab.rim.connects) == 3


def test_what_a_request_says() -> None:
    lab = lab_of(form=Form.BLOCK, encoding=Encoding.ZSTD)
    lab.run()
    head = dict(lab.server.requests[0].head)
    del head["content-length"]
    assert head == {
        ":request": "POST /api/ocean/telemetry/batch HTTP/1.1",
        "host": "127.0.0.1:8030",
        "content-type": "application/x-ocean-block",
        "content-encoding": "zstd",
        "authorization": "Bearer first-key",
        "idempotency-key": "sim-cafe-0",
    }
    assert len({request.key for request in lab.server.requests}) == 40


def test_single_readings_go_to_their_own_address() -> None:
    lab = lab_of(form=Form.SINGLE, keys=False)
    lab.run()
    head = lab.server.requests[0].head
    assert head[":request"] == "POST /api/ocean/telemetry/ingest HTTP/1.1"
    assert "idempotency-key" not in head
    assert lab.acknowledged == 400


def test_an_answer_in_pieces_is_one_answer() -> None:
    lab = lab_of(lambda _: Reply(pieces=200))
    lab.run()
    assert lab.acknowledged == 400


def test_after_a_lost_answer_the_same_is_sent_with_the_same_key() -> None:
    stored_before_it_was_lost: list[Request] = []

    def decide(request: Request) -> Reply | None:
        if request.key == "sim-cafe-7" and len(stored_before_it_was_lost) < 3:
            stored_before_it_was_lost.append(request)
            lab.server.store(request)
            return LOST
        return None

    lab = lab_of(decide)
    lab.run()
    assert lab.attempts()["sim-cafe-7"] == 4
    assert len({request.body for request in stored_before_it_was_lost}) == 1
    assert len(lab.server.stored) == 40
    assert lab.acknowledged == 400
    assert lab.figures.lost_answers == lab.figures.resent == 3
    assert lab.tally.unresolved_readings == 0


def test_without_keys_a_lost_answer_is_left_open_and_not_sent_again() -> None:
    lab = lab_of(on(7, reply=LOST), keys=False)
    lab.run()
    assert len(lab.server.requests) == 40
    assert lab.acknowledged == 390
    assert lab.tally.unresolved_readings == 10
    assert sum(share.count for place in range(10) for share in lab.tally.unresolved_of(place)) == 10


@pytest.mark.parametrize("status", [408, 429, 503, 507])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no-keys"])
def test_busy_is_waited_for_and_the_same_sent_again(status: int, keys: bool) -> None:
    lab = lab_of(on(4, reply=Reply(status, {"Retry-After": "7"})), connections=1, keys=keys)
    lab.run()
    assert len(lab.server.requests) == 41
    refused, again = lab.server.requests[4:6]
    assert (again.body, again.key) == (refused.body, refused.key)
    assert 7.0 < again.at_s - refused.at_s < 9.0
    assert (lab.figures.busy_answers, lab.figures.resent, lab.acknowledged) == (1, 1, 400)
    assert lab.figures.lost_answers == lab.figures.refused_requests == 0


def test_busy_without_a_time_is_asked_ever_more_seldom() -> None:
    lab = lab_of(on(*range(1, 12), reply=Reply(429)), connections=1)
    lab.run()
    times = [request.at_s for request in lab.server.requests[1:13]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.02 < gaps[0] < 0.2
    assert 1.0 <= gaps[-1] <= 2.1
    assert lab.acknowledged == 400


def test_busy_connections_do_not_come_back_all_at_once() -> None:
    busy = Reply(503, {"Retry-After": "2"})
    lab = lab_of(on(*range(20), reply=busy), connections=20)
    lab.run()
    keys = {request.key for request in lab.server.requests[:20]}
    times = [request.at_s for request in lab.server.requests[20:] if request.key in keys]
    assert len(times) == len(set(times)) == 20
    assert max(times) - min(times) > 0.2


def test_an_unclear_answer_is_as_good_as_a_lost_one() -> None:
    lab = lab_of(on(2, 3, reply=Reply(500)), connections=1)
    lab.run()
    assert lab.attempts()["sim-cafe-2"] == 3
    assert (lab.acknowledged, lab.figures.lost_answers) == (400, 2)
    without = lab_of(on(2, reply=Reply(502)), keys=False)
    without.run()
    assert (without.acknowledged, without.tally.unresolved_readings) == (390, 10)


def test_what_is_refused_is_dropped_with_its_reason() -> None:
    body = b'{"code":"OC-2002","detail":"item 3, timestamp: found the future."}'
    lab = lab_of(on(2, 5, reply=Reply(422, {}, body)))
    lab.run()
    assert len(lab.server.requests) == 40
    assert (lab.acknowledged, lab.figures.refused_readings) == (380, 20)
    assert lab.figures.reasons == {"422 OC-2002 item 3, timestamp: found the future.": 2}
    assert lab.tally.unresolved_readings == 0


def test_too_large_ends_the_connection_and_the_next_goes_on() -> None:
    closing = Reply(413, {"Connection": "close"}, b'{"code":"OC-2003","detail":"Too large."}')
    lab = lab_of(on(0, reply=closing), connections=1)
    lab.run()
    assert (lab.acknowledged, lab.figures.refused_readings) == (390, 10)
    assert len(lab.rim.connects) == 2
    assert lab.figures.lost_answers == 0


def test_refused_after_a_lost_answer_is_left_open() -> None:
    def decide(request: Request) -> Reply | None:
        if request.key != "sim-cafe-3":
            return None
        return LOST if lab.attempts()["sim-cafe-3"] == 1 else Reply(403)

    lab = lab_of(decide)
    lab.run()
    # The first attempt may have been stored.
    assert lab.tally.unresolved_readings == lab.figures.refused_readings == 10
    assert lab.acknowledged == 390


def test_a_new_key_is_taken_after_a_restart() -> None:
    def decide(request: Request) -> Reply | None:
        old = request.head["authorization"] == "Bearer first-key"
        return Reply(401, {"WWW-Authenticate": "Bearer"}) if restarted and old else None

    restarted: list[bool] = []
    lab = lab_of(decide)
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.stored) >= 10)
    restarted.append(True)
    lab.rim.target = Target("http://127.0.0.1:9999", "second-key")
    lab.rim.run(lambda: lab.sender.is_done)
    assert lab.acknowledged == 400
    assert lab.server.requests[-1].head["host"] == "127.0.0.1:9999"
    assert lab.figures.refused_requests == 0


def test_a_key_that_is_not_taken_is_told_and_ends_it_soon() -> None:
    lab = lab_of(lambda _: Reply(401, {}, b'{"code":"OC-6001","detail":"No."}'), count=100_000)
    lab.run()
    assert lab.acknowledged == 0
    assert HOPELESS_REQUESTS <= lab.figures.refused_requests < HOPELESS_REQUESTS + 5
    assert lab.figures.reasons == {"401 OC-6001 No.": lab.figures.refused_requests}


def test_an_outage_loses_and_doubles_nothing() -> None:
    lab = lab_of(count=3_000, connections=5)
    lab.sender.begin()
    for _ in range(4):
        goal = len(lab.server.stored) + 50
        lab.rim.run(lambda goal=goal: len(lab.server.stored) >= goal)  # type: ignore[misc]
        back_at_s = lab.rim.now_s + 12.0
        lab.rim.is_up = lambda back=back_at_s: lab.rim.now_s >= back  # type: ignore[misc]
        lab.rim.break_all()
    lab.rim.run(lambda: lab.sender.is_done)
    assert lab.acknowledged == 3_000
    assert len(lab.server.stored) == len(set(lab.server.stored)) == 300
    assert lab.figures.lost_answers >= 4
    # Seldom enough for a box that is just starting.
    assert len(lab.rim.connects) < 5 * 4 * 16


def test_a_connection_that_stays_silent_is_broken_and_the_request_sent_again() -> None:
    lab = lab_of(on(6, reply=SILENT), connections=1)
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.requests) == 7)
    lab.rim.clock.advance(ANSWER_WITHIN_S - 1)
    lab.sender.look(give_up_s=1000)
    assert not lab.rim.transports[0].is_closed
    lab.rim.clock.advance(2)
    lab.sender.look(give_up_s=1000)
    lab.rim.run(lambda: lab.sender.is_done)
    assert lab.attempts()["sim-cafe-6"] == 2
    assert lab.acknowledged == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_answer_counts_as_a_lost_one(raw: bytes) -> None:
    lab = lab_of(on(3, reply=Reply(raw=raw)), connections=1)
    lab.run()
    assert lab.attempts()["sim-cafe-3"] == 2
    assert (lab.acknowledged, lab.figures.lost_answers) == (400, 1)


def test_repeats_are_true_duplicates() -> None:
    lab = lab_of(count=4_000, faults=Faults.MANY)
    lab.run()
    twice = {key for key, number in lab.attempts().items() if number == 2}
    assert len(twice) == lab.figures.repeats > 5
    assert lab.figures.repeats_stored_again == lab.figures.resent == 0
    assert lab.acknowledged == 4_000
    assert len(lab.server.stored) == lab.figures.acknowledged_requests


def test_a_repeat_that_was_stored_again_is_noticed() -> None:
    lab = lab_of(lambda _: Reply(), count=4_000, faults=Faults.MANY)
    lab.run()
    assert lab.figures.repeats_stored_again == lab.figures.repeats > 5


def test_a_repeat_that_is_lost_or_refused_does_no_harm() -> None:
    def decide(request: Request) -> Reply | None:
        seen = lab.attempts()[request.key]
        return None if seen == 1 else LOST if seen == 2 else Reply(422)

    lab = lab_of(decide, count=4_000, faults=Faults.MANY)
    lab.run()
    assert lab.acknowledged == 4_000
    assert lab.tally.unresolved_readings == lab.figures.refused_requests == 0


# --- pace


@pytest.mark.parametrize("rate", [25.0, 1_000.0, 20_000.0])
def test_a_rate_is_kept(rate: float) -> None:
    lab = lab_of(rate=rate, count=int(rate * 4), batch=max(1, int(rate / 50)))
    began_s = lab.rim.now_s
    lab.run()
    assert lab.rim.now_s - began_s == pytest.approx(4, abs=0.1)
    halfway = sum(1 for request in lab.server.requests if request.at_s - began_s < 2)
    assert halfway == pytest.approx(len(lab.server.requests) / 2, rel=0.1, abs=3)


def test_at_a_rate_what_an_outage_kept_back_follows() -> None:
    lab = lab_of(rate=1_000, count=20_000)
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.stored) > 200)
    back_at_s = lab.rim.now_s + 6.0
    lab.rim.is_up = lambda: lab.rim.now_s >= back_at_s
    lab.rim.break_all()
    began_s = lab.rim.now_s
    lab.rim.run(lambda: lab.sender.is_done)
    assert lab.acknowledged == 20_000
    assert lab.rim.now_s - began_s < 19


# --- the end


def test_ending_waits_for_the_last_answers() -> None:
    lab = lab_of(count=None, connections=4)
    done: list[bool] = []
    lab.sender.on_done = lambda: done.append(True)
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.requests) == 102)
    lab.sender.end()
    assert not lab.sender.is_done
    lab.rim.run(lambda: bool(done))
    assert len(lab.server.requests) == 102
    assert lab.acknowledged == lab.figures.sent_readings == 1_020


def test_giving_up_leaves_open_what_may_have_been_stored_and_drops_what_was_not() -> None:
    busy, gone = Reply(503, {"Retry-After": "60"}), SILENT
    lab = lab_of(
        lambda request: (
            busy if request.connection == 0 else gone if request.connection == 1 else None
        )
    )
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.stored) == 38)
    # The books of the last answer.
    lab.rim.run(lambda: lab.figures.acknowledged_requests == 38)
    lab.sender.end()
    lab.rim.clock.advance(5)
    lab.sender.look(give_up_s=10)
    assert lab.tally.unresolved_readings == 0
    lab.rim.clock.advance(6)
    lab.sender.look(give_up_s=10)
    assert lab.sender.given_up
    assert lab.acknowledged == 380
    assert lab.tally.unresolved_readings == 10
    assert lab.figures.reasons == {"still busy at the end": 1}
    assert lab.figures.sent_readings == 400


def test_a_server_that_went_away_for_good_is_given_up() -> None:
    lab = lab_of(count=None)
    lab.sender.begin()
    lab.rim.run(lambda: len(lab.server.stored) == 50)
    lab.rim.is_up = lambda: False
    lab.rim.break_all()
    for _ in range(40):
        until_s = lab.rim.now_s + 1.0
        lab.rim.later(1.0, lambda: None)
        lab.rim.run(lambda until_s=until_s: lab.rim.now_s >= until_s)  # type: ignore[misc]
        lab.sender.look(give_up_s=30)
    assert lab.sender.given_up
    assert lab.tally.unresolved_readings == lab.figures.sent_readings - lab.acknowledged > 0
