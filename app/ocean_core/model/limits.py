"""Every maximum of the appliance, in one place (invariant I5: everything is bounded).

Values that an operator may change stand in ``config.settings``; what stands here is fixed,
or is the default of such a setting.
"""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024

# Names.
SENSOR_ID_BYTES_MAX: Final = 256
METRIC_BYTES_MAX: Final = 128
METRICS_PER_ITEM_MAX: Final = 64
SERIES_PER_SENSOR_MAX: Final = 256
SERIES_TOTAL_MAX: Final = 200_000

# HTTP bodies and connections.
BODY_BYTES_MAX: Final = 16 * MIB
CONNECTIONS_MAX: Final = 512
REQUEST_TIMEOUT_S: Final = 10
DECODE_INLINE_BYTES_MAX: Final = 256 * 1024
DECODE_SLOWLY_INLINE_BYTES_MAX: Final = 8 * 1024
BODIES_BYTES_MAX: Final = 96 * MIB
BODY_BYTES_COUNTED_FROM: Final = 32 * 1024
BODY_DISCARD_BYTES_MAX: Final = 256 * MIB
BODY_DISCARD_S: Final = 10.0
BODY_DISCARD_PAUSE_S: Final = 0.25
REJECTS_LISTED_MAX: Final = 100
IDEMPOTENCY_KEY_BYTES_MAX: Final = 255
IDEMPOTENCY_KEPT_S: Final = 24 * 3600
IDEMPOTENCY_KEYS_MAX: Final = 2_000_000

# One request may not hold more items than a block may hold rows.
BATCH_ITEMS_MAX: Final = 500_000
EVENT_BYTES_MAX: Final = 1 * MIB

# Timestamps, microseconds since 1970-01-01 UTC.
TIMESTAMP_US_MIN: Final = 0
TIMESTAMP_US_MAX: Final = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
TIMESTAMP_PLAUSIBLE_US_MIN: Final = 946_684_800_000_000  # 2000-01-01, see quality 2
FUTURE_TOLERANCE_US: Final = 60_000_000

# Blocks.
BLOCK_ROWS_MAX: Final = 1_000_000
BLOCK_MERGE_ROWS_MAX: Final = 65_536
BLOCK_BYTES_MAX: Final = 64 * MIB
READING_ID_MAX: Final = 2**53 - 1

# The journal's queue between the event loop and the writer thread.
JOURNAL_QUEUE_BYTES_MAX: Final = 64 * MIB
JOURNAL_QUEUE_REQUESTS_MAX: Final = 50_000
JOURNAL_WAL_PAGES_MAX: Final = 1_000

# Mover and live window.
MOVER_ROWS_PER_DRAIN: Final = 50_000
MOVER_ROWS_PER_DRAIN_BEHIND: Final = 200_000
LIVE_WINDOW_BYTES_MAX: Final = 32 * MIB
LIVE_RING_ROWS: Final = 1_024

# Queries.
QUERY_TIMEOUT_S: Final = 30
TIMESERIES_BUCKETS_MAX: Final = 100_000
TIMESERIES_INTERVAL_US_MIN: Final = 1_000_000
TIMESERIES_INTERVAL_US_MAX: Final = 30 * 86_400_000_000
ANOMALIES_LISTED_DEFAULT: Final = 100
ANOMALIES_LISTED_MAX: Final = 10_000
COMPARE_SENSORS_MAX: Final = 1_000
SENSORS_PAGE_DEFAULT: Final = 1_000
SENSORS_PAGE_MAX: Final = 10_000
EVENTS_PAGE_DEFAULT: Final = 100
EVENTS_PAGE_MAX: Final = 1_000
QUERIES_WAITING_MAX: Final = 256
QUERY_FRESHNESS_WAIT_S: Final = 1.0

# Messages between the two processes.
IPC_MESSAGE_BYTES_MAX: Final = 128 * MIB

# Alarm book and status lists.
ALARMS_KEPT_MAX: Final = 200
MISSING_RANGES_LISTED_MAX: Final = 100
