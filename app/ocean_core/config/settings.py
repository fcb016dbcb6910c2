"""Every setting, declared once: name, type, default, bounds and explanation.

``ocean config show``, ``docs/configuration.md`` and its test all come from this declaration.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ocean_core.model import limits


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How clients reach the box."""

    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="Address to listen on. Beyond loopback, keys are demanded and the section "
            "network applies; to keep local sensors apart, set network.host instead.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port for HTTP; 0 takes any free one.")
    ] = 8030
    body_bytes_max: Annotated[
        int,
        Meta(ge=1024, le=48 * limits.MIB, description="Largest request body, bytes; more is 413."),
    ] = limits.BODY_BYTES_MAX
    connections_max: Annotated[
        int,
        Meta(
            ge=1,
            le=65536,
            description="Open HTTP connections at once; beyond it an idle one is closed, "
            "or the new one refused with 503.",
        ),
    ] = limits.CONNECTIONS_MAX
    request_timeout_s: Annotated[
        int,
        Meta(
            ge=1, le=600, description="Seconds a client may take for the header, and for the body."
        ),
    ] = limits.REQUEST_TIMEOUT_S
    keep_alive_s: Annotated[
        int, Meta(ge=1, le=3600, description="Seconds an idle HTTP connection is kept open.")
    ] = 75
    fast_path: Annotated[
        bool,
        Meta(
            description="Take readings by the short way, many times faster; with false they take "
            "that of all other requests, and the answers are the same."
        ),
    ] = True


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second listener, for other machines. Every request to it needs a key."""

    host: Annotated[
        str,
        Meta(description="Address to listen on for other machines, 0.0.0.0 for all; empty: none."),
    ] = ""
    port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port for other machines; 0 takes any free one.")
    ] = 8443
    tls_cert: Annotated[
        str,
        Meta(
            description="PEM file with the certificate; empty: tls/cert.pem in the data directory."
        ),
    ] = ""
    tls_key: Annotated[
        str,
        Meta(description="PEM file with its key; empty: tls/key.pem in the data directory."),
    ] = ""
    allow_plain: Annotated[
        bool,
        Meta(
            description="Listen without TLS if there is no certificate; keys then cross the "
            "network in the clear."
        ),
    ] = False
    connections_per_address_max: Annotated[
        int,
        Meta(ge=1, le=65536, description="Open HTTP connections from one other machine."),
    ] = 64


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may do what."""

    trust_loopback: Annotated[
        bool,
        Meta(description="Programs on this machine may do everything without a key."),
    ] = True
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Further names of this box that clients may use in the Host header."),
    ] = ()
    requests_per_address_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests per second from one other machine; 0: no limit.",
        ),
    ] = 2_000
    session_hours: Annotated[
        int,
        Meta(
            ge=1,
            le=720,
            description="Hours a session lives without being used; each use renews it, "
            "for 30 days at most.",
        ),
    ] = 24


class BillingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accounts of users."""

    enforce: Annotated[
        bool,
        Meta(
            description="Each reading stored under a user's key costs one credit; "
            "without credits it is refused (402)."
        ),
    ] = False
    initial_credits: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="Credits a new user starts with.")
    ] = 0
    plan: Annotated[
        str, Meta(min_length=1, max_length=64, description="Plan of a new user's account.")
    ] = "free"


class DataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where everything is kept."""

    dir: Annotated[
        str, Meta(min_length=1, description="The data directory; made if it does not exist.")
    ] = "./ocean-data"


class JournalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How readings become durable."""

    durability: Annotated[
        Literal["fsync", "os"],
        Meta(
            description="fsync: acknowledged readings survive a power cut. "
            "os: they survive kill -9 only (faster; shown as a warning)."
        ),
    ] = "fsync"
    commit_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Milliseconds to gather readings before a commit; "
            "saves flash wear, costs acknowledgement time.",
        ),
    ] = 0


class IngestSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken in."""

    series_per_sensor_max: Annotated[
        int, Meta(ge=1, le=100_000, description="Most different metrics one sensor may have.")
    ] = limits.SERIES_PER_SENSOR_MAX
    series_total_max: Annotated[
        int, Meta(ge=1, le=2_000_000, description="Most series (sensor and metric) on this box.")
    ] = limits.SERIES_TOTAL_MAX
    idempotency_hours: Annotated[
        int, Meta(ge=1, le=720, description="Hours an Idempotency-Key is remembered.")
    ] = limits.IDEMPOTENCY_KEPT_S // 3600
    idempotency_keys_max: Annotated[
        int,
        Meta(
            ge=1000,
            le=100_000_000,
            description="Most Idempotency-Keys remembered; beyond it the oldest go first.",
        ),
    ] = limits.IDEMPOTENCY_KEYS_MAX


class AnalyticsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How questions are answered."""

    memory_limit_mb: Annotated[
        int, Meta(ge=64, le=1_048_576, description="Memory DuckDB may use, MiB.")
    ] = 128
    threads: Annotated[int, Meta(ge=1, le=64, description="Threads DuckDB may use.")] = 2
    query_timeout_s: Annotated[
        int, Meta(ge=1, le=3600, description="Seconds after which a query is given up.")
    ] = limits.QUERY_TIMEOUT_S
    live_window_mb: Annotated[
        int, Meta(ge=1, le=4096, description="Memory for recent readings, MiB.")
    ] = limits.LIVE_WINDOW_BYTES_MAX // limits.MIB
    drain_interval_active_ms: Annotated[
        int,
        Meta(
            ge=50,
            le=60_000,
            description="Milliseconds between moves into analytics while someone queries.",
        ),
    ] = 250
    drain_interval_idle_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="Seconds between moves into analytics while nobody queries.",
        ),
    ] = 30


class NanogridataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frames of the binary protocol Nanogridata, see docs/nanogridata.md."""

    tcp: Annotated[bool, Meta(description="Listen for frames over TCP.")] = True
    udp: Annotated[bool, Meta(description="Listen for frames over UDP.")] = True
    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="Address to listen on for both, 0.0.0.0 for all. Beyond loopback there "
            "must be a secret, and min_level must be 1 or more.",
        ),
    ] = "127.0.0.1"
    tcp_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port for frames; 0 takes any free one.")
    ] = 5678
    udp_port: Annotated[
        int, Meta(ge=0, le=65535, description="UDP port for frames; 0 takes any free one.")
    ] = 5679
    connections_max: Annotated[
        int, Meta(ge=1, le=65536, description="Open TCP connections of devices at once.")
    ] = limits.FRAME_CONNECTIONS_MAX
    connections_per_address_max: Annotated[
        int, Meta(ge=1, le=65536, description="Open TCP connections from one other machine.")
    ] = 64
    idle_s: Annotated[
        int,
        Meta(ge=30, le=86400, description="Seconds a TCP connection may say nothing at all."),
    ] = 600
    frames_per_second_max: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Frames per second from one connection, or one UDP sender; 0: no limit. "
            "Over TCP the sender is slowed down, over UDP what is beyond is refused.",
        ),
    ] = 0
    min_level: Annotated[
        int,
        Meta(
            ge=0,
            le=3,
            description="Lowest security level accepted: 0 checksum only, 1 signed, 2 and 3 "
            "encrypted.",
        ),
    ] = 0
    unknown_model: Annotated[
        Literal["accept", "reject"],
        Meta(description="What to do with frames of models that nobody described."),
    ] = "accept"
    crc_variants: Annotated[
        tuple[Literal["ccitt", "split", "modbus"], ...],
        Meta(
            min_length=1,
            description="Forms of the level-0 checksum to accept, in the order tried: ccitt, "
            "split, modbus.",
        ),
    ] = ("ccitt",)
    plaintext_high: Annotated[
        bool, Meta(description="Accept payloads at levels 2 and 3 that are signed, not encrypted.")
    ] = False
    high_mac_size: Annotated[
        int,
        Meta(
            ge=16,
            le=32,
            multiple_of=16,
            description="Bytes of the check value at level 2: 32, or 16 for old senders.",
        ),
    ] = 32
    max_payload: Annotated[
        int, Meta(ge=64, le=1024, description="Largest payload of a frame, bytes.")
    ] = 1024
    max_age_s: Annotated[
        int,
        Meta(
            ge=60,
            le=604_800,
            description="Seconds a frame may be old; devices that store and forward need more. "
            "As long is remembered which frames came.",
        ),
    ] = 3600
    future_tolerance_s: Annotated[
        int, Meta(ge=0, le=86400, description="Seconds a frame may be ahead of this box's clock.")
    ] = 60
    frames_remembered_max: Annotated[
        int,
        Meta(
            ge=10_000,
            le=100_000_000,
            description="Most frames remembered in memory to tell repeats, about 32 bytes each.",
        ),
    ] = limits.FRAMES_REMEMBERED_MAX
    models_file: Annotated[
        str,
        Meta(
            description="TOML file that describes further models and what each may; empty: "
            "nanogridata.toml in the data directory, if it is there."
        ),
    ] = ""
    secret_files: Annotated[
        tuple[str, ...],
        Meta(
            description="Files with secrets (hex or raw bytes), each as MODEL=PATH, for example "
            "0x10=/etc/ocean/esp32.key; for a group of devices 0x10/line-3:press-*=PATH."
        ),
    ] = ()
    quarantine_frames_max: Annotated[
        int,
        Meta(
            ge=100,
            le=1_000_000,
            description="Most refused frames kept to look at and try again; the oldest go first.",
        ),
    ] = limits.QUARANTINE_FRAMES_MAX


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least important log events written."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="text for people, json for log collectors.")
    ] = "text"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings by section."""

    server: ServerSettings = ServerSettings()
    network: NetworkSettings = NetworkSettings()
    access: AccessSettings = AccessSettings()
    billing: BillingSettings = BillingSettings()
    data: DataSettings = DataSettings()
    journal: JournalSettings = JournalSettings()
    ingest: IngestSettings = IngestSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    nanogridata: NanogridataSettings = NanogridataSettings()
    log: LogSettings = LogSettings()


class SettingInfo(msgspec.Struct, frozen=True):
    """One setting as its declaration has it."""

    name: str
    type_text: str
    default: object
    description: str
    annotation: object

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets it."""
        return "OCEAN_" + self.name.upper().replace(".", "__")


def all_settings() -> list[SettingInfo]:
    """Return every setting in the order of declaration."""
    infos: list[SettingInfo] = []
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            kind = msgspec.inspect.type_info(field.type)
            description = ""
            if isinstance(kind, msgspec.inspect.Metadata):
                description = (kind.extra_json_schema or {}).get("description", "")
                kind = kind.type
            infos.append(
                SettingInfo(
                    f"{section.name}.{field.name}",
                    _type_text(kind),
                    field.default,
                    description,
                    field.type,
                )
            )
    return infos


def _type_text(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(f'"{value}"' for value in kind.values)
    if isinstance(kind, msgspec.inspect.IntType):
        return f"whole number {kind.ge} to {kind.le}"
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return "list of text"
    return "text"
