"""Ocean Core: one executable that receives, keeps, analyses and serves sensor readings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ocean_core.facade import DataEngine

__version__ = "2.0.0"
__all__ = ["get_data_engine"]


def get_data_engine(
    url: str | None = None,
    *,
    data_dir: str | Path | None = None,
    key: str | None = None,
    key_file: str | Path | None = None,
    cacert: str | Path | None = None,
    timeout_s: float = 30.0,
) -> DataEngine:
    """Return the engine of a server or of a data directory; see ``ocean_core.facade``."""
    # Loaded when asked for: every process of the box imports this package.
    from ocean_core.facade import get_data_engine

    return get_data_engine(
        url, data_dir=data_dir, key=key, key_file=key_file, cacert=cacert, timeout_s=timeout_s
    )
