"""The memory of frames: exact, whatever the order; bounded; and gone in time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.protocol.nanogridata.replay import BUCKET_S, FrameMemory, Seen, id_column


def memory(frames_max: int = 1_000_000) -> FrameMemory:
    return FrameMemory(frames_max, lambda count: b"\x35" * count)


def columns(*keys: int, at: int | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return ids and header times; equal keys have equal times, as in life."""
    ids = id_column(b"".join(key.to_bytes(8, "little") * 2 for key in keys))
    times = [1_000 + key % 23 if at is None else at for key in keys]
    return ids, np.array(times, dtype=np.int64)


def reserve(ours: FrameMemory, keys: list[int]) -> list[int]:
    """Reserve many at once, or one by one: it must be the same."""
    if len(keys) % 2:
        return [int(state) for state in ours.reserve(*columns(*keys))]
    return [ours.reserve_one(key.to_bytes(8, "little") * 2, 1_000 + key % 23) for key in keys]


KEYS = st.lists(st.integers(0, 60), min_size=1, max_size=40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), KEYS),
        st.tuples(st.sampled_from([Seen.STORED, Seen.REFUSED, Seen.RELEASED]), KEYS),
    ),
    max_size=30,
)


@given(STEPS)
def test_it_says_what_a_dictionary_would(steps: list[tuple[object, list[int]]]) -> None:
    ours, model = memory(), dict[int, Seen]()
    for what, keys in steps:
        if what == "reserve":
            expected = []
            for key in keys:
                known = model.get(key, Seen.RELEASED)
                expected.append(Seen.NEW if known is Seen.RELEASED else known)
                if known is Seen.RELEASED:
                    model[key] = Seen.RESERVED
            assert reserve(ours, keys) == expected
        else:
            assert isinstance(what, Seen)
            ids, times = columns(*keys)
            ours.mark(ids, times, what)
            model.update({key: what for key in keys if key in model})
        looked = ours.look(*columns(*range(61))).tolist()
        assert looked == [
            Seen.NEW if model.get(key) in {None, Seen.RELEASED} else model[key] for key in range(61)
        ]
    assert len(ours) == len(model)


def test_tables_grow_without_losing_anything() -> None:
    ours = memory()
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 2**64, (300_000, 2), dtype=np.uint64)
    times = np.full(len(ids), 5_000)
    for start in range(0, len(ids), 7_000):
        some = slice(start, start + 7_000)
        assert not ours.reserve(ids[some], times[some]).any()
        ours.mark(ids[some], times[some], Seen.STORED)
    assert len(ours) == len(ids)
    assert (ours.look(ids, times) == Seen.STORED).all()


def test_the_oldest_are_forgotten_first_and_counted() -> None:
    ours = memory(frames_max=250)
    for bucket in range(4):
        ours.load(*columns(*range(bucket * 100, bucket * 100 + 100), at=bucket * BUCKET_S))
    assert ours.forgotten == 200
    assert len(ours) == 200
    assert not ours.look(*columns(*range(100), at=0)).any()
    assert (ours.look(*columns(*range(300, 400), at=3 * BUCKET_S)) == Seen.STORED).all()


def test_what_comes_late_is_remembered_as_what_is_new() -> None:
    ours = memory(frames_max=800)
    ours.load(*columns(*range(800), at=5_000))
    late = columns(*range(1_000, 1_050), at=100)
    ours.load(*late)
    assert ours.forgotten
    assert (ours.look(*late) == Seen.STORED).all()


def test_what_is_on_its_way_stays_however_many_there_are() -> None:
    ours = memory(frames_max=100)
    ours.reserve(*columns(*range(90), at=5_000))
    ids = columns(*range(1_000, 1_200), at=5_000)
    ours.reserve(*ids)
    assert (ours.look(*ids) == Seen.RESERVED).all()


def test_frames_are_forgotten_once_their_time_alone_refuses_them() -> None:
    ours = memory()
    ours.load(*columns(1, at=999))
    ours.load(*columns(2, at=1_000))
    ours.expire(1_000)
    assert ours.look(*columns(1, at=999)).tolist() == [Seen.NEW]
    assert ours.look(*columns(2, at=1_000)).tolist() == [Seen.STORED]
    assert len(ours) == 1


def test_what_was_stored_before_stays_stored_when_loaded_twice() -> None:
    ours = memory()
    ours.load(*columns(1, 2, 1))
    ours.load(*columns(2, 3))
    assert ours.look(*columns(1, 2, 3)).tolist() == [Seen.STORED] * 3
    assert len(ours) == 3


@pytest.mark.parametrize("same", ["first", "second"])
def test_half_an_identity_is_not_enough(same: str) -> None:
    ours = memory()
    one, other = (b"a" * 8, b"b" * 8), (b"a" * 8, b"c" * 8)
    if same == "second":
        one, other = one[::-1], other[::-1]
    times = np.array([1_000])
    ours.reserve(id_column(b"".join(one)), times)
    assert ours.reserve_one(b"".join(one), 1_000) is Seen.RESERVED
    assert ours.reserve_one(b"".join(one)[::-1], 1_000) is Seen.NEW
    assert ours.reserve(id_column(b"".join(other)), times).tolist() == [Seen.NEW]
