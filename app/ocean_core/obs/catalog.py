"""Every metric of the appliance. ``docs/metrics.md`` describes each; a test compares the two.

Names without a layer (``ocean_requests_total`` and the like) are those of the product's first
design document; the rest follow ``ocean_<layer>_<noun>_<unit>``.
"""

from __future__ import annotations

from typing import Final

from ocean_core.obs.metrics import Metric

METRICS: Final = (
    Metric("ocean_cpu_usage_percent", "gauge", "CPU used, percent of one core.", ("process",)),
    Metric("ocean_memory_usage_bytes", "gauge", "Resident memory.", ("process",)),
    Metric("ocean_requests_total", "counter", "HTTP requests answered.", ("route", "status")),
    Metric(
        "ocean_request_duration_seconds", "histogram", "Time to answer HTTP requests.", ("route",)
    ),
    Metric("ocean_errors_total", "counter", "Errors answered to clients.", ("code",)),
    Metric("ocean_ingress_fast_requests_total", "counter", "Ingest requests answered by the fast path."),
    Metric("ocean_telemetry_ingested_total", "counter", "Readings and events acknowledged."),
    Metric("ocean_telemetry_duplicate_total", "counter", "Readings sent again, not stored twice."),
    Metric("ocean_telemetry_refused_total", "counter", "Requests with readings that were refused, each once; and items refused out of a batch whose others were stored.", ("code",)),
    Metric(
        "ocean_nanogridata_frames_total", "counter",
        "Frames by what became of them: stored, duplicate, or the error.",
        ("transport", "model", "outcome"),
    ),
    Metric("ocean_nanogridata_connections", "gauge", "Open TCP connections of devices."),
    Metric("ocean_nanogridata_skipped_bytes_total", "counter", "Bytes between frames that belong to none.", ("transport",)),
    Metric("ocean_nanogridata_udp_dropped_total", "counter", "Datagrams that the system dropped because they came faster than they were read."),
    Metric("ocean_nanogridata_crc_disabled_total", "counter", "Level-0 frames whose checksum is right in a form that is switched off.", ("variant",)),
    Metric("ocean_nanogridata_remembered_frames", "gauge", "Frames remembered to tell repeats."),
    Metric("ocean_nanogridata_forgotten_frames_total", "counter", "Frames forgotten early, because too many came."),
    Metric("ocean_nanogridata_gap_frames_total", "counter", "Frames that devices with a steady pace seem to have lost (an estimate)."),
    Metric("ocean_quarantine_frames", "gauge", "Refused frames kept."),
    Metric("ocean_quarantine_kept_total", "counter", "Refused frames taken into quarantine."),
    Metric("ocean_quarantine_evicted_total", "counter", "Refused frames that had to leave quarantine, or found no room."),
    Metric("ocean_queries_processed_total", "counter", "Analytics queries answered.", ("query",)),
    Metric(
        "ocean_database_query_duration_seconds", "histogram",
        "Time inside analytics per query.", ("query",),
    ),
    Metric("ocean_database_errors_total", "counter", "Errors of a database file.", ("store",)),
    Metric("ocean_buffer_commits_total", "counter", "Journal transactions committed."),
    Metric("ocean_buffer_commit_duration_seconds", "histogram", "Time per journal commit."),
    Metric("ocean_buffer_written_bytes", "counter", "Block bytes committed to the journal."),
    Metric("ocean_buffer_depth_readings", "gauge", "Readings not yet moved into analytics."),
    Metric("ocean_buffer_queue_bytes", "gauge", "Bytes waiting for the journal's writer."),
    Metric("ocean_buffer_head_id", "gauge", "Id of the last durable reading."),
    Metric("ocean_buffer_missing_readings", "gauge", "Acknowledged readings found missing."),
    Metric("ocean_buffer_idempotency_evicted_total", "counter", "Idempotency keys forgotten early."),
    Metric("ocean_buffer_frames_evicted_total", "counter", "Notes of stored frames deleted early, because the journal took too much of the disk."),
    Metric("ocean_buffer_ready", "gauge", "1 while readings can be acknowledged."),
    Metric("ocean_accounts_ready", "gauge", "1 while accounts can be changed."),
    Metric("ocean_accounts_users", "gauge", "Users."),
    Metric("ocean_accounts_sessions", "gauge", "Sessions that have not expired."),
    Metric("ocean_accounts_keys", "gauge", "Access keys that are neither revoked nor expired."),
    Metric("ocean_accounts_commits_total", "counter", "Transactions of the operational store."),
    Metric(
        "ocean_accounts_commit_duration_seconds", "histogram",
        "Time per transaction of the operational store, with all changes in it.",
    ),
    Metric("ocean_accounts_queue_commands", "gauge", "Changes waiting for the operational store."),
    Metric("ocean_pipeline_watermark_id", "gauge", "Id of the last reading in analytics."),
    Metric("ocean_pipeline_drains_total", "counter", "Mover transactions committed."),
    Metric("ocean_pipeline_moved_readings_total", "counter", "Readings moved into analytics."),
    Metric("ocean_pipeline_drain_duration_seconds", "histogram", "Time per mover transaction."),
    Metric("ocean_pipeline_live_window_bytes", "gauge", "Estimated memory of the live window."),
    Metric("ocean_pipeline_rebuilds_total", "counter", "Rebuilds of the analytics file.", ("reason",)),
    Metric("ocean_archive_sealed_rows_total", "counter", "Readings and events moved into the archive."),
    Metric("ocean_archive_seal_duration_seconds", "histogram", "Time per range that was sealed."),
    Metric("ocean_archive_sealed_up_to_id", "gauge", "Id up to which everything is in the archive."),
    Metric("ocean_archive_damaged_parts_total", "counter", "Files of the archive found damaged."),
    Metric("ocean_archive_compacted_parts_total", "counter", "Files of the archive merged into others."),
    Metric("ocean_archive_parts", "gauge", "Parquet files of the archive."),
    Metric("ocean_archive_bytes", "gauge", "Size of the archive."),
    Metric("ocean_archive_rows", "gauge", "Readings and events in the archive."),
    Metric("ocean_storage_series", "gauge", "Series known."),
    Metric("ocean_storage_file_bytes", "gauge", "Size on disk, WAL included.", ("file",)),
    Metric("ocean_storage_disk_free_bytes", "gauge", "Free space where the data directory is."),
    Metric(
        "ocean_storage_device_written_bytes_total", "counter",
        "Bytes written to the data directory's device by anybody since the machine started; "
        "absent where the system does not count them.",
    ),
    Metric(
        "ocean_storage_written_bytes_per_reading", "gauge",
        "Bytes both processes sent to block devices per reading stored, since the start.",
    ),
    Metric("ocean_process_written_bytes", "counter", "Bytes sent to block devices.", ("process",)),
    Metric("ocean_runtime_analytics_starts_total", "counter", "Starts of the analytics process."),
    Metric("ocean_runtime_alarms_open", "gauge", "Alarms raised and not cleared."),
    Metric("ocean_runtime_uptime_seconds", "gauge", "Seconds since the start."),
    Metric("ocean_runtime_durability_reduced", "gauge", "1 when durability is os, not fsync."),
)  # fmt: skip
