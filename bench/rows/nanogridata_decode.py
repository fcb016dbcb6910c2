"""One Nanogridata frame in-process: from its bytes to fields, and from fields to rows.

All 20 checks of the wire format, one frame at a time, as frames are treated that are not plain.
Baseline: the same reading as JSON, decoded by msgspec into a typed object.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from loading import Datasets

from ocean_core.config.settings import NanogridataSettings
from ocean_core.pipeline.routing import route
from ocean_core.protocol.nanogridata.decoder import Decoded, FixedKeys, decode
from ocean_core.protocol.nanogridata.encode import cbor_payload, encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import PRESSURE
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.models_file import read_models
from support import Beside, Figure, Goal, Plan, progress

ROW: Final = "nanogridata_decode"
NOW_S: Final = 1_768_650_000
SECRET: Final = bytes(range(32))
OWN: Final = 0x50
FRAMES: Final = 512
DECODE_GOAL_US: Final = 1_000.0
ROUTE_GOAL_US: Final = 100.0
DESCRIBED: Final = """
[model.0x50]
label = "own"
fields = [
  { name = "device_id", type = "text8" },
  { name = "lab_id", type = "text8" },
  { name = "timestamp", type = "u32" },
  { name = "pa", type = "u32", metric = "pressure", unit = "Pa", min = 0, max = 200000 },
]
"""


class Reading(msgspec.Struct):
    sensor_id: str
    metric: str
    timestamp: int
    value: float


class NothingSeen:
    """Memory of frames is measured elsewhere."""

    def check_and_remember(self, *_frame: object) -> bool:
        return True


def run(plan: Plan, _datasets: Datasets) -> Iterator[Figure]:
    models = Models(NanogridataSettings(), read_models(DESCRIBED))
    secrets = (HmacSecret(SECRET, "bench"),)
    keys = FixedKeys({PRESSURE: secrets, OWN: secrets})
    reading = Reading("ESP32-001", "pressure", NOW_S, 101_325.0)
    json_decoder = msgspec.json.Decoder(Reading)
    body = msgspec.json.encode(reading)
    forms = [
        (f"level {n}, {form}", frame_of(n, form)) for n in range(3) for form in ("binary", "CBOR")
    ]
    forms.append(("level 1, binary of a described model", frame_of(1, "binary", OWN)))
    for name, frame in forms:
        progress(f"{ROW}: {name}")

        def decode_one(frame: bytes = frame) -> Decoded:
            return decode(frame, NOW_S, models, keys, NothingSeen())

        found = decode_one()
        profile = models.profile(found.header.model_id)

        def route_one(found: Decoded = found) -> object:
            return route(
                found.header, found.content, models.profile(found.header.model_id),
                arrival_us=1_000_000 * NOW_S, clock_trusted=True,
            )  # fmt: skip

        decodes, routes, baselines = [], [], []
        for _ in range(plan.rounds):
            plan.settle()
            decodes.append(micros(decode_one, plan.round_s / 6))
            routes.append(micros(route_one, plan.round_s / 6))
            baselines.append(micros(lambda: json_decoder.decode(body), plan.round_s / 6))
        beside = (Beside("the same reading as JSON, msgspec", statistics.median(baselines)),)
        yield Figure(
            ROW, f"decode a frame, {name}", tuple(decodes), "us", beside,
            (Goal(DECODE_GOAL_US, "this version"),), lower_is_better=True,
            notes=f"{len(frame)} bytes, profile {profile.name}",
        )  # fmt: skip
        yield Figure(
            ROW, f"route it, {name}", tuple(routes), "us", beside,
            (Goal(ROUTE_GOAL_US, "this version"),), lower_is_better=True,
        )  # fmt: skip


def frame_of(level: int, form: str, model_id: int = PRESSURE) -> bytes:
    if form == "binary":
        payload = pressure_payload("ESP32-001", "LAB-NORTH-01", NOW_S, 101_325)
    else:
        payload = cbor_payload(
            {"device_id": "ESP32-001", "lab_id": "LAB-NORTH-01", "pressure_pa": 101_325,
             "timestamp": NOW_S}
        )  # fmt: skip
    return encode(
        model_id, 1, payload, level=level, timestamp=NOW_S, secret=SECRET if level else None,
        iv=bytes(12) if level > 1 else None,
    )  # fmt: skip


def micros(call: Callable[[], object], seconds: float) -> float:
    """Return the mean time of a call in microseconds, called for a while."""
    ends = time.perf_counter() + seconds
    count, spent = 0, 0.0
    while (begun := time.perf_counter()) < ends:
        for _ in range(FRAMES):
            call()
        spent += time.perf_counter() - begun
        count += FRAMES
    return 1e6 * spent / count
