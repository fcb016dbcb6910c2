"""`ocean replay`: posts a recorded series, once each, also across a restart of the server."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from ocean_core.cli.engine import source_of
from ocean_core.cli.options import ConnectionOptions, connection_options
from ocean_core.cli.tables import counted
from ocean_core.client.http import ApiClient, ServerSource
from ocean_core.model.errors import CommandError, OceanError
from ocean_core.obs.clock import SystemClock

BATCH_ROWS: Final = 1000
TIME_COLUMNS: Final = ("timestamp", "time", "ts", "datetime", "date")
RETRY_FOR_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: its time as written, and one number per column that has one."""

    line: int
    timestamp: str
    values: dict[str, float]

    def item(self, sensor_id: str) -> dict[str, Any]:
        """Return the row as an ingest item."""
        base: dict[str, Any] = {"sensor_id": sensor_id, "timestamp": self.timestamp}
        if list(self.values) == ["value"]:
            return {**base, "value": self.values["value"]}
        return {**base, "values": self.values}


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sensor", required=True, help="Sensor id to post the readings as.")
@click.option("--speed", type=float, help="Times real time, by the gaps in the file; 60 = 1 h/min.")
@click.option("--fast", is_flag=True, help="As fast as the server takes it (the default).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@connection_options
def replay_command(
    *,
    file: Path,
    sensor: str,
    speed: float | None,
    fast: bool,
    connection: ConnectionOptions,
    as_json: bool,
) -> None:
    """Post a recorded series from a CSV file.

    The file has a header with a time column (timestamp, time, ts, datetime or date) and one or more columns of
    numbers. What is not acknowledged is sent again with the same Idempotency-Key, so that nothing
    is stored twice even if the server is restarted meanwhile. The keys come from the file and the
    sensor: the same file replayed again for the same sensor within a day adds nothing.
    """
    if speed is not None and (fast or speed <= 0):
        raise click.UsageError("--speed takes a number above 0 and does not go with --fast")
    rows = read_rows(file)
    sender = _Sender(source_of(connection, may_start=False), sensor, series_digest(file, sensor))
    with (
        contextlib.closing(sender),
        click.progressbar(
            length=len(rows), label=f"replaying {counted(len(rows), 'row')}", hidden=as_json
        ) as bar,
    ):
        for group in _groups(rows, speed):
            sender.post(group)
            bar.update(len(group))
    acknowledged = sender.stored + sender.stored_before
    if as_json:
        result = {
            "rows": len(rows),
            "acknowledged": acknowledged,
            "stored_before": sender.stored_before,
            "sensor_id": sensor,
        }
        click.echo(json.dumps(result))
        return
    click.echo(f"{counted(acknowledged, 'reading')} of {sensor} acknowledged")
    if sender.stored_before:
        click.echo(f"{sender.stored_before:,} of that stored by an earlier replay of the file")


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV file.

    Raises CommandError naming line and column of the first thing that is not as it should be.
    """
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader, [])]
        time_column = next((i for i, n in enumerate(header) if n.lower() in TIME_COLUMNS), None)
        if time_column is None or len(header) < 2:
            raise CommandError(
                f"{file}: the first line must name a time column ({', '.join(TIME_COLUMNS)}) "
                f"and at least one column of numbers; it is {header!r}"
            )
        rows = [
            _row(file, reader.line_num, header, time_column, cells) for cells in reader if cells
        ]
    if not rows:
        raise CommandError(f"{file}: there are no rows after the header")
    return rows


def _row(file: Path, line: int, header: list[str], time_column: int, cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise CommandError(f"{file}, line {line}: {len(cells)} cells, the header has {len(header)}")
    values: dict[str, float] = {}
    for column, (name, cell) in enumerate(zip(header, cells, strict=True)):
        if column == time_column or not cell.strip():
            continue
        try:
            values[name] = float(cell)
        except ValueError:
            values[name] = math.nan
        if not math.isfinite(values[name]):
            raise CommandError(
                f"{file}, line {line}, column {name!r}: {cell[:40]!r} is no finite number"
            )
    if not values:
        raise CommandError(f"{file}, line {line}: there is no number")
    return Row(line, cells[time_column].strip(), values)


def _groups(rows: list[Row], speed: float | None) -> Iterator[list[Row]]:
    """Yield batches at once, or rows one by one as their time comes."""
    if speed is None:
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows[start : start + BATCH_ROWS]
        return
    # Decoding loads numpy, which a fast replay does without.
    from ocean_core.protocol.readings.timestamps import TimestampError, timestamp_us

    def moment_us(row: Row) -> int:
        try:
            return timestamp_us(row.timestamp)
        except TimestampError as error:
            raise CommandError(
                f"line {row.line}: the time is {row.timestamp!r}; it must be {error}"
            ) from error

    clock = SystemClock()
    began = clock.monotonic()
    first_us = moment_us(rows[0])
    for row in rows:
        due_s = (moment_us(row) - first_us) / 1e6 / speed
        time.sleep(max(0.0, began + due_s - clock.monotonic()))
        yield [row]


class _Sender:
    """Posts groups of rows; what was not acknowledged is sent again."""

    def __init__(self, source: ServerSource, sensor: str, series_digest: str) -> None:
        self._api = ApiClient(
            source, timeout_s=RETRY_FOR_S, clock=SystemClock(), pause=time.sleep, tell=_tell
        )
        self._sensor = sensor
        self._series_digest = series_digest
        self.stored = 0
        self.stored_before = 0

    def post(self, rows: list[Row]) -> None:
        """Have the rows acknowledged.

        Raises the server's error when it refuses, NotRunningError when it is not there at the
        first contact, or stays away.
        """
        answer = self._api.call(
            "POST",
            "/api/ocean/telemetry/batch",
            body=[row.item(self._sensor) for row in rows],
            idempotency_key=f"replay-{self._series_digest}-{rows[0].line}-{len(rows)}",
        )
        readings = sum(len(row.values) for row in rows)
        if answer.get("duplicate"):
            self.stored_before += readings
        else:
            self.stored += readings

    def close(self) -> None:
        """Close the connection."""
        self._api.close()


def _tell(failure: OceanError) -> None:
    click.echo(f"\n{failure.detail}; trying again (Ctrl-C ends this)", err=True)


def series_digest(file: Path, sensor: str) -> str:
    """Return what tells this series from others: file content and sensor."""
    digest = hashlib.sha256(file.read_bytes())
    digest.update(sensor.encode())
    return digest.hexdigest()[:24]
