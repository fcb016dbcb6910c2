"""Devices that post without a pause and write down, outside the data directory, what they were told.

Each reading has a value that occurs nowhere else, so that every stored row can be traced to the
request that brought it. Requests with an Idempotency-Key are sent again until they are answered;
those without are sent once.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from support.web import BATCH, INGEST, ConnectionLostError, Http, Reply

# Beyond this distance the values of two devices cannot meet; below 2^53, so that all are exact.
DEVICE_SPAN = 1_000_000_000
PACE_S = 0.001
ABSENT_PAUSE_S = 0.05
METRICS = ("temperature", "humidity", "pressure")
# What a box says that is alive but cannot take readings at the moment.
TRY_LATER = frozenset({408, 429, 503, 507})


@dataclass(frozen=True, slots=True)
class Row:
    """One row that a request makes: a reading with its number, or an event with its marker."""

    sensor_id: str
    metric: str
    value: float

    @property
    def is_event(self) -> bool:
        return not self.metric


@dataclass(slots=True)
class Sent:
    """A request: its items, each with the rows it makes, and what came back."""

    path: str
    body: bytes
    key: str | None
    items: list[list[Row]]
    ids: list[int] | None = None
    statuses: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        return [row for item in self.items for row in item]

    def stored_rows(self) -> dict[int, Row]:
        """Return the rows by the ids that the answer promised: those of an item are dense."""
        assert self.ids is not None
        return {
            first + place: row
            for first, rows in zip(self.ids, self.items, strict=True)
            for place, row in enumerate(rows)
        }


def post(http: Http, sent: Sent) -> bool:
    """Send a request and note the answer; return whether it was acknowledged."""
    reply = http.post(sent.path, sent.body, sent.key)
    sent.statuses.append(reply.status)
    if reply.status != 200:
        return False
    sent.ids = ids_of(reply)
    assert len(sent.ids) == len(sent.items), (sent.items, reply.body)
    return True


def ids_of(reply: Reply) -> list[int]:
    """Return the id of each item of a positive answer."""
    answer = reply.good()
    assert answer["buffered"] is True
    return list(answer["ids"]) if "ids" in answer else [answer["id"]]


class Writer:
    """Makes the requests of one device, from a seed."""

    def __init__(self, name: str, number: int, seed: int, *, batch_rows: int = 40) -> None:
        self.name = name
        self._random = random.Random(f"{seed}-{number}")
        self._next = number * DEVICE_SPAN + 1
        self._batch_rows = batch_rows
        self._began_us = int(time.time() * 1e6)
        self._keys = 0

    def request(self) -> Sent:
        """Return the next request, of any form."""
        form = self._random.choice(("single", "single", "values", "event", "batch"))
        if form == "batch":
            count = self._random.randint(2, self._batch_rows)
            items = [
                self._item(self._random.choice(("single", "single", "single", "values", "event")))
                for _ in range(count)
            ]
            return self._sent(BATCH, [body for body, _ in items], [rows for _, rows in items])
        body, rows = self._item(form)
        return self._sent(INGEST, body, [rows])

    def single(self) -> Sent:
        """Return a request of one reading without a key."""
        body, rows = self._item("single")
        return Sent(INGEST, json.dumps(body).encode(), None, [rows])

    def batch(self, count: int) -> Sent:
        """Return a batch of plain readings without a key."""
        items = [self._item("single") for _ in range(count)]
        body = json.dumps([body for body, _ in items]).encode()
        return Sent(BATCH, body, None, [rows for _, rows in items])

    def _sent(self, path: str, body: Any, items: list[list[Row]]) -> Sent:
        key = None
        if self._random.random() < 0.5:
            self._keys += 1
            key = f"{self.name}-{self._keys}"
        return Sent(path, json.dumps(body).encode(), key, items)

    def _item(self, form: str) -> tuple[dict[str, Any], list[Row]]:
        number = self._next
        self._next += len(METRICS)
        body: dict[str, Any] = {"sensor_id": self.name}
        if self._random.random() < 0.5:
            # Often the same moment: readings of the same series and time are all kept.
            body["timestamp"] = (self._began_us - self._random.randrange(3600) * 1_000_000) / 1e6
        if form == "event":
            return body | {"data": {"marker": number, "state": "on"}}, [
                Row(self.name, "", float(number))
            ]
        if form == "values":
            rows = [Row(self.name, metric, float(number + i)) for i, metric in enumerate(METRICS)]
            return body | {"values": {row.metric: row.value for row in rows}}, rows
        return body | {"value": float(number)}, [Row(self.name, "value", float(number))]


class Load:
    """Several devices at once, each with a thread, a connection and a record of its own."""

    def __init__(
        self,
        url: Callable[[], str],
        record_dir: Path,
        *,
        devices: int = 4,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self._url = url
        self._record_dir = record_dir
        self._devices = devices
        self._seed = seed
        self._first = first
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.statuses: Counter[int] = Counter()

    def __enter__(self) -> Self:
        self._record_dir.mkdir(parents=True, exist_ok=True)
        for number in range(self._first, self._first + self._devices):
            thread = threading.Thread(target=self._run, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._given_up.set()
        for thread in self._threads:
            thread.join(10)

    def finish(self, within_s: float = 30.0) -> None:
        """Begin nothing new, and wait until every request with a key is answered."""
        self._ending.set()
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        alive = [thread for thread in self._threads if thread.is_alive()]
        self._given_up.set()
        self.check()
        assert not alive, f"{len(alive)} devices still wait for an answer; {self.statuses}"

    def check(self) -> None:
        """Fail if a device met something that no device may meet."""
        assert not self._errors, repr(self._errors)

    def _run(self, number: int) -> None:
        try:
            self._post_all(number)
        except BaseException as error:  # noqa: BLE001 - the top of a thread: the test reports it
            self._errors.append(error)

    def _post_all(self, number: int) -> None:
        writer = Writer(f"device-{number}", number + 1, self._seed)
        http: Http | None = None
        # Line by line, so that the record holds what was told before any later moment.
        with (self._record_dir / f"device-{number}.jsonl").open("a", buffering=1) as record:
            while not self._ending.is_set():
                sent = writer.request()
                _note(record.write, "sent", sent)
                done = False
                while not done and not self._given_up.is_set():
                    http, done = self._attempt(http, sent)
                    if sent.ids is not None:
                        _note(record.write, "acknowledged", sent)
                    done = done or sent.key is None
                self._given_up.wait(PACE_S)
        if http is not None:
            http.close()

    def _attempt(self, http: Http | None, sent: Sent) -> tuple[Http | None, bool]:
        """Send once; return the connection to go on with, and whether it was answered."""
        url = self._url()
        if not url:
            if http is not None:
                http.close()
            self._given_up.wait(ABSENT_PAUSE_S)
            return None, False
        if http is None or http.url != url:
            if http is not None:
                http.close()
            http = Http(url)
        try:
            done = post(http, sent)
        except ConnectionLostError:
            self._given_up.wait(ABSENT_PAUSE_S)
            return http, False
        status = sent.statuses[-1]
        self.statuses[status] += 1
        assert done or status in TRY_LATER, (status, sent)
        if not done:
            self._given_up.wait(ABSENT_PAUSE_S)
        return http, done


def _note(write: Callable[[str], object], kind: str, sent: Sent) -> None:
    rows = [[[row.sensor_id, row.metric, row.value] for row in item] for item in sent.items]
    write(json.dumps({"kind": kind, "key": sent.key, "items": rows, "ids": sent.ids}) + "\n")


def read_record(record_dir: Path) -> list[Sent]:
    """Return every request that was sent, with the ids of those acknowledged."""
    requests: dict[float, Sent] = {}
    for path in sorted(record_dir.rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            items = [[Row(*row) for row in item] for item in entry["items"]]
            identity = items[0][0].value
            sent = requests.setdefault(identity, Sent("", b"", entry["key"], items))
            if entry["kind"] == "acknowledged":
                sent.ids = entry["ids"]
    return list(requests.values())
