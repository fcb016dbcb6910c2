"""Nanogridata for tests: the vectors, frames to start from, and a decoder for each."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from ocean_core.protocol.nanogridata.decoder import (
    Decoded,
    FixedKeys,
    FixedPolicy,
    RecentFrames,
    decode,
)
from ocean_core.protocol.nanogridata.encode import encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Options
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.protocol.nanogridata.stream import Found, Proven, Skipped, StreamReader
from support.paths import REPO

NOW = 1_768_650_000
SECRET = bytes(range(32))
POLICY = FixedPolicy()
KEYS = FixedKeys({}, [HmacSecret(SECRET, "bench")])
NO_KEYS = FixedKeys({})


@cache
def golden() -> dict[str, Any]:
    """Return what is in the file of vectors."""
    path = REPO / "tests" / "data" / "nanogridata" / "vectors.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def options_of(case: dict[str, Any]) -> Options:
    return msgspec.convert(golden()["option_defaults"] | case["options"], Options, strict=True)


def keys_of(case: dict[str, Any]) -> FixedKeys:
    """Return the secrets of a vector, valid for all models, or of a stream, by model."""
    if "secrets" in case:
        return FixedKeys(
            {
                int(model): [HmacSecret(bytes.fromhex(secret), f"model {model}")]
                for model, secret in case["secrets"].items()
            }
        )
    if case["secret"] is None:
        return NO_KEYS
    return FixedKeys({}, [HmacSecret(bytes.fromhex(case["secret"]), "vector")])


def decode_vector(vector: dict[str, Any]) -> Decoded:
    """Return what the last frame of a vector holds, after the ones before it."""
    policy, keys, replay = FixedPolicy(options_of(vector)), keys_of(vector), RecentFrames()
    for prior in vector["prior_frames"]:
        outcome(bytes.fromhex(prior["frame"]), prior["now"], policy, keys, replay)
    return decode(bytes.fromhex(vector["frame"]), vector["now"], policy, keys, replay)


def outcome(
    frame: bytes,
    now_s: int = NOW,
    policy: FixedPolicy = POLICY,
    keys: FixedKeys = KEYS,
    replay: RecentFrames | None = None,
) -> str:
    """Return what becomes of a frame: ``ok`` or an error of the format."""
    try:
        decode(frame, now_s, policy, keys, replay or RecentFrames())
    except FrameRefusedError as error:
        return error.outcome
    return "ok"


def as_json(value: Any) -> Any:
    """Return decoded fields as the file of vectors writes them."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


def pressure_frame(
    device: str = "ESP32-001",
    pascal: int = 101_325,
    *,
    level: int = 1,
    timestamp: int = NOW,
    secret: bytes = SECRET,
    **options: Any,
) -> bytes:
    """Return a frame of pressure telemetry that the box takes."""
    plaintext = pressure_payload(device, "LAB", timestamp, pascal)
    return encode(
        0x10, 1, plaintext, level=level, timestamp=timestamp, secret=secret,
        iv=bytes(12), **options,
    )  # fmt: skip


def read_all(reader: StreamReader, chunks: Sequence[bytes]) -> list[Found]:
    """Return what a stream holds that comes in these pieces and then ends."""
    found = [item for chunk in chunks for item in reader.feed(chunk)]
    return found + reader.end()


def total_bytes(found: Sequence[Found]) -> int:
    """Return how many bytes of a stream are accounted for."""
    proven = sum(len(item.frame) for item in found if isinstance(item, Proven))
    return proven + sum(item.count for item in found if isinstance(item, Skipped))


def told(found: Sequence[Found]) -> list[tuple[str, Any, Any]]:
    """Return findings in a form that can be compared: errors have no equality."""
    rows: list[tuple[str, Any, Any]] = []
    for item in found:
        if isinstance(item, Proven):
            rows.append(("proven", item.frame, None))
            continue
        error = item.first_error if isinstance(item, Skipped) else item.error
        what = item.count if isinstance(item, Skipped) else item.frame
        words = error and (error.outcome, error.offset, error.detail)
        rows.append((type(item).__name__, what, words))
    return rows
