"""How much is too much: token buckets, and shares of what is scarce."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from functools import lru_cache
from typing import Final

from ocean_core.obs.clock import Clock

_BURST_S: Final = 2.0


class RateBook:
    """Token buckets by name, all of one clock; the least recently used are forgotten.

    A bucket holds two seconds' worth, or what it is told. What is asked for may leave it in debt,
    so that a batch larger than the bucket passes too, and the average still holds.
    """

    def __init__(self, clock: Clock, names_max: int) -> None:
        self._clock = clock
        self._names_max = names_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, rate: float, cost: float = 1.0, *, burst_s: float = _BURST_S) -> int:
        """Take ``cost`` from a bucket that fills at ``rate`` per second and holds ``burst_s`` worth.

        Returns 0, or, if the bucket is in debt, the whole seconds until it is not; then nothing
        was taken.
        """
        now = self._clock.monotonic()
        level, at = self._buckets.pop(name, (rate * burst_s, now))
        level = min(rate * burst_s, level + (now - at) * rate)
        wait_s = 0
        if level > 0:
            level -= cost
        else:
            # One token more than the debt, so that whoever comes then is let in.
            wait_s = max(1, math.ceil((1 - level) / rate))
        self._buckets[name] = (level, now)
        if len(self._buckets) > self._names_max:
            self._buckets.popitem(last=False)
        return wait_s


class FairShare:
    """A scarce amount, such as bytes of memory, held by several sources at once.

    No source may hold more than what is free, so that there is always room for who comes next:
    one alone gets half, two get a third each. (Dynamic thresholds, as shared-memory switches use
    them: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, with factor 1.) What
    somebody who holds nothing asks for first need only fit.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._held: dict[str, int] = {}
        self._all = 0

    @property
    def held(self) -> int:
        """How much all sources hold together."""
        return self._all

    def reserve(self, source: str, amount: int) -> bool:
        """Take ``amount`` for a source, or return False and take nothing."""
        held = self._held
        mine = held.get(source, 0)
        free = self._total - self._all - amount
        if free < 0 or (mine and mine + amount > free):
            return False
        held[source] = mine + amount
        self._all += amount
        return True

    def release(self, source: str, amount: int) -> None:
        """Give back what was reserved."""
        left = self._held[source] - amount
        assert left >= 0, (source, left)
        if left:
            self._held[source] = left
        else:
            del self._held[source]
        self._all -= amount


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what counts as one sender: an IPv4 address, or the /64 of an IPv6 address.

    Whoever has one address of such a network can usually have all 2^64 of it.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
