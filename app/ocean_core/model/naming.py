"""Rules about names: which sensor is shown under another name, and what of it was forgotten.

Journal and archive keep each reading under the name it came with. The rules, applied in the order
of their ids, tell what to make of it: under which name it is shown, or that it is gone. Deciding
by the rules alone gives the same result for what is there already and for what is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec


class NameRule(msgspec.Struct, array_like=True, frozen=True):
    """One rule; both names are as shown at its time.

    ``rename``: what was shown as ``sensor_id`` is shown as ``new_id`` from now on, past and future.
    ``forget``: readings and events shown as ``sensor_id`` with ids up to ``up_to_id`` are gone.
    """

    id: int
    kind: Literal["rename", "forget"]
    sensor_id: str
    new_id: str = ""
    up_to_id: int = 0


_Span = tuple[int, int, "_Span | None"]
"""(highest id that a rule forgets, id of that rule, the spans of later rules)."""


class Names:
    """Rules, prepared for many questions. Immutable."""

    def __init__(self, rules: Sequence[NameRule] = ()) -> None:
        self.rules = tuple(rules)
        # From the last rule to the first: what becomes of a name that is shown at that time.
        shown: dict[str, str] = {}
        spans: dict[str, _Span | None] = {}
        for rule in reversed(self.rules):
            if rule.kind == "rename":
                shown[rule.sensor_id] = shown.get(rule.new_id, rule.new_id)
                spans[rule.sensor_id] = spans.get(rule.new_id)
            else:
                spans[rule.sensor_id] = (rule.up_to_id, rule.id, spans.get(rule.sensor_id))
        self._shown = {name: new for name, new in shown.items() if name != new}
        self._spans = {name: span for name, span in spans.items() if span is not None}
        mentioned = {name for rule in self.rules for name in (rule.sensor_id, rule.new_id)}
        self._in_use = {self.shown(name) for name in mentioned}
        self.renames = bool(self._shown)
        """Whether any name is shown as another."""
        self.forgets_up_to = max((rule.up_to_id for rule in self.rules), default=0)
        """No reading or event with a higher id is forgotten."""

    @property
    def last_rule(self) -> int:
        """Id of the last rule, 0 if there is none."""
        return self.rules[-1].id if self.rules else 0

    def shown(self, stored: str) -> str:
        """Return under which name is shown what came as ``stored``."""
        return self._shown.get(stored, stored)

    def asked(self, sensor_id: str) -> str:
        """Return which sensor is meant by whoever asks for ``sensor_id``: an old name also counts.

        A name under which something is shown now means that. It need not be the name under which
        it came: after two sensors have swapped their names each means what it shows.
        """
        return sensor_id if sensor_id in self._in_use else self.shown(sensor_id)

    def forgotten(self, stored: str) -> Iterator[tuple[int, int]]:
        """Yield (up to which id, rule) for what came as ``stored``; both rise.

        An id belongs to the first of these that reaches it, the rule that made it vanish.
        """
        span = self._spans.get(stored)
        reached = 0
        while span is not None:
            up_to_id, rule_id, span = span
            if up_to_id > reached:
                reached = up_to_id
                yield up_to_id, rule_id

    def stored(self, sensor_id: str) -> tuple[str, ...]:
        """Return under which names things come that are shown as ``sensor_id``, sorted."""
        old = [name for name, new in self._shown.items() if new == sensor_id]
        return tuple(sorted([*old, sensor_id] if self.shown(sensor_id) == sensor_id else old))


NO_RULES: Final = Names()
