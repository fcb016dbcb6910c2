"""What the OpenAPI document says about the bodies of records: metadata, profiles, sensors, keys."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Parameter,
    RequestBody,
    Schema,
)

from ocean_core.api.openapi import operation
from ocean_core.model import limits

READ_PROBLEMS: Final = (400, 401, 429, 503)
WRITE_PROBLEMS: Final = (400, 401, 408, 413, 415, 422, 429, 503, 507)

_TEXT: Final = Schema(type=OpenAPIType.STRING)
_NULL: Final = OpenAPIType.NULL


def _text(bytes_max: int, *, bytes_min: int = 0, null: bool = False) -> Schema:
    kind = [OpenAPIType.STRING, _NULL] if null else OpenAPIType.STRING
    return Schema(
        type=kind,
        min_length=bytes_min or None,
        max_length=bytes_max,
        description=f"At most {bytes_max} bytes of UTF-8.",
    )


def _body(
    properties: dict[str, Schema],
    examples: dict[str, Any],
    *,
    required: list[str] | None = None,
    optional: bool = False,
    fields_min: int | None = None,
) -> RequestBody:
    """Return the declaration of an object with these fields and no others."""
    schema = Schema(
        type=OpenAPIType.OBJECT,
        required=required,
        additional_properties=False,
        min_properties=fields_min,
        properties={**properties},
    )
    shown = {name: Example(value=value) for name, value in examples.items()}
    return RequestBody(
        required=not optional,
        content={"application/json": OpenAPIMediaType(schema=schema, examples={**shown})},
    )


_TTL: Final = Schema(
    type=[OpenAPIType.NUMBER, _NULL],
    exclusive_minimum=0,
    maximum=limits.METADATA_TTL_S_MAX,
    description="Seconds until it is gone; absent: it stays.",
)
METADATA_OPERATION: Final = operation(
    Parameter(
        name="value",
        param_in="query",
        required=False,
        description="The original's form, instead of a body: the value is this text.",
        schema=_TEXT,
    ),
    Parameter(
        name="ttl_s",
        param_in="query",
        required=False,
        description="Only beside value: seconds until it is gone.",
        schema=Schema(
            type=OpenAPIType.NUMBER, exclusive_minimum=0, maximum=limits.METADATA_TTL_S_MAX
        ),
    ),
    body=_body(
        {
            "value": Schema(
                description=f"Any JSON, at most {limits.METADATA_VALUE_BYTES_MAX} bytes and "
                f"{limits.RECORD_LEVELS_MAX} levels; kept as it is."
            ),
            "ttl_s": _TTL,
        },
        {
            "text": {"value": "line 3"},
            "any JSON, for a day": {"value": {"shift": 2, "crew": ["a", "b"]}, "ttl_s": 86_400},
        },
        required=["value"],
        optional=True,
    ),
)

PROFILE_OPERATION: Final = operation(
    body=_body(
        {
            "profile_id": _text(limits.PROFILE_ID_BYTES_MAX, bytes_min=1),
            "sensor_id": _text(limits.SENSOR_ID_BYTES_MAX, bytes_min=1),
            "timestamp": Schema(
                type=[OpenAPIType.STRING, OpenAPIType.NUMBER, _NULL],
                description="As with readings; text is kept as given. Absent: now.",
            ),
            "metadata": Schema(
                type=OpenAPIType.OBJECT,
                description=f"At most {limits.PROFILE_BYTES_MAX} bytes of JSON; kept as it is.",
            ),
        },
        {
            "calibration": {
                "profile_id": "press-01-cal",
                "sensor_id": "press-01",
                "timestamp": "2026-01-17T08:00:00Z",
                "metadata": {"offset": -0.2, "by": "anna"},
            }
        },
        required=["profile_id", "sensor_id"],
    )
)

SENSOR_OPERATION: Final = operation(
    body=_body(
        {
            "display_name": _text(limits.SENSOR_TEXT_BYTES_MAX, null=True),
            "unit": _text(limits.SENSOR_TEXT_BYTES_MAX, null=True),
            "tags": Schema(
                type=[OpenAPIType.OBJECT, _NULL],
                max_properties=limits.SENSOR_TAGS_MAX,
                property_names=Schema(min_length=1, max_length=limits.SENSOR_TEXT_BYTES_MAX),
                additional_properties=_text(limits.SENSOR_TEXT_BYTES_MAX),
                description="All tags: they take the place of those there were.",
            ),
            "note": _text(limits.SENSOR_NOTE_BYTES_MAX, null=True),
        },
        {
            "some": {"display_name": "Press 1, oil", "unit": "bar", "tags": {"hall": "B"}},
            "empty a field": {"note": ""},
        },
        fields_min=1,
    )
)
RENAME_OPERATION: Final = operation(
    body=_body(
        {"to": _text(limits.SENSOR_ID_BYTES_MAX, bytes_min=1)},
        {"new name": {"to": "hall-b/press-01"}},
        required=["to"],
    )
)
FORGET_OPERATION: Final = operation(
    body=_body(
        {"confirm": Schema(type=OpenAPIType.STRING, description="The sensor_id once more.")},
        {"sure": {"confirm": "press-01"}},
        required=["confirm"],
    )
)

KEY_OPERATION: Final = operation(
    body=_body(
        {
            "name": _text(limits.KEY_NAME_BYTES_MAX, bytes_min=1),
            "scopes": Schema(
                type=OpenAPIType.ARRAY,
                min_items=1,
                items=Schema(type=OpenAPIType.STRING, enum=["ingest", "read", "admin"]),
                description="admin includes the other two.",
            ),
            "sensors": Schema(
                type=[OpenAPIType.STRING, _NULL],
                min_length=1,
                max_length=limits.KEY_PATTERN_BYTES_MAX,
                description="Only sensors that match this pattern (*, ?, [abc]); not with admin.",
            ),
            "rate": Schema(
                type=[OpenAPIType.INTEGER, _NULL],
                minimum=1,
                maximum=limits.KEY_RATE_MAX,
                description="At most so many readings per second.",
            ),
            "expires": Schema(
                type=[OpenAPIType.STRING, _NULL],
                description="A moment to come in ISO 8601, or a time from now: 90d, 12h, 30m.",
            ),
            "user_id": Schema(
                type=[OpenAPIType.STRING, _NULL],
                min_length=1,
                max_length=limits.METADATA_KEY_BYTES_MAX,
                description="The user for whom readings stored under this key count.",
            ),
        },
        {
            "a gateway": {"name": "gateway-7", "scopes": ["ingest"], "sensors": "hall-b/*"},
            "a dashboard": {"name": "grafana", "scopes": ["read"], "expires": "90d"},
        },
        required=["name", "scopes"],
    )
)
