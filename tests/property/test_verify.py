"""Whatever came, was renamed, forgotten or lost: verify says equal, until a row is tampered with."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocean_core.buffer.port import IdRange
from ocean_core.model.naming import NameRule
from ocean_core.service.queries import expected
from ocean_core.service.queries.matching import Rows, match
from support.analytics import START_US
from support.renaming import forget, rename
from support.verifying import DIFFERENCES, FakeJournal, VerifyLab, differences

NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
numbers = st.floats(allow_nan=False, allow_infinity=False)
readings = st.tuples(
    st.just("readings"),
    st.lists(
        st.tuples(
            st.tuples(names, st.sampled_from(["value", "rpm"])),
            st.integers(START_US, START_US + 10**10),
            numbers,
            st.sampled_from([0, 1, 2]),
        ),
        min_size=1,
        max_size=12,
    ),
)
events = st.tuples(
    st.just("events"),
    names,
    st.lists(st.text(max_size=5).map(lambda t: t.encode()), min_size=1, max_size=4),
)
steps = st.lists(
    readings
    | readings
    | events
    | st.tuples(st.just("rename"), names, names)
    | st.tuples(st.just("forget"), names, st.integers(0, 60))
    | st.tuples(st.sampled_from(["move", "follow", "lose"])),
    min_size=4,
    max_size=20,
)


def play(lab: VerifyLab, made: Sequence[tuple[Any, ...]]) -> None:
    rules: list[NameRule] = []
    for step in made:
        match step:
            case ("readings", rows):
                lab.journal.add_rows(rows)
            case ("events", name, payloads):
                lab.journal.add_events(name, payloads)
            case ("rename", old, new):
                rules.append(rename(len(rules) + 1, old, new))
            case ("forget", name, up_to):
                rules.append(forget(len(rules) + 1, name, min(up_to, lab.journal.last_id())))
            case ("move",):
                lab.move()
            case ("follow",):
                lab.follow(*rules)
            case ("lose",):
                if len(lab.journal.blocks) > 1:
                    # The last one tells where the journal ends.
                    lost = lab.journal.blocks.pop(0)
                    lab.journal.missing.append(IdRange(lost.first_id, lost.last_id))
    lab.follow(*rules)
    lab.move()


@settings(max_examples=25, deadline=None)
@given(steps, st.integers(1, 20), st.randoms(use_true_random=False))
def test_verify_says_equal_until_somebody_tampers(
    made: list[tuple[Any, ...]], chunk: int, random: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(expected, "CHUNK_ROWS", chunk):
        lab = VerifyLab(Path(folder), FakeJournal())
        play(lab, made)
        found = lab.verify()
        assert [differences(step) for step in found] == [{}] * len(found)
        assert found[-1]["totals"]["differing"] == 0
        held = sum(block.count for block in lab.journal.blocks)
        forgotten = sum(step["forgotten"] for step in found)
        assert sum(step["equal"] for step in found) == held - forgotten
        assert sum(step["missing"] for step in found) == lab.journal.last_id() - held
        assert sum(step["damaged"] + step["trimmed"] for step in found) == 0
        # What the journal has lost may still be in analytics.
        whole = [step for step in found if not step["missing"]]
        assert all(step["digest_journal"] == step["digest_analytics"] for step in whole)
        assert lab.told == []
        ids = [row[0] for row in lab.store.cursor().execute("SELECT id FROM readings").fetchall()]
        ids = [
            number
            for number in ids
            if any(b.first_id <= number <= b.last_id for b in lab.journal.blocks)
        ]
        if ids:
            one = random.choice(ids)
            lab.break_it(f"DELETE FROM readings WHERE id = {one}")
            broken = [differences(step) for step in lab.verify()]
            assert [entry for entry in broken if entry] == [{"absent": 1}]
            assert len(lab.told) >= 1
        lab.close()


rows = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 2), st.integers(0, 1)), max_size=12)


def columns(entries: Sequence[tuple[int, int, int]]) -> Rows:
    numbers = np.array(entries, dtype=np.int64).reshape(-1, 3)
    return Rows(
        numbers[:, 0], numbers[:, 1].astype(np.int32), numbers[:, 2], numbers[:, 2],
        numbers[:, 2].astype(np.uint8),
    )  # fmt: skip


@pytest.mark.filterwarnings("error")
@given(rows, rows)
def test_a_match_accounts_for_every_row(
    must: list[tuple[int, int, int]], there: list[tuple[int, int, int]]
) -> None:
    wanted = dict(sorted({entry[0]: entry for entry in must}.items()))
    found = match(columns(list(wanted.values())), columns(there))
    first: dict[int, tuple[int, int, int]] = {}
    for entry in there:
        first.setdefault(entry[0], entry)
    counts = {name: sorted(getattr(found, name).id.tolist()) for name in DIFFERENCES}
    ids = [entry[0] for entry in there]
    assert found.equal == sum(first.get(number) == entry for number, entry in wanted.items())
    assert counts["absent"] == sorted(wanted.keys() - first.keys())
    assert counts["surplus"] == sorted(first.keys() - wanted.keys())
    assert counts["changed"] == [n for n in wanted if n in first and first[n] != wanted[n]]
    assert counts["doubled"] == sorted(n for n in first for _ in range(ids.count(n) - 1))
