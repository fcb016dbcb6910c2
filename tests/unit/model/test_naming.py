"""What rules about names say, on their own."""

import pytest

from ocean_core.model.naming import NO_RULES, NameRule, Names
from support.renaming import forget, rename


def test_without_rules_every_name_is_its_own() -> None:
    assert NO_RULES.shown("a") == NO_RULES.asked("a") == Names([]).shown("a") == "a"
    assert Names([]).stored("a") == ("a",)
    assert list(NO_RULES.forgotten("a")) == []
    assert (NO_RULES.renames, NO_RULES.forgets_up_to, NO_RULES.last_rule) == (False, 0, 0)


def test_a_chain_leads_to_its_end_and_back_to_all_old_names() -> None:
    rules = [rename(1, "a", "b"), rename(2, "b", "c")]
    assert [Names(rules).shown(name) for name in "abcd"] == ["c", "c", "c", "d"]
    assert Names(rules).stored("c") == ("a", "b", "c")
    assert Names(rules).stored("a") == ()
    assert Names(rules).last_rule == 2


def test_a_rename_of_an_old_name_meets_nothing() -> None:
    rules = [rename(1, "a", "b"), rename(2, "a", "c")]
    assert Names(rules).shown("a") == "b"
    assert Names(rules).shown("b") == "b"


def test_names_that_are_taken_back() -> None:
    rules = [rename(1, "a", "b"), rename(2, "b", "a")]
    assert Names(rules).shown("a") == Names(rules).shown("b") == "a"
    assert Names(rules).asked("b") == "a"


def test_two_sensors_that_swap_their_names() -> None:
    names = Names([rename(1, "a", "x"), rename(2, "b", "a"), rename(3, "x", "b")])
    assert (names.shown("a"), names.shown("b")) == ("b", "a")
    # What is asked for is what is shown.
    assert (names.asked("a"), names.asked("b"), names.asked("x")) == ("a", "b", "b")


def test_a_name_that_was_given_to_another_sensor_means_that_one() -> None:
    names = Names([rename(1, "a", "b"), rename(2, "c", "a")])
    assert names.shown("a") == "b"
    assert names.asked("a") == "a"


@pytest.mark.parametrize(
    ("rules", "stored", "spans"),
    [
        ([forget(1, "a", 10)], "a", [(10, 1)]),
        ([forget(1, "a", 10)], "b", []),
        # A second rule that reaches no further makes nothing vanish.
        ([forget(1, "a", 10), forget(2, "a", 9), forget(3, "a", 12)], "a", [(10, 1), (12, 3)]),
        # The name counts that was shown at the time.
        ([rename(1, "a", "b"), forget(2, "b", 10)], "a", [(10, 2)]),
        ([rename(1, "a", "b"), forget(2, "b", 10)], "b", [(10, 2)]),
        ([forget(1, "b", 10), rename(2, "a", "b")], "a", []),
        ([rename(1, "a", "b"), forget(2, "a", 10)], "a", []),
        ([forget(1, "a", 5), rename(2, "a", "b"), forget(3, "b", 7)], "a", [(5, 1), (7, 3)]),
    ],
)
def test_what_is_forgotten(
    rules: list[NameRule], stored: str, spans: list[tuple[int, int]]
) -> None:
    assert list(Names(rules).forgotten(stored)) == spans


def test_many_rules_take_little_time_and_no_deep_stack() -> None:
    rules = [rename(k, f"s{k}", f"s{k + 1}") for k in range(1, 5_000)]
    rules += [forget(k, "s5000", k) for k in range(5_000, 10_001)]
    names = Names(rules)
    assert names.shown("s1") == "s5000"
    assert sum(1 for _ in names.forgotten("s1")) == 5_001
