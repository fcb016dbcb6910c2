"""Settings of what keeps the data directory in shape over years."""

from __future__ import annotations

import re
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from ocean_core.model.errors import ConfigError

DAYS_MAX: Final = 36_500


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the archive is kept."""

    archive_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days after which readings and events are removed from the archive; 0: "
            "never. Their rollups stay.",
        ),
    ] = 0
    archive_gb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Size in GB (10^9 bytes) beyond which the oldest of the archive is "
            "removed; 0: no limit.",
        ),
    ] = 0
    rollup_1m_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days the sums of minutes are kept; 0: for ever.")
    ] = 0
    rollup_1h_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Days the sums of hours are kept; 0: for ever.")
    ] = 0
    sensors: Annotated[
        tuple[str, ...],
        Meta(
            description='Other days for some sensors, as "PATTERN: archive_days=90"; the first '
            "that fits counts, 0 keeps them."
        ),
    ] = ()


class SensorDays(NamedTuple):
    """Days that readings of the sensors are kept whose name fits a pattern; 0: for ever."""

    pattern: str
    days: int


def sensor_days(settings: RetentionSettings) -> tuple[SensorDays, ...]:
    """Return the rules of ``retention.sensors``. Raises ConfigError: which one, and what is wrong."""
    found: list[SensorDays] = []
    for text in settings.sensors:
        # Names of sensors may have colons of their own.
        pattern, colon, setting = text.rpartition(":")
        name, equals, days = (part.strip() for part in setting.partition("="))
        pattern = pattern.strip()
        if not (colon and equals and pattern and name == "archive_days"):
            raise ConfigError(
                f'retention.sensors: found "{text}", expected "PATTERN: archive_days=DAYS"'
            )
        if not re.fullmatch("[0-9]{1,5}", days) or int(days) > DAYS_MAX:
            raise ConfigError(
                f'retention.sensors: found archive_days="{days}" in "{text}", expected a whole '
                f"number from 0 to {DAYS_MAX}"
            )
        found.append(SensorDays(pattern, int(days)))
    return tuple(found)
