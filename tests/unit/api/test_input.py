"""What is wrong in a body is told in the words of JSON, with its place and what would be right."""

from typing import Any

import msgspec
import pytest

from ocean_core.api.controllers.groups import _MARKS
from ocean_core.api.controllers.metadata import MetadataValue
from ocean_core.api.input import decode_body
from ocean_core.model.errors import FieldProblem, InvalidInputError, MalformedBodyError
from ocean_core.service.accounts.keys import NewKey
from ocean_core.service.accounts.sensors import SensorChange
from ocean_core.service.accounts.users import NewUser, UserChange

SCOPES = "one of ingest, read, admin"


def refusal(raw: bytes, kind: type[Any], **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        decode_body(raw, kind, **options)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "raw", "field", "found", "expected"),
    [
        (SensorChange, b'{"name":"x"}', "name", "name", "display_name, unit, tags, note"),
        (SensorChange, b'{"tags":{"a":"x","b":1}}', "tags.b", "a whole number", "text"),
        (SensorChange, b'{"tags":[1]}', "tags", "a list", "an object or null"),
        (NewUser, b"{}", "username", "nothing", "text"),
        (NewUser, b"[]", "body", "a list", "an object"),
        (NewUser, b'{"username":true}', "username", "true or false", "text"),
        (NewKey, b'{"name":"x"}', "scopes", "nothing", "a list"),
        (NewKey, b'{"name":"x","scopes":["all"]}', "scopes[0]", '"all"', SCOPES),
        (NewKey, b'{"rate":1.5}', "rate", "a number", "a whole number or null"),
        (UserChange, b'{"status":"on"}', "status", '"on"', "one of active, disabled"),
        (MetadataValue, b"{}", "value", "nothing", "a value"),
        (MetadataValue, b'{"value":1,"ttl_s":1e999}', "ttl_s", "number out of range", "a number"),
        (_MARKS, b'["x"]', "[0]", "text", "a whole number"),
        (_MARKS, b"5", "body", "a whole number", "an object or a list"),
        (_MARKS, b"[99999999999999999999]", "[0]", "another value", "a whole number <= 9007199254740991"),
        (_MARKS, b'{"id":[1]}', "id", "id", "ids, group"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    kind: type[Any], raw: bytes, field: str, found: str, expected: str
) -> None:
    error = refusal(raw, kind)
    assert error.fields == (FieldProblem(field, found, expected),)
    assert error.hint == InvalidInputError.hint


def test_the_sentence_says_the_same() -> None:
    assert refusal(b'{"name":1}', SensorChange).detail == (
        "`name` is not known here; known are display_name, unit, tags, note."
    )
    assert refusal(b"{}", NewUser).detail == "username: found nothing, expected text."


def test_names_that_would_steer_a_terminal_are_shown_harmless() -> None:
    error = refusal(b'{"a\\u001b[2J":1}', NewUser)
    assert error.fields[0].field == "a\\u001b[2J"
    assert "\x1b" not in error.detail


@pytest.mark.parametrize("raw", [b'{"team":"B"}', b"{}", b'"B"', b"[1]"])
def test_a_value_without_its_wrapper_is_told_to_be_wrapped(raw: bytes) -> None:
    assert refusal(raw, MetadataValue, wrapper="value").hint == 'Wrap it: {"value": …}'


def test_a_wrapped_value_is_not() -> None:
    error = refusal(b'{"value":1,"ttl_s":"x"}', MetadataValue, wrapper="value")
    assert error.hint == InvalidInputError.hint


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (NewUser, "Send one JSON object with username, email, password."),
        (_MARKS, "Send a list, or one JSON object with ids, group."),
    ],
)
@pytest.mark.parametrize("raw", [b"{", b"", b"\xff", b'{"\xff":1}', b'{"username":' + b"[" * 5000])
def test_what_is_no_json_is_told(kind: type[Any], told: str, raw: bytes) -> None:
    with pytest.raises((MalformedBodyError, InvalidInputError)) as caught:
        decode_body(raw, kind)
    assert caught.value.hint in {told, InvalidInputError.hint}


def test_every_type_of_a_body_has_a_word() -> None:
    class Odd(msgspec.Struct):
        at: dict[str, list[float]]

    assert refusal(b'{"at":{"x":[1,"a"]}}', Odd).fields[0].field == "at[1]"
    assert refusal(b"{}", Odd).fields[0].expected == "an object"
