"""The Python face of the box: everything the HTTP API offers, as methods of one object."""

from ocean_core.facade.engine import DataEngine, get_data_engine

__all__ = ["DataEngine", "get_data_engine"]
