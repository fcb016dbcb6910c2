"""Wires what takes Nanogridata frames: models, secrets, memory, service, the two listeners."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocean_core.buffer.embedded import EmbeddedJournal
from ocean_core.config.checks import check_frame_listeners, is_loopback
from ocean_core.config.settings import NanogridataSettings, Settings
from ocean_core.ingress.frames_tcp import LOOK_EVERY_S, FrameConnections, TcpServices
from ocean_core.ingress.frames_udp import FrameDatagrams
from ocean_core.model.access import ListenerInfo
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from ocean_core.protocol.nanogridata.replay import FrameMemory
from ocean_core.runtime.accounts import Accounts
from ocean_core.runtime.listeners import LOCAL, NETWORK, bind
from ocean_core.service.alarms import AlarmBook
from ocean_core.service.frames.facts import SensorFacts
from ocean_core.service.frames.gaps import GapBook
from ocean_core.service.frames.intake import FrameService
from ocean_core.service.frames.keyring import SecretStore
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.models_file import load_models
from ocean_core.service.frames.parts import FrameParts
from ocean_core.service.series_quota import SeriesQuota

ALARM_SECRETS: Final = "nanogridata.secrets"
_BACKLOG: Final = 1_024
_UDP_BUFFER_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FrameRules:
    """What frames are judged by: models and secrets, read before anything is started."""

    models: Models
    keys: SecretStore


@dataclass(frozen=True, slots=True)
class FrameSockets:
    """Bound, not yet listening; None for what is switched off."""

    tcp: socket.socket | None
    udp: socket.socket | None

    @property
    def tcp_address(self) -> str:
        """Where frames are taken over TCP, empty if they are not."""
        return _address(self.tcp)

    @property
    def udp_address(self) -> str:
        """The same for UDP."""
        return _address(self.udp)

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach one of them."""
        bound = [sock for sock in (self.tcp, self.udp) if sock is not None]
        return any(not is_loopback(sock.getsockname()[0]) for sock in bound)

    def startup_lines(self, settings: NanogridataSettings) -> list[str]:
        """Return for people where frames are taken, and from whom."""
        pairs = (("tcp", self.tcp_address), ("udp", self.udp_address))
        where = [f"{kind} {address}" for kind, address in pairs if address]
        if not where:
            return []
        line = f"Nanogridata frames on {' and '.join(where)}"
        if is_loopback(settings.host):
            return [f"{line}, from this machine alone"]
        return [f"{line}, from other machines too ({settings.host}): signed frames only"]

    def close(self) -> None:
        """Let go of what nobody listens at yet."""
        for sock in (self.tcp, self.udp):
            if sock is not None:
                sock.close()


def read_rules(settings: Settings, data_dir: Path, clock: Clock, log: EventLog) -> FrameRules:
    """Read models and secrets. Raises ModelsFileError, SecretError or ListenAddressError."""
    nanogridata = settings.nanogridata
    models = Models(nanogridata, load_models(nanogridata, data_dir))
    keys = SecretStore(data_dir, nanogridata.secret_files, os.environ, clock, log)
    if nanogridata.tcp or nanogridata.udp:
        check_frame_listeners(
            settings, has_secrets=bool(keys.models_with_secrets()), min_level=models.level_min
        )
    return FrameRules(models, keys)


def bind_frames(settings: NanogridataSettings) -> FrameSockets:
    """Bind the sockets that are switched on. Raises PortError."""
    tcp = None
    if settings.tcp:
        tcp = bind("nanogridata.tcp_port", settings.host, settings.tcp_port, socket.SOCK_STREAM)
    try:
        udp = None
        if settings.udp:
            udp = bind("nanogridata.udp_port", settings.host, settings.udp_port, socket.SOCK_DGRAM)
            # A burst while a commit runs should not be lost; the system may grant less.
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
    except BaseException:
        if tcp is not None:
            tcp.close()
        raise
    return FrameSockets(tcp, udp)


class Frames:
    """The service of frames with its listeners."""

    def __init__(
        self,
        settings: Settings,
        rules: FrameRules,
        *,
        clock: Clock,
        log: EventLog,
        metrics: MetricsRegistry,
        alarms: AlarmBook,
        journal: EmbeddedJournal,
        accounts: Accounts,
        quota: SeriesQuota,
    ) -> None:
        self._settings = settings.nanogridata
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._alarms = alarms
        self._keys = rules.keys
        refusals = accounts.ledger.refusals
        self._facts = SensorFacts(accounts.store, clock, log, accounts.sensors)
        self.service = FrameService(
            FrameParts(
                buffer=journal,
                clock=clock,
                metrics=metrics,
                log=log,
                models=rules.models,
                keys=rules.keys,
                memory=FrameMemory(self._settings.frames_remembered_max, os.urandom),
                quota=quota,
                policy=accounts.policy,
                quarantine=accounts.quarantine,
                refusals=refusals,
                facts=self._facts,
                gaps=GapBook(refusals, metrics, max_age_s=rules.models.age_s_max),
            )
        )
        accounts.quarantine.taker = self.service
        accounts.quarantine.were_stored = self.service.were_stored
        self._connections: FrameConnections | None = None
        self._datagrams: FrameDatagrams | None = None
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._looking: asyncio.Task[None] | None = None

    async def listen(self, sockets: FrameSockets) -> None:
        """Let devices in. They are not read from until it is known which frames came before."""
        loop = asyncio.get_running_loop()
        trusted = is_loopback(self._settings.host)
        info = ListenerInfo(LOCAL if trusted else NETWORK, trusted=trusted)
        if sockets.tcp is not None:
            services = TcpServices(
                service=self.service,
                settings=self._settings,
                clock=self._clock,
                log=self._log,
                metrics=self._metrics,
            )
            self._connections = FrameConnections(services, info)
            self._server = await loop.create_server(
                self._connections.make, sock=sockets.tcp, backlog=_BACKLOG
            )
        if sockets.udp is not None:
            datagrams = FrameDatagrams(self.service, self._settings, self._clock, self._metrics)
            self._datagrams = datagrams
            self._udp, _ = await loop.create_datagram_endpoint(lambda: datagrams, sock=sockets.udp)
        self._looking = loop.create_task(self._look())

    async def tick(self) -> None:
        """Look after what changes with time; every few seconds."""
        problem = await asyncio.to_thread(self._keys.reload_if_changed)
        self._alarms.set_alarm(ALARM_SECRETS, active=bool(problem), detail=problem or "")
        await self.service.tick()
        await self._facts.tick()
        if self._datagrams is not None:
            self._datagrams.look()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._connections is not None:
                self._connections.look()

    async def close(self) -> None:
        """Let nobody in any more, store what was taken, tell the devices."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        if self._udp is not None:
            self._udp.close()
        if self._connections is not None:
            self._connections.close()
        await self.service.close()
        if self._connections is not None:
            await self._connections.closed()
        await self._facts.close()


def _address(sock: socket.socket | None) -> str:
    if sock is None:
        return ""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
