"""Measures the product beside baselines of the same run: `make bench ARGS="--quick --only start"`.

Results go to standard output, one block per figure (or all as JSON), progress to standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from loading import Datasets

from support import Figure, Plan, measure_sync_ms, progress, real_disk

# Rebuild last: it changes the data that queries and disk measure.
ROWS = (
    "start",
    "journal",
    "operational",
    "accounts",
    "singles",
    "batches",
    "nanogridata",
    "nanogridata_decode",
    "flash",
    "resources",
    "disk",
    "queries",
    "rebuild",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter rounds, 1 M readings only")
    parser.add_argument("--only", default=",".join(ROWS), help="rows, comma separated: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--markdown", action="store_true", help="print tables for the documentation"
    )
    parser.add_argument(
        "--patience", type=float, default=10.0, metavar="SECONDS",
        help="how long a round waits for other programs to be quiet (%(default)s)",
    )  # fmt: skip
    given = parser.parse_args()
    names = given.only.split(",")
    unknown = set(names) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; known are {', '.join(ROWS)}")
    place = Path(tempfile.mkdtemp(prefix="ocean-bench-", dir=real_disk()))
    failed: dict[str, str] = {}
    noise: dict[str, float] = {}
    figures: list[Figure] = []
    try:
        machine = describe(place)
        if not given.json:
            print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
        plan = Plan(given.quick, place, given.patience)
        datasets = Datasets(plan)
        for name in (row for row in ROWS if row in names):
            progress(name)
            if not given.json:
                print(f"\n{name}")
            try:
                for figure in importlib.import_module(f"rows.{name}").run(plan, datasets):
                    figures.append(figure)
                    if not given.json:
                        print(
                            figure.as_markdown() if given.markdown else figure.as_text(), flush=True
                        )
                noise[name] = statistics.median(plan.noise) if plan.noise else 0.0
                plan.noise.clear()
                if not given.json:
                    print(f"  other programs used {noise[name]:.0f} % of the CPU before rounds")
            except (RuntimeError, TimeoutError, OSError, AssertionError) as error:
                # One row that fails must not cost the others.
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"  {name} FAILED: {failed[name]}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if given.json:
        found = {
            "machine": machine,
            "figures": [figure.as_json() for figure in figures],
            "others_cpu_percent": noise,
            "failed": failed,
        }
        print(json.dumps(found, indent=2))
    return 1 if failed else 0


def describe(place: Path) -> dict[str, Any]:
    """Return what the figures depend on, and nothing that tells whose machine it is."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "fdatasync_ms": round(measure_sync_ms(place), 3),
        "load_before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
