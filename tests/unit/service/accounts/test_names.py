"""Usernames and email addresses: what is taken, what is refused, what is the same."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.model.errors import InvalidInputError
from ocean_core.service.accounts.names import check_email, check_username, find_key, folded


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("anna", "anna"),
        ("Anna Maria", "Anna Maria"),
        ("a", "a"),
        ("o'neil <admin>", "o'neil <admin>"),
        ("Robert'); DROP TABLE users;--", "Robert'); DROP TABLE users;--"),
        ("Jose\u0301", "Jos\u00e9"),
        ("\u5f20\u4f1f", "\u5f20\u4f1f"),
        ("x" * 128, "x" * 128),
        ("\u00e9" * 64, "\u00e9" * 64),
    ],
)
def test_username_is_kept_in_nfc(given_text: str, kept: str) -> None:
    assert check_username(given_text)[0] == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna", "anna"),
        ("ANNA", "anna"),
        ("\uff21\uff4e\uff4e\uff41", "anna"),  # full width
        ("o\ufb03ce", "office"),  # ligature
        ("Stra\u00dfe", "STRASSE"),
        ("\u212b", "\u00e5"),  # angstrom sign
        ("Jose\u0301", "JOS\u00c9"),
        (
            "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
            "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3",
        ),
        ("\u2460", "1"),
        ("\u1e9e", "ss"),
        ("\u0345\u0399"[1:], "\u03b9"),
    ],
)
def test_usernames_that_are_the_same(one: str, other: str) -> None:
    assert check_username(one)[1] == check_username(other)[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("anna", "\u0430nna"), ("anna", "anna1"), ("a b", "ab"), ("l", "1"), ("\u0131", "i")],
)
def test_usernames_that_are_different(one: str, other: str) -> None:
    assert check_username(one)[1] != check_username(other)[1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        (" anna", "a space at an end"),
        ("anna ", "a space at an end"),
        ("anna  b", "two spaces in a row"),
        ("\u00e9 ", "a space at an end"),
        ("\u00e9  b", "two spaces in a row"),
        (" ", "a space at an end"),
        ("x" * 129, "129 characters"),
        ("\u00e9" * 65, "130 bytes"),
        ("an\x00na", "a control character, U+0000, at position 3"),
        ("an\nna", "a control character, U+000A, at position 3"),
        ("anna\x7f", "a control character, U+007F, at position 5"),
        ("an\x85na", "a control character, U+0085, at position 3"),
        ("an\u00a0na", "a space other than the plain one, U+00A0, at position 3"),
        ("an\u3000na", "a space other than the plain one, U+3000, at position 3"),
        ("an\u00adna", "a format character, U+00AD, at position 3"),
        ("an\u200bna", "a format character, U+200B, at position 3"),
        ("an\u200dna", "a format character, U+200D, at position 3"),
        ("\u202eanna", "a format character, U+202E, at position 1"),
        ("an\u2066na", "a format character, U+2066, at position 3"),
        ("\ufeffanna", "a format character, U+FEFF, at position 1"),
        ("anna\U000e0041", "a format character, U+E0041, at position 5"),
        ("an\u2028na", "a line separator, U+2028, at position 3"),
        ("an\u2029na", "a paragraph separator, U+2029, at position 3"),
        ("an\ud800na", "a surrogate, U+D800, at position 3"),
        ("an\ue000na", "a private-use character, U+E000, at position 3"),
        ("an\u0378na", "an unassigned character, U+0378, at position 3"),
        ("an\uffffna", "an unassigned character, U+FFFF, at position 3"),
        ("an\u3164na", "an invisible character, U+3164, at position 3"),
        ("an\uffa0na", "an invisible character, U+FFA0, at position 3"),
        ("an\u034fna", "an invisible character, U+034F, at position 3"),
        ("anna\ufe0f", "an invisible character, U+FE0F, at position 5"),
        ("\u0301anna", "U+0301 as the first character"),
    ],
)
def test_username_is_refused_with_the_reason(text: str, found: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_username(text)
    (problem,) = caught.value.fields
    assert (problem.field, problem.found) == ("username", found)
    assert problem.expected


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("anna@plant.example", "anna@plant.example"),
        ("Anna@Plant.EXAMPLE", "Anna@plant.example"),
        ("a.b+c=d@x-y.example", "a.b+c=d@x-y.example"),
        ("anna@plant", "anna@plant"),
        ("anna@B\u00dcCHER.example", "anna@b\u00fccher.example"),
        ("jose\u0301@plant.example", "jos\u00e9@plant.example"),
        ("a" * 64 + "@plant.example", "a" * 64 + "@plant.example"),
        ("a@" + ".".join(["b" * 61] * 4), "a@" + ".".join(["b" * 61] * 4)),
    ],
)
def test_email_is_kept_with_its_domain_in_lower_case(given_text: str, kept: str) -> None:
    assert check_email(given_text)[0] == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("anna@plant.example", "ANNA@PLANT.example"),
        ("anna@b\u00fccher.example", "anna@xn--bcher-kva.example"),
        ("anna@b\u00fccher.example", "anna@BU\u0308CHER.example"),
        ("stra\u00dfe@plant.example", "STRASSE@plant.example"),
        ("\uff41nna@plant.example", "anna@plant.example"),
    ],
)
def test_emails_that_are_the_same(one: str, other: str) -> None:
    assert check_email(one)[1] == check_email(other)[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a",
        "anna",
        "anna@",
        "@plant.example",
        "a@b@c",
        "anna@plant..example",
        "anna@.example",
        "anna@plant.example.",
        "anna@-plant.example",
        "anna@plant-.example",
        "anna@pl_ant.example",
        "anna@[10.0.0.1]",
        "anna@10.0.0.1",
        "anna@plant.example\n",
        "anna\x00@plant.example",
        "anna @plant.example",
        "an na@plant.example",
        "anna@pl ant.example",
        ".anna@plant.example",
        "anna.@plant.example",
        "an..na@plant.example",
        '"an na"@plant.example',
        "anna(x)@plant.example",
        "anna<x@plant.example",
        "a\uff20b@plant.example",  # folds to a second @
        "a\uff1bb@plant.example",  # folds to ;
        "anna@plant\u3002example",  # the codec's other full stop
        "anna@pl\u00adant.example",
        "anna@plant.example\u202e",
        "an\u200bna@plant.example",
        "anna@" + "b" * 64 + ".example",
        "anna@" + "\u00fc" * 60 + ".example",
        "a" * 65 + "@plant.example",
        "a@" + "b" * 253,
        "a@" + ".".join(["\u00fc"] * 80),  # its ASCII form is too long
        "a@" + "b." * 200 + "example",
        "\ud800@plant.example",
    ],
)
def test_email_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_email(text)
    (problem,) = caught.value.fields
    assert problem.field == "email"
    assert problem.found
    assert problem.expected


def test_key_of_every_allowed_character_is_the_key_of_its_own_variants() -> None:
    for point in range(sys.maxunicode + 1):
        letter = chr(point)
        try:
            name, key = check_username("x" + letter + "x")
        except InvalidInputError:
            continue
        assert folded(key) == key, f"U+{point:04X}"
        for variant in (letter.upper(), letter.lower(), unicodedata.normalize("NFKC", letter)):
            assert folded("x" + variant + "x") == key or "\u0131" in variant + letter, hex(point)
        assert unicodedata.normalize("NFC", name) == name


@given(st.text(max_size=140))
def test_whatever_comes_is_taken_or_refused(text: str) -> None:
    for check in (check_username, check_email):
        try:
            kept, key = check(text)
        except InvalidInputError:
            continue
        assert check(kept) == (kept, key)
        assert kept.isprintable()
        key.encode()


def test_login_names_are_looked_up_as_they_are_kept() -> None:
    assert find_key("ANNA", is_email=False) == check_username("anna")[1]
    assert find_key("Anna@PLANT.example", is_email=True) == check_email("anna@plant.example")[1]
    assert find_key("\u202eanna", is_email=False) is None
    assert find_key("anna", is_email=True) is None
