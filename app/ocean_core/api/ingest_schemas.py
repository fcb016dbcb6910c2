"""What the OpenAPI document says about sending readings: every form that a body may have."""

from __future__ import annotations

from typing import Final

from litestar.openapi.spec import (
    Example,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Parameter,
    RequestBody,
    Schema,
)

from ocean_core.api.openapi import operation, query_parameter
from ocean_core.model import limits
from ocean_core.protocol.media import Encoding, Media

INGEST_PROBLEMS: Final = (400, 408, 413, 415, 422, 429, 503, 507)

_NUMBER: Final = Schema(type=OpenAPIType.NUMBER)
_NAME: Final = Schema(type=OpenAPIType.STRING, min_length=1, max_length=limits.SENSOR_ID_BYTES_MAX)
_METRIC: Final = Schema(type=OpenAPIType.STRING, min_length=1, max_length=limits.METRIC_BYTES_MAX)
_TIMESTAMP: Final = Schema(
    description="ISO 8601 (no zone = UTC) or epoch number in s, ms, us or ns; absent = arrival.",
    type=[OpenAPIType.STRING, OpenAPIType.NUMBER, OpenAPIType.NULL],
)
_ITEM: Final = Schema(
    type=OpenAPIType.OBJECT,
    required=["sensor_id"],
    additional_properties=False,
    description="A reading: sensor_id with exactly one of value, values or data.",
    properties={
        "sensor_id": _NAME,
        "timestamp": _TIMESTAMP,
        "metric": Schema(type=OpenAPIType.STRING, min_length=1, description="Only beside value."),
        "value": _NUMBER,
        "values": Schema(
            type=OpenAPIType.OBJECT,
            additional_properties=_NUMBER,
            min_properties=1,
            max_properties=limits.METRICS_PER_ITEM_MAX,
        ),
        "data": Schema(
            description="A number, an object of numbers, or text holding either: readings. "
            "Text with a Nanogridata frame in hex or base64: what the frame says. "
            "Anything else: an event, kept as it came."
        ),
    },
)
_ITEM_EXAMPLES: Final = [
    Example(value={"sensor_id": "press-01", "value": 101.3}, summary="now"),
    Example(
        value={"sensor_id": "press-01", "timestamp": "2026-01-17T08:00:00Z", "value": 101.3},
        summary="with a time",
    ),
    Example(
        value={"sensor_id": "climate-02", "values": {"temperature": 21.5, "humidity": 40}},
        summary="several metrics",
    ),
    Example(value={"sensor_id": "press-01", "data": "101.3"}, summary="the original shape"),
]
_ARRAY: Final = Schema(type=OpenAPIType.ARRAY, items=_ITEM, min_items=1)
_WRAPPED: Final = Schema(
    type=OpenAPIType.OBJECT,
    required=["readings"],
    additional_properties=False,
    properties={"readings": _ARRAY},
)


def _column(element: Schema, *, required: bool = False) -> Schema:
    """Return the schema of a column: one entry per reading, or one that counts for all."""
    column = Schema(type=OpenAPIType.ARRAY, items=element, min_items=1)
    return column if required else Schema(one_of=[element, column])


_COLUMNS: Final = Schema(
    type=OpenAPIType.OBJECT,
    required=["sensor_id", "value"],
    additional_properties=False,
    description="Readings as columns of equal length; what is no array counts for all of them.",
    properties={
        "sensor_id": _column(_NAME),
        "metric": _column(_METRIC),
        "timestamp": _column(_TIMESTAMP),
        "value": _column(_NUMBER, required=True),
    },
)
_LINES: Final = Schema(
    type=OpenAPIType.STRING, description="One item per line, each a JSON object as in an array."
)
_BLOCK: Final = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="One block of readings, byte by byte as docs/block-format.md describes it.",
)

_FRAME: Final = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="One Nanogridata frame, as docs/nanogridata.md describes it.",
)
_FRAMES: Final = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="Nanogridata frames back to back; each counts by itself.",
)

_IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    param_in="header",
    required=False,
    description="Any text, for example a UUID; a repeat of the same request is not stored twice.",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[ -~]+$"),
)


def _any_case(name: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in name)


_ENCODING: Final = Parameter(
    name="Content-Encoding",
    param_in="header",
    required=False,
    description="How the body is compressed; its limit of size counts expanded, too.",
    schema=Schema(
        type=OpenAPIType.STRING,
        # Content codings are named in any case, and an empty list is none.
        pattern=f"^({'|'.join(_any_case(encoding) for encoding in Encoding)})?$",
        examples=[Encoding.GZIP.value],
    ),
)
_PARTIAL: Final = query_parameter(
    "partial", "true: store the good items and return the rejected ones.", "true"
)

SINGLE_OPERATION: Final = operation(
    _IDEMPOTENCY_KEY,
    _ENCODING,
    body=RequestBody(
        required=True,
        content={
            Media.JSON.value: OpenAPIMediaType(
                schema=_ITEM,
                examples={f"example{i}": example for i, example in enumerate(_ITEM_EXAMPLES)},
            ),
            Media.FRAMES.value: OpenAPIMediaType(schema=_FRAME),
        },
    ),
)
BATCH_OPERATION: Final = operation(
    _IDEMPOTENCY_KEY,
    _ENCODING,
    _PARTIAL,
    body=RequestBody(
        required=True,
        content={
            Media.JSON.value: OpenAPIMediaType(
                schema=Schema(any_of=[_ARRAY, _WRAPPED, _COLUMNS]),
                examples={
                    "two": Example(value=[example.value for example in _ITEM_EXAMPLES[:2]]),
                    "columns": Example(
                        value={
                            "sensor_id": "press-01",
                            "timestamp": ["2026-01-17T08:00:00Z", "2026-01-17T08:00:01Z"],
                            "value": [101.3, 101.4],
                        },
                        summary="columns, answered with first_id and last_id",
                    ),
                },
            ),
            Media.NDJSON.value: OpenAPIMediaType(
                schema=_LINES,
                examples={
                    "lines": Example(
                        value='{"sensor_id":"press-01","value":101.3}\n'
                        '{"sensor_id":"climate-02","value":21.5}\n'
                    )
                },
            ),
            Media.BLOCK.value: OpenAPIMediaType(schema=_BLOCK),
            Media.FRAMES.value: OpenAPIMediaType(schema=_FRAMES),
        },
    ),
)
