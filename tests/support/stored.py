"""What a running box has stored, read back id by id."""

from dataclasses import dataclass

import numpy as np

from support.appliance import Appliance

PAGE = 10_000


@dataclass(frozen=True, slots=True)
class StoredReading:
    sensor_id: str
    metric: str
    timestamp_us: int
    value: float
    quality: int


def stored_readings(box: Appliance, first_id: int, last_id: int) -> list[StoredReading]:
    """Return the readings with these ids, in order; as a consumer group of its own sees them."""
    group = f"stored-{first_id}-{last_id}"
    path = "/api/ocean/telemetry"
    if first_id > 1:
        marks = list(range(1, first_id))
        for start in range(0, len(marks), PAGE):
            body = {"group": group, "ids": marks[start : start + PAGE]}
            box.http().post(f"{path}/mark-processed", body).good()
    found: list[StoredReading] = []
    page = box.http().get(f"{path}/unprocessed", group=group, limit=PAGE).good()["data"]
    for item in page:
        if item["id"] > last_id:
            break
        assert item["id"] == first_id + len(found), "the ids follow each other"
        moment = np.datetime64(item["timestamp"].removesuffix("Z"), "us").astype(np.int64)
        found.append(
            StoredReading(
                item["sensor_id"], item["metric"], int(moment), item["value"],
                item.get("quality", 0),
            )
        )  # fmt: skip
    assert len(found) == last_id - first_id + 1, "all of them"
    box.http().request("DELETE", f"{path}/groups/{group}")
    return found
