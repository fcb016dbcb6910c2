"""Sends load to a server that runs already, for profiling: `python bench/flood.py 8030 --seconds 60`."""

from __future__ import annotations

import argparse

from loading import generate


def main() -> None:
    parser = argparse.ArgumentParser(prog="flood", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-second", type=float, default=0.0, help="requests; 0: all it takes")
    parser.add_argument(
        "--form", choices=("single", "rows", "columnar", "ndjson", "packed"), default="single"
    )
    parser.add_argument("--rows", type=int, default=1000, help="readings per batch")
    parser.add_argument("--encoding", choices=("", "gzip", "zstd"), default="")
    given = parser.parse_args()
    kind, options, rows = "single", {}, 1
    if given.form != "single":
        kind, rows = "batch", given.rows
        options = {"form": given.form, "rows": rows, "encoding": given.encoding}
    load = generate(
        given.port, kind, connections=given.connections, seconds=given.seconds,
        per_second=given.per_second, options=options,
    )  # fmt: skip
    print(
        f"{load.rate:,.0f} requests/s, {load.rate * rows:,.0f} readings/s, p50 {load.p50_ms:.2f} ms, "
        f"p99 {load.p99_ms:.2f} ms, largest {load.max_ms:.1f} ms"
    )


main()
