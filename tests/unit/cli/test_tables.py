"""Lists for people: they fit, what is copied stays whole, and nothing steers the terminal."""

import pytest

from ocean_core.cli.tables import counted, moment, print_table, record_lines, shown, table_lines

ROWS = [("u" * 36, "ada", "ada.lovelace@analytical-engines.example"), ("id", "b" * 60, "x@y")]


def test_columns_fit_and_the_first_is_whole() -> None:
    lines = table_lines(("ID", "NAME", "EMAIL"), ROWS, 80)
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("u" * 36 + "  ")
    assert "…" in lines[2]


def test_without_a_terminal_nothing_is_cut() -> None:
    lines = table_lines(("ID", "NAME", "EMAIL"), ROWS, None)
    assert "b" * 60 in lines[2]
    assert lines[0].split() == ["ID", "NAME", "EMAIL"]


def test_too_narrow_a_terminal_still_shows_something_of_each() -> None:
    lines = table_lines(("ID", "NAME", "EMAIL"), ROWS, 10)
    assert lines[1] == "u" * 36 + "  ada     ada.l…"


def test_an_empty_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [], "There is nothing.")
    assert capsys.readouterr().out == "There is nothing.\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), ({}, "-"), (True, "yes"), (False, "no"), (1234567, "1,234,567"),
        (0.5, "0.5"), (["a", "b"], "a, b"), ({"site": "north"}, "site=north"),
        ("a\x1b[2Jb\nc\u202ed", "a�[2Jb�c�d"), ("°C µ 漢", "°C µ 漢"),
    ],
    ids=repr,
)  # fmt: skip
def test_values_as_people_read_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_moments_are_to_the_second_and_one_is_no_plural() -> None:
    assert moment("2026-01-17T00:00:00.123456Z") == "2026-01-17T00:00:00Z"
    assert moment("2026-01-17T00:00:00Z") == "2026-01-17T00:00:00Z"
    assert moment(None) is None
    assert [counted(number, "key") for number in (0, 1, 1200)] == ["0 keys", "1 key", "1,200 keys"]


def test_a_record_is_one_line_per_field() -> None:
    assert record_lines({"id": "a", "updated_at": None}) == ["id          a", "updated_at  -"]
