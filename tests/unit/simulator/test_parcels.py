"""Requests: what they say is what the fleet measured, as the server's own decoder reads it."""

import gzip
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from backports import zstd

from ocean_core.model.digest import add_digests, digest_of
from ocean_core.protocol.media import Encoding
from ocean_core.protocol.readings import DecodeContext, decode_batch, decode_single
from ocean_core.simulator.fleet import Fleet
from ocean_core.simulator.parcels import Parcel, Parcels
from ocean_core.simulator.plan import Faults, Form, Order, sensor_names, timing_of

NOW_US = 1_780_000_000_000_000
CONTEXT = DecodeContext(arrival_us=NOW_US, clock_trusted=False, body_bytes_max=1 << 24)


def parcels_of(order: Order) -> Parcels:
    timing = timing_of(order, NOW_US)
    fleet = Fleet(
        sensor_names('s"é-', order.sensors), order.metrics, seed=order.seed, faults=order.faults,
        timing=timing, now_us=NOW_US,
    )  # fmt: skip
    return Parcels(order, fleet, timing)


def all_of(order: Order) -> list[Parcel]:
    return list(iter(parcels_of(order).next, None))


def expand(body: bytes, encoding: Encoding) -> bytes:
    if encoding is Encoding.GZIP:
        return gzip.decompress(body)
    return zstd.decompress(body) if encoding is Encoding.ZSTD else body


def names(order: Order) -> Iterator[tuple[str, str]]:
    return itertools.product(sensor_names('s"é-', order.sensors), order.metrics)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("metrics", [("value",), ("temp", "humidity")], ids=["one", "two"])
@pytest.mark.parametrize("form", Form)
def test_the_server_reads_what_the_fleet_measured(
    form: Form, metrics: tuple[str, ...], encoding: Encoding
) -> None:
    order = Order(
        sensors=20, metrics=metrics, faults=Faults.MANY, form=form, encoding=encoding, batch=70,
        count=4_000, seconds=None,
    )  # fmt: skip
    series = list(names(order))
    kinds = set()
    for parcel in all_of(order):
        body = expand(parcel.body, encoding)
        if form is Form.SINGLE:
            intake = decode_single(body, CONTEXT)
        else:
            intake = decode_batch(body, CONTEXT, partial=False, media=form.media)
        readings = intake.readings
        assert readings is not None
        assert len(readings) == parcel.rows
        columns, rows = parcel.lot.columns, slice(parcel.start, parcel.stop)
        assert [readings.series[place] for place in readings.series_index] == [
            series[place] for place in columns.index[rows]
        ]
        assert list(readings.timestamp_us) == columns.timestamp_us[rows].tolist()
        assert list(readings.value) == columns.value[rows].tolist()
        first_us = int(columns.timestamp_us[parcel.start])
        kinds.add("1970" if first_us < 10**14 else "ahead" if first_us > NOW_US else "good")
    assert kinds == {"1970", "ahead", "good"}


@pytest.mark.parametrize("form", [Form.SINGLE, Form.ROWS])
def test_all_readings_are_in_one_request_each_and_as_many_as_asked_for(form: Form) -> None:
    order = Order(sensors=30, faults=Faults.MANY, form=form, count=50_001, seconds=None)
    made = all_of(order)
    assert sum(parcel.rows for parcel in made) == 50_001
    assert [parcel.number for parcel in made] == list(range(len(made)))
    for lot, group in itertools.groupby(made, key=lambda parcel: parcel.lot):
        bounds = [(parcel.start, parcel.stop) for parcel in group]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == lot.left == len(lot.columns.value)
        assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))


def test_the_form_does_not_change_what_is_measured() -> None:
    digests = set()
    for form in Form:
        total = 0
        rows = 0
        for parcel in all_of(
            Order(sensors=20, faults=Faults.NONE, form=form, count=2_000, seconds=None)
        ):
            columns, place = parcel.lot.columns, slice(parcel.start, parcel.stop)
            rows += parcel.rows
            total = add_digests(total, digest_of(columns.timestamp_us[place], columns.value[place]))
        digests.add((rows, total))
    assert len(digests) == 1


def test_batches_at_the_greatest_rate_are_full() -> None:
    parcels = parcels_of(Order(faults=Faults.NONE))
    rows = [parcel.rows for parcel in itertools.islice(iter(parcels.next, None), 300)]
    assert set(rows) == {1_000}


@pytest.mark.parametrize(
    ("rate", "rows"), [(3.0, 1), (100.0, 20), (2_000.0, 400), (1e6, 1_000)]
)  # fmt: skip
def test_at_a_low_rate_batches_are_smaller(rate: float, rows: int) -> None:
    order = Order(rate=rate)
    assert order.rows_per_request() == rows
    assert Order(rate=rate, batch=7).rows_per_request() == 7
    assert Order(rate=rate, form=Form.SINGLE).rows_per_request() == 1


@pytest.mark.parametrize("faults", [Faults.NONE, Faults.MANY])
def test_at_a_rate_readings_are_due_as_fast(faults: Faults) -> None:
    order = Order(sensors=50, rate=1_000, faults=faults)
    parcels = parcels_of(order)
    due, rows = [], 0
    while rows < 20_000:
        parcel = parcels.next()
        assert parcel is not None
        assert parcel.due_us >= NOW_US
        rows += parcel.rows
        due.append((parcel.due_us - NOW_US) / 1e6)
    share_silent = 0.0 if faults is Faults.NONE else 0.15
    assert 19.9 <= max(due) <= 20.1 / (1 - share_silent)
    # Never asked for long before others that were due earlier.
    assert max(earlier - later for earlier, later in itertools.pairwise(due)) < 0.5


def test_repeats_are_as_many_as_the_faults_say_and_need_keys() -> None:
    for faults, share in ((Faults.NONE, 0.0), (Faults.FEW, 0.005), (Faults.MANY, 0.05)):
        order = Order(faults=faults, form=Form.SINGLE, count=20_000, seconds=None)
        parcels = parcels_of(order)
        repeated = [parcels.is_repeated(parcel) for parcel in iter(parcels.next, None)]
        assert np.mean(repeated) == pytest.approx(share, rel=0.1)
    without = parcels_of(Order(faults=Faults.MANY, form=Form.SINGLE, count=500, keys=False))
    assert not any(without.is_repeated(parcel) for parcel in iter(without.next, None))
