"""What frames that come together share on their way."""

from __future__ import annotations

from typing import NamedTuple

from ocean_core.model.access import LOCAL, Principal
from ocean_core.service.frames.cargo import Cargo
from ocean_core.service.frames.judge import Arrival
from ocean_core.service.frames.parcel import Parcel
from ocean_core.service.frames.terms import Source


class Delivery(NamedTuple):
    """Where frames came from, when, and who sent them; their parcel, and the cargo they go with.

    ``given`` is the sensor that somebody named beside them.
    """

    parcel: Parcel
    cargo: Cargo
    source: Source
    arrival: Arrival
    principal: Principal = LOCAL
    given: str = ""
