"""How often somebody may try a password: growing waits after failures.

Three bounds, each with a count of failures of its own:

======== ============================= ============ ============ ===================================
bound    counts failures of            free         longest wait applies to
======== ============================= ============ ============ ===================================
pair     one address at one account    5            900 s        everybody
account  all addresses at one account  100          60 s         addresses that have not logged in
                                                                 to this account before
address  one address at all accounts   100          60 s         the same
======== ============================= ============ ============ ===================================

Beyond the free ones each failure doubles the wait: 1, 2, 4 … seconds. The pair bound is the strict
one, and nobody can raise it for another address: whoever guesses at somebody's account locks out
only themselves. The account bound slows down those who guess from many addresses; the owner passes
it from every address from which a login has succeeded since the start. A login that succeeds clears
pair and account, not the address, or one's own account would pay for guesses at others. Counts are
forgotten 30 minutes after the last failure, and beyond a bound the least recently used ones first.

While one waits, passwords are not looked at: the refusal says nothing about them. An address is a
whole /64 network for IPv6, because one customer has all of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import msgspec

from ocean_core.model import limits
from ocean_core.model.errors import LoginBackoffError
from ocean_core.obs.clock import Clock
from ocean_core.service.rates import network_of

SHARED_FREE_FAILURES: Final = 100
SHARED_BACKOFF_S_MAX: Final = 60
_FORGOTTEN_AFTER_S: Final = 2.0 * limits.LOGIN_BACKOFF_S_MAX
_DOUBLINGS_MAX: Final = 20


class _Count(msgspec.Struct):
    failures: int = 0
    last: float = 0.0
    until: float = 0.0


_Key = tuple[str, str, str]


class LoginBackoff:
    """Remembers failures and who has succeeded from where."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: OrderedDict[_Key, _Count] = OrderedDict()
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def check(self, account: str, address: str) -> None:
        """Raise LoginBackoffError if this address has to wait with this account."""
        now = self._clock.monotonic()
        network = network_of(address)
        keys = [("pair", account, network)]
        if (account, network) not in self._welcome:
            keys += [("account", account, ""), ("address", "", network)]
        until = max(self._counts[key].until if key in self._counts else 0.0 for key in keys)
        if until > now:
            raise LoginBackoffError(
                "there were too many failed attempts; this one was not looked at",
                retry_after_s=math.ceil(until - now),
            )

    def failed(self, account: str, address: str) -> None:
        """Count a failure."""
        network = network_of(address)
        self._count(
            ("pair", account, network), limits.LOGIN_FREE_FAILURES, limits.LOGIN_BACKOFF_S_MAX
        )
        for key in (("account", account, ""), ("address", "", network)):
            self._count(key, SHARED_FREE_FAILURES, SHARED_BACKOFF_S_MAX)
        while len(self._counts) > limits.LOGINS_REMEMBERED_MAX:
            self._counts.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Clear pair and account; from now on this address is welcome at this account."""
        network = network_of(address)
        self._counts.pop(("pair", account, network), None)
        self._counts.pop(("account", account, ""), None)
        self._welcome[account, network] = None
        self._welcome.move_to_end((account, network))
        if len(self._welcome) > limits.LOGINS_REMEMBERED_MAX:
            self._welcome.popitem(last=False)

    def _count(self, key: _Key, free: int, wait_s_max: int) -> None:
        now = self._clock.monotonic()
        count = self._counts.get(key)
        if count is None or now - count.last > _FORGOTTEN_AFTER_S:
            count = self._counts[key] = _Count()
        self._counts.move_to_end(key)
        count.failures += 1
        count.last = now
        beyond = count.failures - free
        if beyond > 0:
            count.until = now + min(wait_s_max, 2 ** min(beyond - 1, _DOUBLINGS_MAX))
