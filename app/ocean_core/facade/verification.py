"""Is everything there that was acknowledged, and is it the same: step by step, then one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from ocean_core.facade.base import LISTED, Json, Part, given
from ocean_core.model import limits
from ocean_core.model.errors import OceanError

DIFFERENCES: Final = ("absent", "changed", "doubled", "surplus")
_SUMS: Final = (
    "readings", "events", "forgotten", "missing", "damaged", "trimmed", "kept", "equal",
    *DIFFERENCES,
)  # fmt: skip
_LISTED: Final = {
    "examples": limits.VERIFY_ROWS_LISTED_MAX,
    "lost": limits.VERIFY_RANGES_LISTED_MAX,
}
_DIGESTS: Final = ("digest_journal", "digest_analytics")
_RANGES_TOLD: Final = 5


class Verification(Part):
    """Journal, analytics and ledger against each other; digests for comparing with one's own."""

    def verify(self, on_step: Callable[[Json], object] | None = None) -> Json:
        """Compare everything up to now and return a report; docs/operations.md tells what it proves.

        ``ok`` is whether nothing acknowledged is missing and analytics hold exactly what the journal
        holds; if not, ``problems`` says what is wrong and what to do next. ``on_step`` is given
        each step's answer. Raises AnalyticsUnavailableError while analytics are being rebuilt.
        """
        before = self._ledger()
        report = VerifyReport()
        after_id: int | None = 0
        while after_id is not None:
            # Everything acknowledged before now counts, not what comes while this runs.
            query = {"after_id": after_id, **given(wait=True if after_id == 0 else None)}
            step = self._get("/verify", query)
            report.add(step)
            if on_step is not None:
                on_step(step)
            after_id = step["next_after_id"]
        return report.result(self._ledger(), _forgotten(before))

    def digests(self, prefix: str = "", *, limit: int = LISTED, wait: bool = False) -> list[Json]:
        """Return count and digest by series: sensor_id, metric, count, digest.

        ``ocean_core.model.digest`` computes the same digest from one's own readings.
        """
        query = given(prefix=prefix or None, wait=True if wait else None)
        entries: list[Json] = []
        after: str | None = None
        while len(entries) < limit:
            size = min(limits.DIGESTS_PAGE_MAX, limit - len(entries))
            page = self._get("/telemetry/digests", {**query, "limit": size, "after": after})
            entries += page["series"]
            after = page["next"]
            if after is None:
                break
        return entries

    def _ledger(self) -> Json | None:
        try:
            page = self._get("/ledger", {"limit": 1})
        except OceanError:
            # Readings can be verified while the operational store cannot be read.
            return None
        totals = page.get("totals")
        return (
            None if totals is None else {"totals": totals, "approximate": page.get("approximate")}
        )


class VerifyReport:
    """Adds up the steps."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._series: dict[tuple[str, str], Counter[str]] = {}
        self._series_differing = 0
        self._forgotten: Counter[str] = Counter()
        self._lists: dict[str, list[Json]] = {name: [] for name in _LISTED}
        self._digests = dict.fromkeys(_DIGESTS, 0)
        self._last: Json = {}

    def add(self, step: Json) -> None:
        """Add what a step has found."""
        # Loads numpy, which the rest of this package does without.
        from ocean_core.model.digest import add_digests

        self._last = step
        self._sums.update({name: step[name] for name in _SUMS})
        for name in _DIGESTS:
            self._digests[name] = add_digests(self._digests[name], int(step[name], 16))
        for entry in step["series"]:
            series = entry["sensor_id"], entry["metric"]
            counts = {kind: entry[kind] for kind in DIFFERENCES}
            self._series.setdefault(series, Counter()).update(counts)
        self._series_differing = max(self._series_differing, step["series_differing"])
        for entry in step["forgotten_sensors"]:
            self._forgotten[entry["sensor_id"]] += entry["count"]
        for field, most in _LISTED.items():
            self._lists[field] = (self._lists[field] + step[field])[:most]

    def result(self, ledger: Json | None, forgotten_before: int = 0) -> Json:
        """Return the report.

        ``ledger`` has the ledger's sums by class, None if it is not known; ``forgotten_before`` is
        how many it counted as forgotten before the first step.
        """
        from ocean_core.model.digest import digest_text

        worst = sorted(self._series.items(), key=lambda item: (-item[1].total(), item[0]))
        report: Json = {
            "ok": False,
            "problems": [],
            "head_id": self._last["head_id"],
            "watermark": self._last["watermark"],
            "waiting": self._last["waiting"],
            **{name: self._sums[name] for name in _SUMS},
            **{name: digest_text(digest) for name, digest in self._digests.items()},
            "series_differing": max(self._series_differing, len(worst)),
            "series": [
                {"sensor_id": name[0], "metric": name[1], **{k: counts[k] for k in DIFFERENCES}}
                for name, counts in worst[: limits.VERIFY_SERIES_LISTED_MAX]
            ],
            **self._lists,
            "forgotten_sensors": [
                {"sensor_id": name, "count": count}
                for name, count in sorted(self._forgotten.items())
            ],
            "totals": self._last["totals"],
            "ledger": ledger,
        }
        report["problems"] = problems_of(report, forgotten_before)
        report["ok"] = not report["problems"]
        return report


def problems_of(report: Json, forgotten_before: int) -> list[Json]:
    """Return what is wrong, each with what to do next."""
    found = (_lost(report), _different(report), _uncounted(report, forgotten_before))
    return [problem for problem in found if problem is not None]


def _lost(report: Json) -> Json | None:
    count = report["missing"] + report["damaged"]
    if not count:
        return None
    ranges = [part for part in report["lost"] if part["why"] != "trimmed"]
    told = ", ".join(f"{part['first_id']}-{part['last_id']}" for part in ranges[:_RANGES_TOLD])
    more = " and more" if len(ranges) > _RANGES_TOLD else ""
    kept = sum(part["in_analytics"] for part in ranges)
    step = "Keep the *.damaged-* files in the data directory, note the ids, check the disk or SD card (dmesg)."
    if kept:
        step += (
            f" Analytics still show {kept:,} of them, until they are rebuilt: stop the server and "
            "keep a copy of analytics.duckdb."
        )
    return _problem("journal", f"{count:,} acknowledged are missing: ids {told}{more}", step)


def _different(report: Json) -> Json | None:
    counts = [f"{report[kind]:,} {kind}" for kind in DIFFERENCES if report[kind]]
    details = []
    if counts:
        details.append(f"analytics do not hold what the journal holds: {', '.join(counts)}")
    if report["totals"]["differing"]:
        count = report["totals"]["differing"]
        details.append(f"the statistics of {count:,} series are not those of their readings")
    return _problem("analytics", "; ".join(details), _REBUILD) if details else None


def _uncounted(report: Json, before: int) -> Json | None:
    """Compare with the ledger, where the journal still holds all that the ledger counts.

    While this runs more may be forgotten, so the truth lies between two counts.
    """
    ledger = report["ledger"]
    if ledger is None or report["trimmed"] or report["missing"] or report["damaged"]:
        return None
    counted = _forgotten(ledger)
    if before <= report["forgotten"] <= counted:
        return None
    detail = f"{report['forgotten']:,} are forgotten, the ledger counts {counted:,}"
    step = (
        "Nothing that was not asked for is gone; the count is. If a sensor was forgotten just now, "
        "verify again; else look whether the operational store was damaged (`ocean status`)."
    )
    return _problem("ledger", detail, step)


def _forgotten(ledger: Json | None) -> int:
    """Return how many readings and events the ledger counts as forgotten, 0 if it is not known."""
    return 0 if ledger is None else int(ledger["totals"].get("forgotten", 0))


def _problem(where: str, detail: str, next_step: str) -> Json:
    return {"where": where, "detail": detail, "next_step": next_step}


_REBUILD: Final = (
    "The journal is the truth: analytics are rebuilt from it by themselves, within seconds if the "
    "server runs, else at its next start; `ocean status` shows the progress. Then verify again. If "
    "this comes back, check the disk and the memory of the box."
)
