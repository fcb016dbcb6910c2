"""Our own OpenAPI document, taken at its word by schemathesis against a running server."""

import json
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from ocean_core.protocol.nanogridata.encode import encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import PRESSURE
from ocean_core.protocol.readings.encode import encode_block
from support.appliance import Appliance
from support.routes import declared_routes
from support.waiting import until
from support.web import BATCH, Http

DOCUMENT = "/api/ocean/openapi.json"
EXAMPLES_EACH = 15

# One server for all: what one case does to it, the next would notice.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("openapi"), pytest.mark.timeout(120)]

# Pages and their files are for browsers; the document is about the rest.
OPERATIONS = [
    (method, path)
    for method, path in (route.split(" ", 1) for route in declared_routes())
    if path != "/" and "/docs/ui" not in path
]

# What the bodies hold that are no JSON is more than a schema says: some that are good, some not.
LINE = b'{"sensor_id":"press-01","value":1.5}\n'
schemathesis.openapi.media_type(
    "application/x-ndjson", st.sampled_from([LINE, LINE * 20, LINE + b"{}\n", b"\n"]) | st.binary()
)


def fresh_frame(ago_s: int) -> bytes:
    """Return a frame that is good now."""
    moment = int(time.time()) - ago_s
    payload = pressure_payload("0", "", moment, 100_000)
    return encode(PRESSURE, 1, payload, level=0, timestamp=moment)


BLOCK = encode_block(["0"], np.zeros(20, np.uint32), np.arange(20) + 10**15, np.arange(20.0))
schemathesis.openapi.media_type(
    "application/x-ocean-block", st.sampled_from([BLOCK, BLOCK[:-1]]) | st.binary()
)
FRAME = encode(PRESSURE, 1, pressure_payload("0", "", 10**9, 100_000), level=0, timestamp=10**9)
schemathesis.openapi.media_type(
    "application/x-nanogridata",
    st.integers(0, 10**9).map(lambda ago: fresh_frame(ago % 60))
    | st.sampled_from([FRAME, FRAME[:-1], FRAME * 3])
    | st.binary(),
)

# There is nothing in a request for these that could be wrong, or only a text in the address.
WITHOUT_INPUT = {
    "GET /api/ocean/status", "GET /api/ocean/alarms", "GET /api/ocean/docs", "GET /metrics",
    "GET /api/ocean/telemetry/groups", "DELETE /api/ocean/telemetry/groups/{name}", "GET /api/ocean/metadata/{key}",
    "DELETE /api/ocean/metadata/{key}", "GET /api/ocean/profiles/{profile_id}",
    "DELETE /api/ocean/profiles/{profile_id}", "GET /api/ocean/sensors/{sensor_id}",
    "DELETE /api/ocean/keys/{key_id}",
    "GET /api/ocean/quarantine/{frame_id}", "DELETE /api/ocean/quarantine/{frame_id}", "GET /api/ocean/users/{user_id}",
    "GET /api/ocean/jobs", "GET /api/ocean/jobs/{job_id}", "DELETE /api/ocean/jobs/{job_id}",
    "POST /api/ocean/archive/seal",
    "GET /api/ocean/billing/{user_id}", "DELETE /api/ocean/sessions/{session_id}",
}  # fmt: skip
NETWORK = {
    "OCEAN_NETWORK__HOST": "127.0.0.1",
    "OCEAN_NETWORK__PORT": "0",
    "OCEAN_NETWORK__ALLOW_PLAIN": "true",
    # Many requests from one address are what this test is about.
    "OCEAN_ACCESS__REQUESTS_PER_ADDRESS_MAX": "0",
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("openapi") / "data", settings=NETWORK) as running:
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
        if mode == GenerationMode.POSITIVE or f"{method} {path}" not in WITHOUT_INPUT
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
        case.call_and_validate(
            # This machine needs no key; who does is the matter of test_security.
            excluded_checks=[positive_data_acceptance, ignored_auth],
            timeout=20,
        )

    check()
    pid = box.status()["processes"]["ingest"]["pid"]
    assert pid == box.pid


@pytest.fixture(scope="module")
def outside(box: Appliance) -> str:
    """Return the address for other machines, where every request needs a key."""
    url: str = json.loads((box.data_dir / "run.json").read_text())["network_url"]
    return url


@pytest.fixture(scope="module")
def keys(box: Appliance) -> dict[str, dict[str, str]]:
    """Return headers: with no key, with a key of each scope, with one that is wrong."""
    made = {"none": {}, "wrong": {"Authorization": "Bearer ocean_x_wrong"}}
    for scope in ("ingest", "read", "admin"):
        body = {"name": f"schema-{scope}", "scopes": [scope]}
        key = box.http().post("/api/ocean/keys", body).good()["key"]
        made[scope] = {"Authorization": f"Bearer {key}"}
    return made


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_same_for_other_machines_with_and_without_a_key(
    schema: OpenApiSchema,
    outside: str,
    keys: dict[str, dict[str, str]],
    method: str,
    path: str,
) -> None:
    operation = schema[path][method]

    @hypothesis.given(case=operation.as_strategy(GenerationMode.POSITIVE))
    @hypothesis.settings(
        max_examples=2,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case[Any]) -> None:
        for headers in keys.values():
            response = case.call(base_url=outside, headers=headers, timeout=20)
            case.validate_response(
                response, excluded_checks=[positive_data_acceptance, ignored_auth]
            )

    check()


def test_the_document_is_the_same_every_time(box: Appliance) -> None:
    again = Http(box.url)
    try:
        assert box.http().get(DOCUMENT).body == again.get(DOCUMENT).body
    finally:
        again.close()
