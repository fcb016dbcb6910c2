"""Nanogridata over HTTP, on the whole appliance: as bytes and in JSON, with the fast path or not."""

import base64
import gzip
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocean_core.protocol.nanogridata.encode import cbor_payload, encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import PRESSURE, PayloadType
from ocean_core.service.frames.http_answers import EXPECTED
from support.appliance import Appliance
from support.frame_appliance import SECRET, write_secret
from support.waiting import until
from support.web import BATCH, INGEST, Reply

MEDIA = {"Content-Type": "application/x-nanogridata"}
QUARANTINE = "/api/ocean/quarantine"

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("frames-http"), pytest.mark.timeout(120)]

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["ordinary", "fast"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp(f"frames-{request.param}")
    settings = {
        "OCEAN_SERVER__FAST_PATH": "true" if request.param == "fast" else "false",
        "OCEAN_NANOGRIDATA__TCP": "false",
        "OCEAN_NANOGRIDATA__UDP": "false",
        "OCEAN_NANOGRIDATA__SECRET_FILES": f"0x10={write_secret(folder / 'secret')}",
    }
    with Appliance(folder / "data", settings=settings) as running:
        running.start()
        yield running
        assert "api.internal_error" not in running.log(), "a fault of our own was met"
        assert "Traceback" not in running.log()
        assert running.stop() == 0


def device() -> str:
    return f"press-{next(_numbers):03}"


def frame(name: str, pressure: int = 101_325, *, level: int = 1, ago_s: int = 0) -> bytes:
    moment = int(time.time()) - ago_s
    return encode(
        PRESSURE, PayloadType.TELEMETRY, pressure_payload(name, "lab", moment, pressure),
        level=level, timestamp=moment, secret=SECRET if level else None,
        iv=next(_numbers).to_bytes(12) if level > 1 else None,
    )  # fmt: skip


def broken(name: str) -> bytes:
    good = frame(name)
    return good[:-1] + bytes([good[-1] ^ 1])


def send(box: Appliance, path: str, body: bytes, **headers: str) -> Reply:
    return box.http().post(path, body, headers={**MEDIA, **headers})


def latest(box: Appliance, name: str) -> Any:
    path = f"/api/ocean/sensors/{name}/latest"

    def found() -> Any:
        reply = box.http().get(path, wait="true")
        return reply if reply.status != 503 else None

    return until(found, within_s=30, what="analytics answer").good()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_frame_is_stored_once(box: Appliance, level: int) -> None:
    name = device()
    one = frame(name, level=level)
    answer = send(box, INGEST, one).good()
    assert answer["sensor_id"] == name
    assert answer["id"] == box.status()["buffer"]["head_id"]
    again = send(box, INGEST, one).good()
    assert (again["duplicate"], again["id"]) == (True, 0)
    assert box.status()["buffer"]["head_id"] == answer["id"]
    assert "101325" in str(latest(box, name))


def test_a_bad_frame_is_named_and_kept(box: Appliance) -> None:
    bad = broken(device())
    problem = send(box, INGEST, bad).problem(422, "OC-2010")
    (error,) = problem["errors"]
    assert error["field"] == "frame"
    assert re.match(r"E_MAC at byte [0-9]+: check value [0-9a-f]{32} found; ", error["found"])
    assert error["expected"] == EXPECTED["E_MAC"]
    assert problem["detail"] == f"frame: found {error['found']}, expected {error['expected']}."
    kept = box.http().get(QUARANTINE, outcome="E_MAC").good()["frames"]
    whole = [box.http().get(f"{QUARANTINE}/{one['id']}").good() for one in kept]
    assert any(bad.hex() in str(one) for one in whole)
    text = send(box, INGEST, frame(device()).hex().encode()).problem(422, "OC-2010")
    assert "xxd" in text["hint"]
    send(box, INGEST, b"").problem(400, "OC-2001")
    stale = send(box, INGEST, frame(device(), ago_s=4000)).problem(422, "OC-2010")
    assert stale["errors"][0]["found"].startswith("E_STALE at byte 8")
    two = send(box, INGEST, frame(device()) * 2).problem(422, "OC-2010")
    assert two["errors"][0]["found"].startswith("E_TRAILING")


@pytest.mark.parametrize("packed", [False, True])
def test_frames_back_to_back(box: Appliance, *, packed: bool) -> None:
    one, two = frame(device()), frame(device(), level=2)
    body = one + b"noise" + broken(device()) + two + one
    headers = {"Content-Encoding": "gzip"} if packed else {}
    answer = send(box, BATCH, gzip.compress(body) if packed else body, **headers).good()
    assert (answer["count"], answer["duplicates"]) == (3, 1)
    assert answer["ids"][0] > 0
    assert answer["ids"][1] > answer["ids"][0]
    assert answer["ids"][2] == 0
    assert answer["rejected_count"] == len(answer["rejected"])
    assert "E_MAC" in str(answer["rejected"])
    send(box, BATCH, broken(device()) * 2).problem(422, "OC-2010")


def test_frames_in_json(box: Appliance) -> None:
    item = {"sensor_id": "gateway"}
    for in_hex in (True, False):
        name = device()
        one = frame(name)
        item["data"] = one.hex() if in_hex else base64.urlsafe_b64encode(one).decode().rstrip("=")
        answer = box.http().post(INGEST, item).good()
        assert answer["sensor_id"] == name
        assert box.http().post(INGEST, item).good()["duplicate"]
    whole = frame(device())
    for text in (
        whole.hex()[:-1],
        f"0x{whole.hex()}",
        whole[:15].hex(),
        "c1530f" + whole.hex()[6:],
    ):
        item["data"] = text
        assert box.http().post(INGEST, item).good()["kind"] == "event", text
    item["data"] = broken(device()).hex()
    box.http().post(INGEST, item).problem(422, "OC-2010")


def test_a_frame_without_a_device_is_of_the_sensor_named_beside_it(box: Appliance) -> None:
    moment = int(time.time())
    config = encode(
        PRESSURE, PayloadType.CONFIG, cbor_payload({"rate": next(_numbers)}),
        level=1, timestamp=moment, secret=SECRET,
    )  # fmt: skip
    name = device()
    answer = box.http().post(INGEST, {"sensor_id": name, "data": config.hex()}).good()
    assert (answer["sensor_id"], answer["kind"]) == (name, "event")


def test_a_batch_of_frames_and_other_items(box: Appliance) -> None:
    items: list[dict[str, Any]] = [
        {"sensor_id": "plain", "value": 1},
        {"sensor_id": "g", "data": frame(device()).hex()},
        {"sensor_id": "g", "data": broken(device()).hex()},
        {"sensor_id": "plain", "value": 2},
    ]
    key = f"key {device()}"
    answer = box.http().post(BATCH, items, key).good()
    head = box.status()["buffer"]["head_id"]
    first, framed, second = answer["ids"]
    assert second == first + 1
    assert sorted(answer["ids"]) == [head - 2, head - 1, head]
    assert framed == head - 2
    assert [one["item"] for one in answer["rejected"]] == [2]
    again = box.http().post(BATCH, items, key).good()
    assert (again["ids"], again["duplicate"]) == ([first, 0, second], True)
    assert again["rejected"] == answer["rejected"]
    assert box.status()["buffer"]["head_id"] == head


def test_bad_items_refuse_the_batch_with_its_frames(box: Appliance) -> None:
    framed = {"sensor_id": "g", "data": frame(device()).hex()}
    before = box.status()["buffer"]["head_id"]
    items = [framed, {"sensor_id": "plain", "value": "x"}]
    box.http().post(BATCH, items).problem(422, "OC-2002")
    assert box.status()["buffer"]["head_id"] == before
    answer = box.http().post(BATCH + "?partial=true", items).good()
    assert (answer["count"], answer["rejected_count"]) == (1, 1)


def test_a_key_for_some_sensors_counts_for_the_devices_in_frames(box: Appliance) -> None:
    made = {"name": f"hall {device()}", "scopes": ["ingest"], "sensors": "hall/*"}
    key = box.http().post("/api/ocean/keys", made).good()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    inside, outside = frame(f"hall/{device()}"), frame(device())
    assert send(box, INGEST, inside, **headers).good()["id"]
    send(box, INGEST, outside, **headers).problem(403, "OC-6006")
    answer = send(box, BATCH, frame(f"hall/{device()}") + outside, **headers).good()
    assert (answer["count"], answer["rejected_count"]) == (1, 1)
    assert answer["rejected"][0]["found"].startswith("OC-6006: ")


def test_a_repeat_is_known_after_a_restart(tmp_path: Path) -> None:
    settings = {
        "OCEAN_NANOGRIDATA__TCP": "false",
        "OCEAN_NANOGRIDATA__UDP": "false",
        "OCEAN_NANOGRIDATA__SECRET_FILES": f"0x10={write_secret(tmp_path / 'secret')}",
    }
    one = frame(device())
    with Appliance(tmp_path / "data", settings=settings) as box:
        box.start()
        first = send(box, INGEST, one).good()
        box.kill("ingest")
        box.start()
        again = send(box, INGEST, one).good()
        assert again["duplicate"]
        assert box.status()["buffer"]["head_id"] == first["id"]
        assert box.stop() == 0
