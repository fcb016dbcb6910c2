"""Which rules about names the mover follows, and how it comes to follow others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ocean_core.model.block import SeriesName
from ocean_core.model.naming import NameRule, Names
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.pipeline.gather import SeriesBook
from ocean_core.pipeline.live_window import LiveWindow
from ocean_core.pipeline.renaming import Reshaped, apply_rules
from ocean_core.pipeline.warm import load_warmth
from ocean_core.storage.analytics.batch import NewSeries
from ocean_core.storage.analytics.changes import AppliedRules
from ocean_core.storage.analytics.errors import OutOfMemoryError
from ocean_core.storage.analytics.store import AnalyticsStore

NO_WORD: Final = "no word of the rules about names; the last known ones are used"


_TOLD_MAX: Final = 10


class RulesMismatchError(Exception):
    """The file cannot come to follow the rules; it is marked, and the next open builds a new one.

    ``lost`` tells of rules that it followed and that are no longer there, empty if there are none.
    """

    def __init__(self, reason: str, lost: str = "") -> None:
        super().__init__(reason)
        self.lost = lost


class RulesHalfShownError(Exception):
    """The file follows the rules, memory does not: only a new process can show them."""


class RuleKeeper:
    """Owned by the mover: ``offer``, ``due_in`` and ``take`` under its lock, the rest in its thread."""

    def __init__(
        self,
        store: AnalyticsStore,
        window: LiveWindow,
        *,
        clock: Clock,
        log: EventLog,
        wait_s: float | None,
    ) -> None:
        """With ``wait_s`` nothing is moved before the rules are known, or that much time is over."""
        self._store = store
        self._window = window
        self._log = log
        self._offered: tuple[NameRule, ...] | None = None
        self._deadline = None if wait_s is None else clock.monotonic() + wait_s
        self._applied = store.applied_rules()
        self.names = Names(self._applied.rules)
        self.trouble = ""
        """Why the rules may be others than those that hold, empty if they are not."""

    def offer(self, rules: Sequence[NameRule]) -> None:
        """Take note of all rules there are, in their order; ``follow`` is to be called with them."""
        self._offered = tuple(rules)
        self._deadline = None

    def due_in(self, now: float) -> float | None:
        """Seconds until ``take`` is to be called, and nothing moved before; None if it need not be."""
        if self._offered is not None:
            return 0.0
        return None if self._deadline is None else max(0.0, self._deadline - now)

    def take(self, now: float) -> tuple[NameRule, ...] | None:
        """Return the rules to follow, None if none came; at the deadline that is given up."""
        if self._offered is None and self._deadline is not None and self._deadline <= now:
            self._deadline = None
            self.trouble = NO_WORD
            self._log.warning("analytics.rules_missing", known=len(self._applied.rules))
        return self._offered

    def followed(self, rules: tuple[NameRule, ...]) -> None:
        """Note that these are followed, unless others were offered since."""
        if self._offered is rules:
            self._offered = None
            self.trouble = ""

    @property
    def counts(self) -> dict[int, int]:
        """Rows that each rule which forgets made vanish so far."""
        found = self._applied.forgotten
        return {
            rule.id: found.get(rule.id, 0) for rule in self.names.rules if rule.kind == "forget"
        }

    def count(self, forgotten: dict[int, int]) -> None:
        """Take over the counts that a drain has committed."""
        self._applied = AppliedRules(self._applied.rules, forgotten)

    def follow(self, rules: tuple[NameRule, ...], book: SeriesBook) -> list[SeriesName]:
        """Have store, window and book follow these rules; return names of series that are new.

        Raises DuckError, nothing changed, RulesMismatchError or RulesHalfShownError.
        """
        known = self._applied.rules
        if rules[: len(known)] != known:
            raise self._unfit(
                f"built under {len(known)} other rules about names", self._lost(rules)
            )
        new = rules[len(known) :]
        if not new:
            return []
        before = self._store.series()
        try:
            shape = self._apply(rules, new, before)
        except OutOfMemoryError as error:
            # Whatever the size, a rebuild under the same rules needs no more than usual.
            raise self._unfit(f"too little memory to rename or forget: {error}") from error
        try:
            self._show(rules, shape, book)
        except Exception as error:
            # Nothing may be answered from memory that still holds what was forgotten.
            reason = f"renamed or forgotten in the file only: {type(error).__name__}: {error}"
            raise RulesHalfShownError(reason) from error
        old = {entry.name for entry in before}
        return [entry.name for entry in shape.series.values() if entry.name not in old]

    def _apply(
        self, rules: tuple[NameRule, ...], new: tuple[NameRule, ...], before: list[NewSeries]
    ) -> Reshaped:
        """Change the file, in one transaction."""
        with self._store.change() as changes:
            shape = apply_rules(changes, before, new)
            applied = AppliedRules(rules, self._applied.forgotten | shape.forgotten)
            changes.follow(applied)
        self._applied = applied
        forgotten = sum(shape.forgotten.values())
        self._log.info("analytics.rules_applied", rules=len(new), forgotten=forgotten)
        return shape

    def _show(self, rules: tuple[NameRule, ...], shape: Reshaped, book: SeriesBook) -> None:
        """Bring what memory holds to what the file holds now."""
        self.names = Names(rules)
        book.replace(shape.series.values(), self.names)
        self._window.reshape(shape, load_warmth(self._store, sorted(shape.changed)))

    def is_lost(self) -> bool:
        """Whether the file follows other rules than known here, after a failure. Raises DuckError."""
        return self._store.applied_rules() != self._applied

    def _lost(self, rules: tuple[NameRule, ...]) -> str:
        """Return which rules are followed and no longer there."""
        there = set(rules)
        lost = [
            f"{rule.sensor_id!r} renamed to {rule.new_id!r}"
            if rule.kind == "rename"
            else f"{rule.sensor_id!r} forgotten up to id {rule.up_to_id}"
            for rule in self._applied.rules
            if rule not in there
        ]
        if not lost:
            return ""
        more = f" and {len(lost) - _TOLD_MAX} more" if len(lost) > _TOLD_MAX else ""
        told = ", ".join(lost[:_TOLD_MAX]) + more
        self._log.error("analytics.rules_lost", count=len(lost), rules=told)
        return told

    def _unfit(self, reason: str, lost: str = "") -> RulesMismatchError:
        self._store.mark_suspect(reason)
        return RulesMismatchError(reason, lost)
