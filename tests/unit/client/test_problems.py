"""Errors survive the way over HTTP: out of the server as a document, back as what they were."""

import json

import msgspec
import pytest

from ocean_core.client.problems import error_named, error_of
from ocean_core.model.errors import CommandError, FieldProblem, OceanError, UnknownUserError
from ocean_core.service.problems import STATUS, problem_of


@pytest.mark.parametrize("cls", STATUS, ids=lambda cls: cls.code)
def test_every_error_comes_back_as_it_went(cls: type[OceanError]) -> None:
    fields = (FieldProblem("name", "'x'", "another", item=3), FieldProblem("b", "1", "2"))
    sent = cls("what happened", hint="what to do", fields=fields)
    document = json.loads(msgspec.json.encode(problem_of(sent)))
    found = error_of(STATUS[cls], document, retry_after_s=4)
    assert type(found) is cls
    assert (found.detail, found.hint, found.fields) == (sent.detail, sent.hint, fields)
    assert found.retry_after_s == 4


def test_what_is_no_problem_document_is_told_as_it_came() -> None:
    found = error_of(502, "<html>Bad gateway</html>")
    assert isinstance(found, CommandError)
    assert found.detail == "the server answered 502: <html>Bad gateway</html>"


def test_the_code_of_a_newer_version_is_told() -> None:
    found = error_of(
        418, {"detail": "no tea", "code": "OC-8999", "hint": "Make some.", "errors": 5}
    )
    assert isinstance(found, CommandError)
    assert found.detail == "the server refused with OC-8999: no tea"
    assert found.hint == "Make some."


def test_an_error_told_in_words_gets_its_class() -> None:
    assert isinstance(error_named("OC-8001", "no user", ""), UnknownUserError)
    assert isinstance(error_named("OC-0000", "?", ""), CommandError)
