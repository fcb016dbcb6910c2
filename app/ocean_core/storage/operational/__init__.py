"""Operational data in SQLite: users, sessions, billing, metadata, profiles, sensors, keys, audit."""

from ocean_core.storage.operational.settings import OperationalSettings, OperationalTuning
from ocean_core.storage.operational.store import OperationalStore

__all__ = ["OperationalSettings", "OperationalStore", "OperationalTuning"]
