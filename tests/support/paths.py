"""Where things are in the checkout, for tests that read files of the project."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "app" / "ocean_core"
EXECUTABLE = REPO / "dist" / "ocean"
