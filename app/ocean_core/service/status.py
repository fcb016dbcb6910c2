"""The answer of /api/ocean/status, part by part."""

from __future__ import annotations

import msgspec

from ocean_core.service.alarms import Alarm
from ocean_core.service.flash import FlashStatus


class ProcessState(msgspec.Struct):
    """One process as the operating system sees it."""

    pid: int
    cpu_percent: float
    memory_mb: float


class BufferStatus(msgspec.Struct):
    """The ingestion buffer."""

    engine: str
    state: str
    reason: str
    durability: str
    head_id: int
    depth: int
    missing_readings: int
    missing_ranges: list[tuple[int, int]]


class AnalyticsStatus(msgspec.Struct):
    """The analytics process; ``state`` is up, rebuilding or down."""

    state: str
    watermark: int
    series: int
    starts: int
    rebuild_percent: float | None


class ArchiveStatus(msgspec.Struct):
    """What is sealed into Parquet files: ids up to ``sealed_up_to``; days are UTC.

    ``trouble`` tells why nothing can be sealed at the moment, empty if it can.
    """

    sealed_up_to: int
    parts: int
    rows: int
    mb: float
    oldest: str
    newest: str
    trouble: str


class AccountsStatus(msgspec.Struct):
    """Users, sessions and access keys that count now; ``state`` is ready or failed."""

    state: str
    users: int
    sessions: int
    keys: int


class IngestStatus(msgspec.Struct):
    """What came in since the start, and how fast acknowledgements were, milliseconds.

    ``commits_within_ms``: how many commits took at most so long; the last one counts all.
    """

    acknowledged: int
    duplicates: int
    refused: int
    readings_per_second: float
    commit_ms_p50: float | None
    commit_ms_p99: float | None
    commits_within_ms: dict[str, int]


class FramesStatus(msgspec.Struct):
    """Nanogridata since the start: where frames are taken, and what became of them.

    ``tcp`` and ``udp`` are addresses, empty where none is taken; ``skipped_bytes`` belonged to no
    frame; ``quarantined`` is how many refused frames are kept now.
    """

    tcp: str
    udp: str
    connections: int
    stored: int
    duplicates: int
    refused: int
    skipped_bytes: int
    quarantined: int


class SystemStatus(msgspec.Struct):
    """The answer of /api/ocean/status; the first five fields are the original's."""

    status: str
    cpu_efficient: bool
    engine: str
    telemetry_buffer_size: int
    memory_usage_mb: float
    version: str
    timestamp: str
    uptime_seconds: float
    data_dir: str
    previous_stop: str
    buffer: BufferStatus
    analytics: AnalyticsStatus
    archive: ArchiveStatus | None
    accounts: AccountsStatus
    ingest: IngestStatus
    frames: FramesStatus
    processes: dict[str, ProcessState]
    flash: FlashStatus
    files_mb: dict[str, float]
    disk_free_mb: float
    clock_synchronised: bool
    alarms: list[Alarm]
