"""A process that changes an operational store until it is killed; a program of its own.

Prints the name of each change once it is acknowledged. Arguments: directory, name of the run.
"""

import asyncio
import itertools
import os
import sys
from functools import partial
from pathlib import Path

import apsw

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import SystemClock
from ocean_core.obs.faults import Faults
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.storage.operational import OperationalSettings, OperationalStore

CLIENTS = 16
PARTS = 3


def change(db: apsw.Connection, name: str) -> None:
    """Several rows that belong together, one of them longer than a page."""
    for part in range(PARTS):
        value = f'"{name}' + "x" * (5000 if part == 1 else 10) + '"'
        db.execute("INSERT INTO metadata VALUES (?, ?, 0, NULL)", (f"{name}/{part}", value))


async def main(directory: Path, run: str) -> None:
    clock = SystemClock()
    store = OperationalStore(
        OperationalSettings(
            path=directory / "clisonix_operational.db",
            clock=clock,
            random_bytes=os.urandom,
            log=EventLog(clock),
            metrics=MetricsRegistry(METRICS),
            faults=Faults.from_environment(),
            was_clean=False,
        ),
        on_state=lambda ready, reason: None,
    )
    await store.open()
    print("open", flush=True)
    numbers = itertools.count()

    async def client() -> None:
        while True:
            name = f"{run}-{next(numbers)}"
            await store.write(partial(change, name=name))
            print(name, flush=True)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
