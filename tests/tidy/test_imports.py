"""What a process really loads.

The layers say who may import whom; only a fresh interpreter shows what comes along in the end. A
process that loads what it does not need starts later and holds memory for nothing, and the ingest
process must not be able to fall over a defect of DuckDB.
"""

import subprocess
import sys

import pytest

REPORT = """
import importlib, sys
importlib.import_module(sys.argv[1])
print("\\n".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def packages_loaded_by(module: str) -> set[str]:
    child = subprocess.run(
        [sys.executable, "-c", REPORT, module],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return set(child.stdout.split())


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("ocean_core.runtime.ingest_process", {"duckdb", "_duckdb", "textual", "cryptography"}),
        ("ocean_core.api.app", {"duckdb", "_duckdb", "textual", "cryptography"}),
        ("ocean_core.runtime.analytics_process", {"litestar", "uvicorn", "textual"}),
        (
            "ocean_core.cli.main",
            {"duckdb", "_duckdb", "litestar", "numpy", "textual", "cryptography"},
        ),
        # What programs of others load: nothing of the server.
        ("ocean_core", {"asyncio", "msgspec", "socket", "ssl"}),
        (
            "ocean_core.facade",
            {"apsw", "asyncio", "click", "duckdb", "litestar", "numpy", "uvicorn"},
        ),
        ("ocean_core.cli.keys", {"apsw", "duckdb", "litestar", "numpy", "uvicorn", "cryptography"}),
        ("ocean_core.cli.simulate", {"apsw", "duckdb", "litestar", "uvicorn", "cryptography"}),
        (
            "ocean_core.cli.decode",
            {"apsw", "asyncio", "duckdb", "litestar", "uvicorn", "cryptography"},
        ),
        (
            "ocean_core.cli.encode",
            {"apsw", "asyncio", "duckdb", "litestar", "uvicorn", "cryptography"},
        ),
        ("ocean_core.protocol", {"asyncio", "socket", "apsw", "sqlite3", "duckdb"}),
        ("ocean_core.model", {"asyncio", "socket", "apsw", "sqlite3", "duckdb"}),
    ],
)
def test_process_does_not_load_what_it_does_not_need(module: str, unwanted: set[str]) -> None:
    assert packages_loaded_by(module) & unwanted == set()


def test_check_sees_what_is_loaded() -> None:
    assert "sqlite3" in packages_loaded_by("sqlite3.dbapi2")
