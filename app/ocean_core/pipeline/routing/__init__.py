"""Routing by profile: what a device sent becomes readings of a sensor, or one event."""

from ocean_core.pipeline.routing.profile import Profile, Range, device_text, find
from ocean_core.pipeline.routing.route import Routed, moment_us, route

__all__ = ["Profile", "Range", "Routed", "device_text", "find", "moment_us", "route"]
