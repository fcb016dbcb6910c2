"""What a decoded request holds, row by row, for comparing."""

from ocean_core.model.receipt import Intake


def rows_of(intake: Intake) -> list[tuple[str, str, int, float, int]]:
    """Return (sensor_id, metric, timestamp_us, value, quality) of each reading."""
    found = intake.readings
    if found is None:
        return []
    return [
        (*found.series[index], int(moment), float(value), int(quality))
        for index, moment, value, quality in zip(
            found.series_index, found.timestamp_us, found.value, found.quality, strict=True
        )
    ]
