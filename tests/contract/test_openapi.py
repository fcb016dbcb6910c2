"""Our own OpenAPI document, taken at its word by schemathesis against a running server."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from support.appliance import Appliance
from support.waiting import until
from support.web import BATCH, Http

DOCUMENT = "/api/ocean/openapi.json"
EXAMPLES_EACH = 15

# One server for all: what one case does to it, the next would notice.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("openapi"), pytest.mark.timeout(120)]

OPERATIONS = [
    ("POST", "/api/ocean/telemetry/ingest"),
    ("POST", "/api/ocean/telemetry/batch"),
    ("GET", "/api/ocean/analytics/sensor/{sensor_id}/stats"),
    ("GET", "/api/ocean/analytics/sensor/{sensor_id}/timeseries"),
    ("GET", "/api/ocean/analytics/sensor/{sensor_id}/anomalies"),
    ("POST", "/api/ocean/analytics/compare"),
    ("GET", "/api/ocean/sensors"),
    ("GET", "/api/ocean/sensors/latest"),
    ("GET", "/api/ocean/sensors/{sensor_id}/latest"),
    ("GET", "/api/ocean/sensors/{sensor_id}/events"),
    ("GET", "/health"),
    ("GET", "/api/ocean/status"),
    ("GET", "/api/ocean/alarms"),
    ("GET", "/api/ocean/docs"),
    ("GET", "/metrics"),
]

# There is nothing in a request for these that could be wrong.
WITHOUT_INPUT = ("/api/ocean/status", "/api/ocean/alarms", "/api/ocean/docs", "/metrics")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("openapi") / "data") as running:
        running.start()
        until(
            lambda: running.status()["analytics"]["state"] == "up",
            within_s=30, what="analytics are up",
        )  # fmt: skip
        # Something to answer with.
        items = [{"sensor_id": name, "value": i} for i in range(5) for name in ("press-01", "0")]
        running.http().post(BATCH, items).good()
        yield running
        assert "api.internal_error" not in running.log(), "a fault of our own was met"
        assert running.stop() == 0


@pytest.fixture(scope="module")
def schema(box: Appliance) -> Any:
    document = box.http().get(DOCUMENT).good()
    loaded = schemathesis.openapi.from_dict(document)
    loaded.config.update(base_url=box.url)
    return loaded


def test_the_document_lists_every_operation(box: Appliance) -> None:
    paths = box.http().get(DOCUMENT).good()["paths"]
    found = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method in operations
        if method in {"get", "post", "put", "patch", "delete"}
    }
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
        for method, path in OPERATIONS
        for mode in GenerationMode
        if mode == GenerationMode.POSITIVE or path not in WITHOUT_INPUT
    ],
)
def test_answers_are_those_that_the_document_promises(
    box: Appliance, schema: OpenApiSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """All of schemathesis's checks: status, type, headers and shape of answers; no server error.

    What does not fit the document is refused. What fits may be refused as well: a moment, a time
    zone, or "one of three fields" is more than a schema says here.
    """
    operation = schema[path][method]
    health = box.http().get("/health", ready="true")
    assert health.status == 200

    @hypothesis.given(case=operation.as_strategy(mode))
    @hypothesis.settings(
        max_examples=EXAMPLES_EACH,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=20)

    check()
    pid = box.status()["processes"]["ingest"]["pid"]
    assert pid == box.pid


def test_the_document_is_the_same_every_time(box: Appliance) -> None:
    again = Http(box.url)
    try:
        assert box.http().get(DOCUMENT).body == again.get(DOCUMENT).body
    finally:
        again.close()
