"""Ranges of ids behave as plain sets of numbers do, whatever is done to them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ocean_core.buffer.port import IdRange
from ocean_core.buffer.ranges import GroupMarks, IdRanges

TOP = 60
ids = st.lists(st.integers(1, TOP), max_size=40)
spans = st.tuples(st.integers(1, TOP), st.integers(1, TOP)).map(lambda pair: tuple(sorted(pair)))
places = st.integers(1, TOP)
NOTHING = IdRanges()


def members(ranges: IdRanges) -> set[int]:
    return {id_ for item in ranges for id_ in range(item.first, item.last + 1)}


def check_form(ranges: IdRanges) -> None:
    """Each range is one, and two never touch."""
    found = list(ranges)
    assert all(item.first <= item.last for item in found)
    assert all(one.last + 1 < two.first for one, two in pairwise(found))
    assert len(ranges) == len(found)
    assert ranges.count == len(members(ranges))


@given(ids, ids, ids)
def test_union(one: list[int], two: list[int], three: list[int]) -> None:
    sets = [IdRanges.of_ids(numbers) for numbers in (one, two, three)]
    for made, numbers in zip(sets, (one, two, three), strict=True):
        assert members(made) == set(numbers)
        check_form(made)
    together = sets[0].union(*sets[1:])
    assert members(together) == {*one, *two, *three}
    check_form(together)


@given(st.lists(spans, max_size=10))
def test_of_overlapping_ranges(pairs: list[tuple[int, int]]) -> None:
    made = IdRanges.of_ranges(IdRange(*pair) for pair in pairs)
    check_form(made)
    assert members(made) == {id_ for a, b in pairs for id_ in range(a, b + 1)}


@given(ids, spans, places)
def test_parts(numbers: list[int], span: tuple[int, int], place: int) -> None:
    made = IdRanges.of_ids(numbers)
    inside = set(range(span[0], span[1] + 1))
    assert members(made.within(*span)) == set(numbers) & inside
    assert members(made.gaps(*span)) == inside - set(numbers)
    assert made.next_gap(place) == min(set(range(place, TOP + 2)) - set(numbers))
    check_form(made.within(*span))
    check_form(made.gaps(*span))
    assert made.gaps(span[1] + 1, span[0]).count == 0


@given(ids, ids)
def test_the_rows_that_differ(one: list[int], two: list[int]) -> None:
    """Deleting and writing just those makes one table the other."""
    old, new = IdRanges.of_ids(one), IdRanges.of_ids(two)
    table = {item.first: item.last for item in old}
    for item in old.without(new):
        del table[item.first]
    table |= {item.first: item.last for item in new.without(old)}
    assert table == {item.first: item.last for item in new}


class Model:
    """Marks as a set of ids: all up to the cursor, and those ahead."""

    def __init__(self, trimmed: int) -> None:
        self.read = set(range(1, trimmed + 1))
        self.evicted = 0
        self.trimmed = trimmed
        self.gone: set[int] = set()

    def cursor(self) -> int:
        passed = self.read | self.gone
        return next(id_ for id_ in range(TOP + 2) if id_ + 1 not in passed)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), ids),
        st.tuples(st.just("trim"), st.lists(places, min_size=1, max_size=1)),
        st.tuples(st.just("lose"), st.lists(places, max_size=4)),
    ),
    max_size=12,
)


@given(st.integers(0, 10), steps)
def test_marks_of_a_group(trimmed: int, todo: list[tuple[str, list[int]]]) -> None:
    marks, model = GroupMarks(7, trimmed), Model(trimmed)
    for what, numbers in todo:
        # What is lost is no longer handed out; ids may be acknowledged all the same.
        if what == "lose":
            model.gone |= set(numbers)
            continue
        gone = IdRanges.of_ids(sorted(model.gone))
        if what == "read":
            before = marks.cursor
            marks, newly = marks.acknowledge(IdRanges.of_ids(numbers), gone)
            new = {id_ for id_ in numbers if id_ > before} - model.read
            assert newly == len(new)
            model.read |= new
        else:
            before = marks.cursor
            marks, lost = marks.evict(numbers[0], gone)
            below = set(range(before + 1, numbers[0] + 1))
            assert lost == len(below - model.read - model.gone)
            model.evicted += lost
            model.read |= set(range(1, max(before, numbers[0]) + 1))
        model.read |= set(range(1, marks.cursor + 1))
        assert marks.cursor == model.cursor()
        assert members(marks.ahead) == {id_ for id_ in model.read if id_ > marks.cursor}
        assert marks.evicted == model.evicted
        assert marks.created_us == 7
        check_form(marks.ahead)
        assert members(marks.unread(1, TOP)) == set(range(1, TOP + 1)) - model.read
        assert marks.next_unread(1) == min(set(range(1, TOP + 2)) - model.read)
        assert marks.last_id == max(model.read, default=marks.cursor)


def test_large_ids() -> None:
    top = 2**53 - 1
    made = IdRanges.of_ids([top, 1, top - 1])
    assert list(made) == [IdRange(1, 1), IdRange(top - 1, top)]
    assert GroupMarks(0, top).next_unread(1) == top + 1
    assert NOTHING.count == 0
