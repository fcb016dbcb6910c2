"""Metrics: declared once, counted in memory, one snapshot for every reader (invariant I8).

A library would keep one registry per process; here the analytics process sends its samples to the
ingest process, which shows both as one. So the registry is ours, small, and free of locks: a
counter is changed by one thread, or its change is a single bytecode-atomic addition under the GIL.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

MetricKind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of one metric."""

    name: str
    kind: MetricKind
    help: str
    labels: Labels = ()


class Histogram:
    """Cumulative counts per upper bound, as Prometheus wants them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_all(self, values: list[float]) -> None:
        """Count values, many for little more than one."""
        values.sort()
        below = 0
        for place, bound in enumerate(self.bounds):
            reached = bisect_right(values, bound, below)
            self.counts[place] += reached - below
            below = reached
        self.counts[-1] += len(values) - below
        self.total += sum(values)

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return an upper bound of the quantile (0..1), None without values."""
        count = self.count
        if not count:
            return None
        seen = 0
        for bound, in_bucket in zip((*self.bounds, self.bounds[-1]), self.counts, strict=True):
            seen += in_bucket
            if seen >= share * count:
                return bound
        return self.bounds[-1]


Sample = tuple[str, tuple[str, ...], float]
HistogramSample = tuple[str, tuple[str, ...], tuple[int, ...], float]


class MetricsRegistry:
    """Holds the declared metrics of one process and what it has counted."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self.declared: Final = {metric.name: metric for metric in declared}
        self._values: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}
        self._foreign: list[Sample] = []
        self._foreign_histograms: list[HistogramSample] = []

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Raise a counter."""
        key = (name, labels)
        assert name in self.declared, name
        self._values[key] = self._values.get(key, 0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        assert name in self.declared, name
        self._values[name, labels] = value

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return the histogram to observe on, made on first use."""
        key = (name, labels)
        found = self._histograms.get(key)
        if found is None:
            assert self.declared[name].kind == "histogram", name
            found = self._histograms[key] = Histogram()
        return found

    def value(self, name: str, *labels: str) -> float:
        """Return what a counter or gauge stands at (own and foreign), 0 if never touched."""
        own = self._values.get((name, labels))
        if own is not None:
            return own
        return next((v for n, ls, v in self._foreign if n == name and ls == labels), 0)

    def total(self, name: str) -> float:
        """Return the sum over all label values (own and foreign)."""
        return sum(v for (n, _), v in list(self._values.items()) if n == name) + sum(
            v for n, _, v in self._foreign if n == name
        )

    def totals(self, name: str, label: int) -> dict[str, float]:
        """Return the sums of an own metric by one of its labels, counted from 0."""
        sums: dict[str, float] = {}
        for (found, labels), value in list(self._values.items()):
            if found == name:
                sums[labels[label]] = sums.get(labels[label], 0) + value
        return sums

    def samples(self) -> tuple[list[Sample], list[HistogramSample]]:
        """Return everything this process counted, ready to be sent to another."""
        return (
            [(name, labels, value) for (name, labels), value in list(self._values.items())],
            [
                (name, labels, tuple(hist.counts), hist.total)
                for (name, labels), hist in list(self._histograms.items())
            ],
        )

    def adopt(self, samples: list[Sample], histograms: list[HistogramSample]) -> None:
        """Take over the newest samples of the other process, in place of its former ones."""
        self._foreign = samples
        self._foreign_histograms = histograms

    def render(self) -> str:
        """Return the Prometheus text exposition format, version 0.0.4."""
        own, own_histograms = self.samples()
        values: dict[str, list[tuple[Labels, float]]] = {}
        for name, labels, value in [*own, *self._foreign]:
            values.setdefault(name, []).append((tuple(labels), value))
        histograms: dict[str, list[tuple[Labels, tuple[int, ...], float]]] = {}
        for name, labels, counts, total in [*own_histograms, *self._foreign_histograms]:
            histograms.setdefault(name, []).append((tuple(labels), tuple(counts), total))
        lines: list[str] = []
        for metric in self.declared.values():
            lines.append(f"# HELP {metric.name} {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            for labels, value in sorted(values.get(metric.name, ())):
                lines.append(f"{metric.name}{_label_text(metric, labels)} {_number(value)}")
            for labels, counts, total in sorted(histograms.get(metric.name, ())):
                lines.extend(_histogram_lines(metric, labels, counts, total))
        return "\n".join(lines) + "\n"


def _histogram_lines(
    metric: Metric, labels: Labels, counts: tuple[int, ...], total: float
) -> list[str]:
    lines: list[str] = []
    seen = 0
    for bound, in_bucket in zip((*LATENCY_BUCKETS_S, float("inf")), counts, strict=True):
        seen += in_bucket
        text = _label_text(metric, labels, {"le": "+Inf" if bound == float("inf") else repr(bound)})
        lines.append(f"{metric.name}_bucket{text} {seen}")
    text = _label_text(metric, labels)
    lines.append(f"{metric.name}_sum{text} {_number(total)}")
    lines.append(f"{metric.name}_count{text} {seen}")
    return lines


def _label_text(metric: Metric, labels: Labels, more: Mapping[str, str] | None = None) -> str:
    pairs = [*zip(metric.labels, labels, strict=True), *(more or {}).items()]
    if not pairs:
        return ""
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)
    return "{" + inside + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
