"""Which connections a server holds: a limit for all, for the network, and for each address.

At a limit the connection that has been idle longest gives way to a new one; only when all are busy
the new one is refused. Connections from the network never push out those of this machine, and
never take all places: local sensors go on whatever happens outside.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from ocean_core.service.rates import network_of

NETWORK_SHARE: Final = 0.75
"""Part of all connections that those from the network may be together, beside a local listener."""


class Guest(Protocol):
    """A connection as admission sees it."""

    address: str
    heard_at: float

    @property
    def is_trusted(self) -> bool:
        """Whether it comes from this machine, through the local listener."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it could be closed without harm."""
        ...

    def give_way(self) -> None:
        """Close."""
        ...


class Admission:
    """Counts the connections of all listeners of one server and makes room."""

    def __init__(
        self, connections_max: int, per_address_max: int, *, has_local_listener: bool
    ) -> None:
        self._all_max = connections_max
        share = NETWORK_SHARE if has_local_listener else 1.0
        self._network_max = max(1, int(connections_max * share))
        self._per_address_max = per_address_max
        self._all: set[Guest] = set()
        self._network: set[Guest] = set()
        self._by_address: dict[str, set[Guest]] = {}

    def admit(self, guest: Guest) -> bool:
        """Count a new connection, after closing an idle one if need be.

        Return False, and do not count it, if there is no room.
        """
        if guest.is_trusted:
            has_room = self._has_room(self._all, self._all_max, self._network, self._all)
        else:
            same = self._by_address.get(network_of(guest.address), ())
            has_room = (
                self._has_room(same, self._per_address_max, same)
                and self._has_room(self._network, self._network_max, self._network)
                and self._has_room(self._all, self._all_max, self._network)
            )
        if has_room:
            self._all.add(guest)
            if not guest.is_trusted:
                self._network.add(guest)
                self._by_address.setdefault(network_of(guest.address), set()).add(guest)
        return has_room

    def forget(self, guest: Guest) -> None:
        """Stop counting a connection; nothing happens if it is not counted."""
        self._all.discard(guest)
        self._network.discard(guest)
        network = network_of(guest.address)
        same = self._by_address.get(network)
        if same is not None:
            same.discard(guest)
            if not same:
                del self._by_address[network]

    def _has_room(
        self, counted: Collection[Guest], most: int, *may_give_way: Collection[Guest]
    ) -> bool:
        if len(counted) < most:
            return True
        for guests in may_give_way:
            idle = min(
                (guest for guest in guests if guest.is_idle),
                key=lambda guest: guest.heard_at,
                default=None,
            )
            if idle is not None:
                # Out of the count at once; it closes in the next turn of the loop.
                self.forget(idle)
                idle.give_way()
                return True
        return False
