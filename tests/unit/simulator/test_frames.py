"""What simulated devices send: frames that a decoder reads, no two of them equal, at all levels."""

import json
import os
from collections.abc import Callable, Iterator
from random import Random

import pytest

from ocean_core.model.digest import digest_of
from ocean_core.obs.clock import ManualClock
from ocean_core.protocol.nanogridata.decoder import FixedKeys, FixedPolicy, decode
from ocean_core.protocol.nanogridata.frame import (
    GAS,
    PRESSURE,
    FrameRefusedError,
    Measurement,
    Outcome,
)
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.simulator.bursts import ASTRAY_FRAMES_MAX, RECORD_BYTES, Burst, Bursts, Letter
from ocean_core.simulator.device_sender import DeviceRun
from ocean_core.simulator.mischief import GARBAGE_MAX, Mischief
from ocean_core.simulator.plan import Faults, FrameOrder, Order, Transport
from ocean_core.simulator.prepare import FrameParcels, prepare
from ocean_core.simulator.sender import Run, Sender
from support.scripted_rim import LOST, Reply, Request, ScriptedRim, ScriptedServer

SECRETS = {PRESSURE: b"p" * 32, GAS: b"g" * 100}
KEYS = FixedKeys({model: [HmacSecret(secret, "test")] for model, secret in SECRETS.items()})


class Forgetful:
    """Knows no repeats."""

    def check_and_remember(self, identity: bytes, timestamp: int, now_s: int) -> bool:
        return True


def order_of(
    *, level: int = 1, sensors: int = 40, rate: float | None = None, count: int | None = 2_000,
    faults: Faults = Faults.NONE, transport: Transport = Transport.TCP, seed: int = 1,
    connections: int | None = None, batch: int | None = None,
) -> Order:  # fmt: skip
    return Order(
        sensors=sensors, faults=faults, rate=rate, count=count, seconds=None, seed=seed,
        connections=connections, batch=batch, keys=False,
        frames=FrameOrder(transport, level, SECRETS),
    )  # fmt: skip


def bursts_of(order: Order, clock: ManualClock | None = None, prefix: str = "s-") -> Bursts:
    _, run = prepare(order, prefix, "cafe", clock=clock or ManualClock(), random_bytes=os.urandom)
    assert isinstance(run, DeviceRun)
    return run.bursts


def taken(bursts: Bursts, connections: int) -> Iterator[tuple[int, Burst]]:
    while not bursts.is_over:
        bursts.make()
        for number in range(connections):
            while bursts.next_of(number) is not None:
                yield number, bursts.take(number)


def measured(frame: bytes, now_s: int) -> tuple[str, list[Measurement]]:
    content = decode(frame, now_s, FixedPolicy(), KEYS, Forgetful()).content
    return str(content.decoded["device_id"]), content.measurements


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_frames_say_what_was_measured_and_none_comes_twice(level: int) -> None:
    clock = ManualClock()
    order = order_of(level=level)
    names, run = prepare(order, "s-", "cafe", clock=clock, random_bytes=os.urandom)
    assert isinstance(run, DeviceRun)
    seen: list[bytes] = []
    sizes: set[int] = set()
    rows = 0
    for number, burst in taken(run.bursts, 40):
        assert burst.rows == len(burst.lot.columns.value) == burst.bounds[-1]
        for letter in burst.letters():
            device, found = measured(letter.frame, clock.now_us() // 1_000_000)
            columns = burst.lot.columns
            place = int(columns.index[letter.start])
            assert place == number
            assert (device, found[0].metric) == names[place]
            part = slice(letter.start, letter.stop)
            assert [one.value for one in found] == columns.value[part].tolist()
            assert [one.ts * 1_000_000 for one in found] == columns.timestamp_us[part].tolist()
            sizes.add(len(found))
        # Without the header time, so that equal payloads would show.
        seen += [frame[14:] for frame in burst.frames]
        rows += burst.rows
    assert rows == 2_000
    assert sizes == {1, 4}
    assert len(seen) == len(set(seen))
    assert {metric for _, metric in names} > {"pressure"}


@pytest.mark.parametrize("rate", [4_000.0, 400.0, 40.0, 1.0])
def test_several_readings_in_a_second_are_different_frames(rate: float) -> None:
    clock = ManualClock()
    seen: list[bytes] = []
    rows = 0
    for _, burst in taken(bursts_of(order_of(rate=rate, sensors=4, count=3_000), clock), 4):
        seen += burst.frames
        rows += burst.rows
        last_s = int(burst.lot.columns.timestamp_us[-1]) // 1_000_000
        assert int.from_bytes(burst.frames[-1][8:12]) == last_s, "made when it was measured"
        assert 0 <= burst.due_us / 1e6 - last_s < 1
    assert rows == 3_000
    assert len(set(seen)) == len(seen)


def test_what_is_stored_is_exact() -> None:
    burst = next(burst for _, burst in taken(bursts_of(order_of()), 40))
    found = [
        one for frame in burst.frames for one in measured(frame, ManualClock().now_us() // 10**6)[1]
    ]
    stored = digest_of(
        [int(one.ts) * 1_000_000 for one in found], [float(one.value) for one in found]
    )
    assert stored == int(burst.lot.digests.sum(dtype="uint64"))


def test_clocks_that_are_wrong_make_frames_that_are_refused() -> None:
    clock = ManualClock()
    outcomes: set[str] = set()
    for _, burst in taken(bursts_of(order_of(faults=Faults.MANY, count=20_000), clock), 40):
        try:
            measured(burst.frames[0], clock.now_us() // 1_000_000)
        except FrameRefusedError as error:
            assert burst.is_astray
            outcomes.add(error.outcome)
        else:
            assert not burst.is_astray
    assert outcomes == {Outcome.FUTURE, Outcome.STALE}


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP])
@pytest.mark.parametrize("rate", [None, 2_000.0])
def test_few_frames_of_a_run_are_to_be_refused(transport: Transport, rate: float | None) -> None:
    clock = ManualClock()
    order = order_of(
        faults=Faults.MANY, transport=transport, rate=rate, sensors=200, count=50_000,
        connections=1,
    )  # fmt: skip
    bursts = bursts_of(order, clock)
    now_s = clock.now_us() // 10**6
    ahead = of_1970 = rows = 0
    for _, burst in taken(bursts, 1):
        rows += burst.rows
        for frame in burst.frames:
            header_s = int.from_bytes(frame[8:12])
            is_old, is_ahead = header_s < 10**7, header_s > now_s + 3_600
            assert burst.is_astray == (is_old or is_ahead)
            ahead += is_ahead
            of_1970 += is_old
        if not burst.is_astray:
            # Set right inside, too.
            measured_s = burst.lot.columns.timestamp_us // 10**6
            assert now_s - 11 * 86_400 < int(measured_s.min())
            assert int(measured_s.max()) < now_s + 3_600
    assert (ahead, of_1970) == (ASTRAY_FRAMES_MAX, ASTRAY_FRAMES_MAX)
    assert rows == 50_000


def test_little_garbage_is_sent_in_a_run() -> None:
    mischief = Mischief(Faults.MANY, Random(3))
    frames = next(burst for _, burst in taken(bursts_of(order_of()), 40)).frames
    whole = b"".join(frames)
    odd = [b"".join(mischief.writing(frames).pieces) != whole for _ in range(5_000)]
    # Half a frame that would look like a whole one is left away.
    assert GARBAGE_MAX - 2 <= odd.count(True) <= GARBAGE_MAX
    assert 2 * ASTRAY_FRAMES_MAX + GARBAGE_MAX <= 20


def test_the_same_seed_makes_the_same_frames() -> None:
    first, second, other = (
        [
            frame
            for _, burst in taken(bursts_of(order_of(level=1, seed=seed)), 40)
            for frame in burst.frames
        ]
        for seed in (7, 7, 8)
    )
    assert first == second
    assert first != other


def test_a_connection_that_is_slow_measures_less() -> None:
    bursts = bursts_of(order_of(count=None))
    for _ in range(50):
        bursts.make()
        while bursts.next_of(1) is not None:
            bursts.take(1)
    waiting = 0
    while bursts.next_of(0) is not None:
        waiting += len(bursts.take(0).frames)
    assert waiting < 1_500
    assert bursts.skipped > 0


def test_devices_share_connections_if_there_are_fewer() -> None:
    devices: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for number, burst in taken(bursts_of(order_of(connections=3)), 3):
        devices[number] |= set(burst.lot.columns.index.tolist())
        assert len(burst.frames) <= 128
    assert sorted(place for places in devices.values() for place in places) == list(range(40))


def test_long_names_are_taken() -> None:
    clock = ManualClock()
    names = set()
    for _, burst in taken(bursts_of(order_of(), clock, prefix="ü" * 29), 40):
        names.add(measured(burst.frames[0], clock.now_us() // 1_000_000)[0])
    assert len(names) == 40


def test_records_name_their_frames() -> None:
    for _, burst in taken(bursts_of(order_of(level=2)), 40):
        for number, letter in enumerate(burst.letters()):
            record = burst.wanted[number * RECORD_BYTES : (number + 1) * RECORD_BYTES]
            check_at = 14 + int.from_bytes(letter.frame[6:8])
            echo = letter.frame[8:12] + letter.frame[check_at : check_at + 2]
            assert record == b"\xc1\x41\0\0" + echo + b"\0\0"
            assert letter.echo == echo


def test_over_http_frames_go_together() -> None:
    order = order_of(transport=Transport.HTTP, batch=300)
    _, run = prepare(order, "s-", "cafe", clock=ManualClock(), random_bytes=os.urandom)
    assert isinstance(run, Run)
    assert isinstance(run.parcels, FrameParcels)
    rows = frames = 0
    while (parcel := run.parcels.next()) is not None:
        rows += parcel.rows
        frames += len(parcel.bounds) - 1
        assert parcel.body.startswith(b"\xc1\x53")
        assert parcel.rows == parcel.bounds[-1]
    assert rows == 2_000
    assert 1_000 < frames < 2_000
    assert order.media == "application/x-nanogridata"
    assert order.path.endswith("/batch")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_mischief_takes_nothing_away_but_where_it_cuts(level: int) -> None:
    mischief = Mischief(Faults.MANY, Random(3))
    burst = next(burst for _, burst in taken(bursts_of(order_of(level=level)), 40))
    whole = b"".join(burst.frames)
    kinds = set()
    for _ in range(500):
        writing = mischief.writing(burst.frames)
        written = b"".join(writing.pieces)
        if writing.cuts:
            kinds.add("cut")
            assert whole.startswith(written)
            assert len(written) < len(whole)
        else:
            assert all(frame in written for frame in burst.frames)
            kinds.add("slow" if len(writing.pieces) > 1 else "more" if written != whole else "")
    assert kinds == {"cut", "slow", "more", ""}
    nothing = Mischief(Faults.NONE, Random(3))
    assert nothing.writing(burst.frames).pieces == (whole,)
    assert not nothing.is_repeated()


def test_a_letter_is_one_frame_of_its_burst() -> None:
    burst = next(burst for _, burst in taken(bursts_of(order_of()), 40))
    letters = list(burst.letters())
    assert [letter.frame for letter in letters] == burst.frames
    assert sum(letter.rows for letter in letters) == burst.rows
    assert isinstance(letters[0], Letter)


def http_lab(decide: Callable[[Request], Reply | None]) -> tuple[Sender, Run, ScriptedRim]:
    clock = ManualClock()
    order = order_of(transport=Transport.HTTP, batch=100, count=1_000, connections=2)
    _, run = prepare(order, "s-", "cafe", clock=clock, random_bytes=os.urandom)
    assert isinstance(run, Run)
    rim = ScriptedRim(ScriptedServer(decide), clock)
    sender = Sender(run, rim, clock, Random(1))
    sender.begin()
    rim.run(lambda: sender.is_done)
    return sender, run, rim


def test_a_request_of_frames_is_sent_again_without_a_key() -> None:
    lost: list[bytes] = []

    def decide(request: Request) -> Reply | None:
        assert request.key is None
        assert request.head["content-type"] == "application/x-nanogridata"
        if not lost:
            lost.append(request.body)
            return LOST
        return None

    sender, run, rim = http_lab(decide)
    assert [request.body for request in rim.server.requests].count(lost[0]) == 2
    assert sender.figures.acknowledged_readings == int(run.tally.counts.sum()) == 1_000


def test_refusals_of_whole_requests_are_grouped_by_error() -> None:
    def decide(request: Request) -> Reply | None:
        errors = [
            {"item": 0, "found": f"E_MAC at byte {len(request.body)}"},
            {"item": 1, "found": "E_STALE: too old"},
            {"item": 2, "found": "E_MAC"},
        ]
        return Reply(422, {}, json.dumps({"code": "OC-2010", "errors": errors}).encode())

    sender, run, rim = http_lab(decide)
    figures, requests = sender.figures, len(rim.server.requests)
    assert set(figures.reasons) == {"E_MAC", "E_STALE"}
    assert figures.reasons["E_STALE"] == figures.refused_requests == requests
    assert figures.reasons["E_MAC"] > 10 * requests
    assert figures.refused_readings == 1_000
    assert int(run.tally.counts.sum()) == 0


def test_frames_refused_among_others_are_left_out() -> None:
    answers = [
        {"count": 1, "rejected_count": 2, "rejected": [{"item": 0, "found": "E_MAC"},
                                                       {"item": 2, "found": "E_REPLAY"}]},
        {"count": 1, "rejected_count": 200, "rejected": [{"item": 0, "found": "E_MAC"}]},
    ]  # fmt: skip

    def decide(request: Request) -> Reply | None:
        return (
            Reply(body=json.dumps(answers.pop(0), separators=(",", ":")).encode())
            if answers
            else None
        )

    sender, run, _ = http_lab(decide)
    figures, unresolved = sender.figures, run.tally.unresolved_readings
    assert set(figures.reasons) == {"E_MAC", "E_REPLAY"}
    assert figures.refused_readings >= 2
    assert unresolved > 0
    assert figures.acknowledged_readings == 1_000 - figures.refused_readings - unresolved
    assert figures.acknowledged_readings == int(run.tally.counts.sum())
