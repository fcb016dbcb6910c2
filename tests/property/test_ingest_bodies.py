"""Bodies of any form and compression: refused or taken, the same way on both threads."""

import gzip
from collections.abc import Callable
from functools import partial

import numpy as np
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.model.access import LOCAL
from ocean_core.model.errors import OceanError
from ocean_core.model.receipt import Intake
from ocean_core.protocol.media import Encoding, Media
from ocean_core.protocol.readings import DecodeContext
from ocean_core.protocol.readings.encode import (
    encode_block,
    encode_columnar,
    encode_ndjson,
    encode_rows,
)
from ocean_core.service.ingest_body import Form, Opening, Sent

NOW_US = 1_780_000_000_000_000
CONTEXT = DecodeContext(arrival_us=NOW_US, clock_trusted=True, body_bytes_max=400_000)
COMPRESS: dict[Encoding, Callable[[bytes], bytes]] = {
    Encoding.IDENTITY: bytes,
    Encoding.GZIP: lambda body: gzip.compress(body, mtime=0),
    Encoding.ZSTD: zstd.compress,
}


class Long(bytes):
    """A body that is not shown whole when it makes a test fail."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, {bytes(self[:200])!r}>"


forms = st.sampled_from(Form)
media = st.sampled_from(Media)
encodings = st.sampled_from(Encoding)


@st.composite
def readings(draw: st.DrawFn) -> Long:
    """Readings in one of the forms; some too many to be taken at once, or at all."""
    count = draw(st.sampled_from([1, 15, 16, 300, 2_000, 7_000]))
    index = np.arange(count, dtype=np.uint32) % 3
    value = np.full(count, draw(st.floats(allow_nan=False, allow_infinity=False)))
    # Some of them may be from the future, or older than any clock should say.
    moments = draw(st.sampled_from([0, NOW_US, NOW_US + 10**9])) + np.arange(count)
    encode = draw(st.sampled_from([encode_rows, encode_columnar, encode_ndjson, encode_block]))
    return Long(encode(["a", "b", "é"], index, moments, value))


@st.composite
def damaged(draw: st.DrawFn) -> Long:
    """Readings with some bytes changed, cut off or added."""
    body = bytearray(draw(readings()))
    for _ in range(draw(st.integers(0, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.none() | st.integers(0, len(body)))
    return Long(body[:cut] + draw(st.binary(max_size=4)))


bodies = damaged() | readings() | st.binary(max_size=200)


def outcome(opened: Callable[[], Intake | None]) -> object:
    """Everything that a client or the journal can see of an opened body."""
    try:
        intake = opened()
    except OceanError as error:
        return type(error), error.detail, error.fields
    if intake is None:
        return None
    rows = [
        [list(columns.series), *(list(map(repr, column)) for column in (
            columns.series_index, columns.timestamp_us, columns.quality,
        ))]
        for columns in (intake.readings, intake.events) if columns is not None
    ]  # fmt: skip
    values = None if intake.readings is None else list(map(repr, intake.readings.value))
    return rows, values, intake.items, intake.layout, intake.rejects, intake.columnar


@settings(deadline=None)
@given(forms, media, encodings, st.binary(max_size=300) | bodies)
def test_any_bytes_are_an_intake_or_a_refusal(
    form: Form, kind: Media, encoding: Encoding, body: bytes
) -> None:
    body = bytes(body)
    for sent in (body, COMPRESS[encoding](body)):
        opening = Opening(form, Sent(kind, encoding, "k"), CONTEXT)
        whole = outcome(partial(opening.wholly, sent))
        at_once = Opening(form, Sent(kind, encoding, "k"), CONTEXT)
        quick = outcome(partial(at_once.quickly, sent))
        assert quick in (None, whole)
        if quick is not None:
            assert at_once.idempotency(LOCAL) == opening.idempotency(LOCAL)
            assert at_once.sensors == opening.sensors


@settings(deadline=None)
@given(forms, media, bodies)
def test_compression_changes_nothing(form: Form, kind: Media, body: bytes) -> None:
    body = bytes(body)
    found = []
    for encoding, compress in COMPRESS.items():
        opening = Opening(form, Sent(kind, encoding, "k"), CONTEXT)
        found.append(
            (
                outcome(partial(opening.wholly, compress(body))),
                opening.idempotency(LOCAL),
                opening.sensor_id,
                opening.sensors,
            )
        )
    plain, *others = found
    # Too large is found out earlier: before there is a digest.
    if len(body) <= CONTEXT.body_bytes_max:
        assert all(other == plain for other in others)
    else:
        assert all(other[0] is not None for other in others)
