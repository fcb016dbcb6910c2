"""What the server holds against what was acknowledged, series by series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ocean_core.client.http import ApiClient
from ocean_core.model.digest import DIGEST_MODULUS, add_digests
from ocean_core.simulator.tally import Share, Tally

DIGESTS: Final = "/api/ocean/telemetry/digests"
DIFFERENCES_LISTED_MAX: Final = 20
# Beyond this many unresolved requests of one series nobody can tell which of them were stored.
_OPEN_TRIED_MAX: Final = 14

Name = tuple[str, str]
"""Sensor and metric."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A series that is not as it should be."""

    sensor_id: str
    metric: str
    acknowledged: int
    found: int
    why: str


@dataclass(slots=True)
class Audit:
    """The result, in readings.

    ``unresolved`` were sent and never answered; ``unresolved_found`` of them are stored all the same.
    ``series_unsure`` have too many of those to tell whether something else is wrong, too.
    """

    acknowledged: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    unresolved: int = 0
    unresolved_found: int = 0
    series_differing: int = 0
    series_unsure: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether everything acknowledged is stored exactly once, for certain."""
        return not self.series_differing and not self.series_unsure


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of readings that nobody answers. ``doubled``: more arrived than were sent."""

    sent: int
    arrived: int
    doubled: int


def read_shares(api: ApiClient, prefix: str) -> dict[Name, Share]:
    """Return what the server holds of each series whose sensor's name begins with ``prefix``.

    Waits until it shows everything that was acknowledged. Raises OceanError.
    """
    found: dict[Name, Share] = {}
    after: str | None = None
    while True:
        page = api.call("GET", DIGESTS, query={"prefix": prefix, "after": after, "wait": True})
        for entry in page["series"]:
            name = (str(entry["sensor_id"]), str(entry["metric"]))
            found[name] = Share(int(entry["count"]), int(entry["digest"], 16))
        after = page["next"]
        if after is None:
            return found


def compare(
    names: Sequence[Name], tally: Tally, before: Mapping[Name, Share], after: Mapping[Name, Share]
) -> Audit:
    """Return how what came to be there during the run differs from what was acknowledged."""
    audit = Audit(unresolved=tally.unresolved_readings)
    nothing = Share()
    for place, name in enumerate(names):
        was, now = before.get(name, nothing), after.get(name, nothing)
        came = Share(now.count - was.count, (now.digest - was.digest) % DIGEST_MODULUS)
        expected = tally.share(place)
        unresolved = tally.unresolved_of(place)
        extra, why = _explained(came, expected, unresolved)
        if not why and extra and len(unresolved) > _OPEN_TRIED_MAX:
            audit.series_unsure += 1
        audit.acknowledged += expected.count
        audit.unresolved_found += extra
        audit.found += came.count - extra
        if not why:
            continue
        audit.lost += max(0, expected.count - came.count + extra)
        audit.doubled += max(0, came.count - extra - expected.count)
        audit.series_differing += 1
        if len(audit.differences) < DIFFERENCES_LISTED_MAX:
            audit.differences.append(Difference(*name, expected.count, came.count, why))
    return audit


def arrived(
    names: Sequence[Name], tally: Tally, before: Mapping[Name, Share], after: Mapping[Name, Share]
) -> Arrival:
    """Return how much came to be there of what was sent."""
    nothing = Share()
    sent = came = doubled = 0
    for place, name in enumerate(names):
        count = after.get(name, nothing).count - before.get(name, nothing).count
        expected = tally.share(place).count
        sent += expected
        came += count
        doubled += max(0, count - expected)
    return Arrival(sent, came, doubled)


def _explained(came: Share, expected: Share, unresolved: list[Share]) -> tuple[int, str]:
    """Return how many of the unresolved readings were stored, and what is wrong (empty: nothing)."""
    missing = Share(came.count - expected.count, (came.digest - expected.digest) % DIGEST_MODULUS)
    if missing == Share():
        return 0, ""
    if len(unresolved) > _OPEN_TRIED_MAX:
        most = sum(share.count for share in unresolved)
        return (missing.count, "") if 0 <= missing.count <= most else (0, _wording(missing))
    # Each of them was stored whole or not at all.
    possible = {Share()}
    for share in unresolved:
        possible |= {
            Share(some.count + share.count, add_digests(some.digest, share.digest))
            for some in possible
        }
    return (missing.count, "") if missing in possible else (0, _wording(missing))


def _wording(missing: Share) -> str:
    if missing.count < 0:
        return "readings are missing"
    if missing.count > 0:
        return "there are more readings than were acknowledged"
    return "as many readings as were acknowledged, but not the same"
