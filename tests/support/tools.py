"""Programs that some tests need and not every machine has."""

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """Return the path of a program; without it skip the test, or fail it where all must run."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed"
    if os.environ.get("OCEAN_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
