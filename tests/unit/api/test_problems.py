"""Errors become HTTP in one place."""

import json

import pytest
from litestar.exceptions import MethodNotAllowedException
from litestar.testing import RequestFactory

from ocean_core.api.problems import ErrorHandlers, response_of
from ocean_core.model import errors
from ocean_core.model.errors import ContentTypeError, FieldProblem, OceanError, all_error_classes
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.media import media_of
from ocean_core.service.problems import STATUS


@pytest.mark.parametrize("cls", all_error_classes())
def test_every_error_but_those_of_start_and_commands_has_a_status(cls: type[OceanError]) -> None:
    stays_inside = cls.code.startswith(("OC-1", "OC-7")) or cls is errors.StoreVersionError
    assert (cls in STATUS) != stays_inside


def test_a_problem_document_has_code_hint_and_fields() -> None:
    error = errors.DiskFullError(
        "no space", fields=(FieldProblem("f", "x", "y", 2),), retry_after_s=5
    )
    answer = response_of(error)
    assert (answer.status_code, answer.headers["Retry-After"]) == (507, "5")
    assert json.loads(answer.content) == {
        "type": "urn:ocean:error:OC-4001",
        "title": "The disk is full",
        "status": 507,
        "detail": "no space",
        "code": "OC-4001",
        "hint": error.hint,
        "errors": [{"field": "f", "found": "x", "expected": "y", "item": 2}],
    }


def test_waiting_is_advised_for_transient_errors_only() -> None:
    assert "Retry-After" not in response_of(errors.QueryError("bad")).headers
    assert response_of(errors.BufferFullError("full")).headers["Retry-After"] == "1"
    assert response_of(errors.BodyTooLargeError("big")).headers["Connection"] == "close"


def test_what_the_framework_refuses_is_told_in_our_words() -> None:
    metrics = MetricsRegistry(METRICS)
    handlers = ErrorHandlers(EventLog(ManualClock()), metrics)
    request = RequestFactory().get("/health")
    answer = handlers.http(request, MethodNotAllowedException(headers={"Allow": "GET"}))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert json.loads(answer.content)["code"] == "OC-6002"
    assert metrics.value("ocean_errors_total", "OC-6002") == 1


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "Application/JSON; charset=UTF-8", "application/vnd.x+json"],
)
def test_json_is_taken(content_type: str | None) -> None:
    media_of(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"],
)
def test_other_types_are_refused(content_type: str) -> None:
    with pytest.raises(ContentTypeError) as caught:
        media_of(content_type)
    assert caught.value.fields[0].field == "Content-Type"
