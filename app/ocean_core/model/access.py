"""Who asks, and what they may."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from re import Pattern
from re import compile as compile_pattern
from typing import Final

import msgspec


class Scope(StrEnum):
    """What a key may be made for. ``admin`` includes the other two."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"


ALL_SCOPES: Final = frozenset(Scope)


class Principal(msgspec.Struct, frozen=True):
    """Whoever sent a request, as far as is proven.

    ``kind`` is ``local`` (a program on this machine, trusted), ``owner`` (has local.key), ``key``,
    ``session`` (a user who logged in) or ``nobody``. ``id`` is that of the key or session.
    ``sensors`` is a glob pattern, empty for all sensors; ``rate`` readings per second.
    """

    kind: str
    id: str = ""
    name: str = ""
    scopes: frozenset[Scope] = frozenset()
    user_id: str | None = None
    sensors: str = ""
    rate: int | None = None
    expires_us: int | None = None

    @property
    def actor(self) -> str:
        """How audit log and ledger name it."""
        return f"{self.kind}:{self.id}" if self.id else self.kind

    @property
    def told(self) -> str:
        """How an error names it to whoever sent the request."""
        return f"{self.kind} {self.name!r}" if self.name else self.actor

    def may(self, scope: Scope) -> bool:
        """Whether this scope, or admin, is held."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def may_touch(self, sensor_id: str) -> bool:
        """Whether the pattern, if there is one, lets this sensor through."""
        return not self.sensors or bool(_pattern(self.sensors).match(sensor_id))


LOCAL: Final = Principal("local", name="this machine", scopes=ALL_SCOPES)
OWNER: Final = Principal("owner", name="local.key", scopes=ALL_SCOPES)
NOBODY: Final = Principal("nobody")


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> Pattern[str]:
    # fnmatch's own translation: *, ?, [abc]; case counts, and * crosses slashes.
    return compile_pattern(translate(glob))


class Origin(msgspec.Struct, frozen=True):
    """Where a request came from; part of each entry of the audit log."""

    principal: Principal
    address: str = ""


LISTENER_KEY: Final = "ocean.listener"
"""Where the server leaves in the ASGI scope, as ListenerInfo, where a request came in."""


WHOLE_KEY: Final = "ocean.whole"
"""Set in the ASGI scope once the whole body has come: reading it needs no patience then."""


class ListenerInfo(msgspec.Struct, frozen=True):
    """Which of the box's listeners a request came in on.

    ``name`` is ``local`` or ``network``. ``trusted`` means that only programs on this machine
    can reach it; whether they need a key is another matter.
    """

    name: str
    trusted: bool
