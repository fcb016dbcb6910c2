"""The service of frames on a buffer in memory: frames in, what became of them out."""

import asyncio
import io
from collections.abc import Mapping, Sequence

from ocean_core.config.settings import IngestSettings, NanogridataSettings
from ocean_core.model.access import LOCAL, Principal
from ocean_core.model.block import Readings
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.nanogridata.encode import encode, pressure_payload
from ocean_core.protocol.nanogridata.frame import PRESSURE, Secret
from ocean_core.protocol.nanogridata.replay import FrameMemory
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.frames.delivery import Delivery
from ocean_core.service.frames.intake import FrameService
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.parcel import Parcel, ResultParcel
from ocean_core.service.frames.parts import FrameParts
from ocean_core.service.frames.stream import FrameStream
from ocean_core.service.frames.terms import FrameResult, RefusedFrame, Source
from ocean_core.service.ledger import RefusalBook
from ocean_core.service.policy import IngestPolicy
from ocean_core.service.series_quota import SeriesQuota
from support.ingest_bench import Credits, MemoryBuffer
from support.two_ways import WatchedBuffer

NOW_S = 1_768_650_000
SECRET = bytes(range(100, 132))
TCP = Source("tcp", "127.0.0.1:40000")


class FrameBuffer(WatchedBuffer):
    """A WatchedBuffer that keeps notes of frames, too."""

    def __init__(self) -> None:
        super().__init__(MemoryBuffer())
        self.counted: list[Mapping[str, int]] = []
        self.notes: list[bytes] = []

    async def count_repeats(self, repeated: Mapping[str, int]) -> None:
        self.counted.append(repeated)

    async def kept_frames(self, since_us: int, frames_max: int) -> list[bytes]:
        del since_us, frames_max
        return [*self.notes, *(intake.frames for intake in reversed(self.intakes))]


class Keys:
    """Secrets by model; ``version`` grows when a test changes them."""

    def __init__(self, *secrets: Secret) -> None:
        self.secrets: Sequence[Secret] = secrets
        self.version = 1
        self.reloads = 0

    def reload_if_changed(self) -> str:
        self.reloads += 1
        return ""

    def candidates(self, model_id: int) -> Sequence[Secret]:
        del model_id
        return self.secrets


class Held:
    """A quarantine that remembers."""

    def __init__(self) -> None:
        self.frames: list[RefusedFrame] = []

    def keep(self, frame: RefusedFrame) -> None:
        self.frames.append(frame)

    async def settle(self) -> None:
        await asyncio.sleep(0)


class Facts:
    """Remembers what it is told of sensors."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def note(self, *told: object) -> None:
        self.told.append(told)


class Gaps:
    """Remembers header times by device."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = {}

    def note(
        self, sensor_ids: Sequence[str], places: Sequence[int], times_s: Sequence[int]
    ) -> None:
        for place, time_s in zip(places, times_s, strict=True):
            self.note_one(sensor_ids[place], int(time_s))

    def note_one(self, sensor_id: str, time_s: int) -> None:
        self.times.setdefault(sensor_id, []).append(time_s)

    def tick(self, now_s: int) -> None:
        """Nothing ever ends here."""

    def close(self) -> None:
        """Nor at the end."""


class FrameKit:
    """A service with all it works with."""

    def __init__(
        self,
        *secrets: Secret,
        settings: NanogridataSettings | None = None,
        frames_max: int = 10_000,
    ) -> None:
        self.clock = ManualClock(NOW_S * 1_000_000)
        self.metrics = MetricsRegistry(METRICS)
        self.log = io.StringIO()
        self.buffer = FrameBuffer()
        self.keys = Keys(*(secrets or (HmacSecret(SECRET, "test"),)))
        self.quarantine = Held()
        self.facts = Facts()
        self.gaps = Gaps()
        self.refusals = RefusalBook()
        self.quota = SeriesQuota(IngestSettings(series_per_sensor_max=3))
        self.memory = FrameMemory(frames_max, lambda count: b"\x5a" * count)
        self.settings = settings or NanogridataSettings()
        self.service = FrameService(
            FrameParts(
                buffer=self.buffer,
                clock=self.clock,
                metrics=self.metrics,
                log=EventLog(self.clock, stream=self.log),
                models=Models(self.settings),
                keys=self.keys,  # type: ignore[arg-type]
                memory=self.memory,
                quota=self.quota,
                policy=IngestPolicy(self.clock, Credits()),
                quarantine=self.quarantine,
                refusals=self.refusals,
                facts=self.facts,  # type: ignore[arg-type]
                gaps=self.gaps,  # type: ignore[arg-type]
            )
        )

    async def opened(self) -> "FrameKit":
        """Let it learn what came before."""
        await self.service.open()
        return self

    async def take(
        self, *frames: bytes, principal: Principal = LOCAL, transport: str = "http", **more: object
    ) -> list[FrameResult]:
        source = Source(transport)  # type: ignore[arg-type]
        return await self.service.take(frames, source, principal, **more)  # type: ignore[arg-type]

    async def outcomes(self, *frames: bytes, **more: object) -> list[str]:
        return [result.outcome for result in await self.take(*frames, **more)]  # type: ignore[arg-type]

    async def stream(self, *chunks: bytes) -> list[FrameResult]:
        """Feed chunks as one connection would; return what became of each frame."""
        done = asyncio.Event()
        parcel = ResultParcel(done.set)
        stream = FrameStream(self.service)
        for chunk in chunks:
            self.feed(stream, chunk, parcel)
            while stream.has_more:
                self.feed(stream, b"", parcel)
        stream.end(self.way(parcel))
        parcel.close()
        self.service.store.send()
        await asyncio.wait_for(done.wait(), 10)
        return parcel.results()

    def feed(self, stream: FrameStream, chunk: bytes, parcel: Parcel) -> None:
        stream.feed(chunk, self.way(parcel))

    def way(self, parcel: Parcel) -> Delivery:
        return Delivery(parcel, self.service.store.cargo, TCP, self.service.arrival())

    async def settle(self) -> None:
        """Let everything that can go on go on."""
        for _ in range(30):
            await asyncio.sleep(0)

    def readings(self) -> list[tuple[str, str, int, float, int]]:
        """Return (sensor, metric, timestamp in s, value, quality) of all stored, in order."""
        rows: list[tuple[str, str, int, float, int]] = []
        for intake in self.buffer.intakes:
            found: Readings | None = intake.readings
            if found is None:
                continue
            for index, moment, value, quality in zip(
                found.series_index, found.timestamp_us, found.value, found.quality, strict=True
            ):
                row = int(moment) // 1_000_000, float(value), int(quality)
                rows.append((*found.series[index], *row))
        return rows


def pressure(
    device: str = "P-1",
    pa: int = 101_325,
    *,
    at: int = NOW_S,
    header_at: int | None = None,
    level: int = 1,
    secret: bytes = SECRET,
    lab: str = "LAB",
    kind: int = 1,
) -> bytes:
    """Return a frame of a pressure sensor."""
    return encode(
        PRESSURE,
        kind,
        pressure_payload(device, lab, at, pa),
        level=level,
        timestamp=at if header_at is None else header_at,
        secret=secret if level else None,
        iv=bytes(12) if level > 1 else None,
    )
