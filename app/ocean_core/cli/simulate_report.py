"""What `ocean simulate` tells at its end, for people and for programs."""

from __future__ import annotations

from typing import Final

from ocean_core.cli.tables import counted, shown
from ocean_core.protocol.media import Encoding
from ocean_core.simulator.audit import Arrival, Audit
from ocean_core.simulator.figures import Figures, milliseconds
from ocean_core.simulator.plan import Order, Transport
from ocean_core.simulator.run import Outcome, Simulation

_MAIN_REASONS: Final = 3
_NEXT_STATUS: Final = "`ocean status` tells how the box is"
_NEXT_CONNECTION: Final = (
    "see that the box runs and listens there (`ocean status`); --to HOST:PORT says where frames go"
)
_NEXT_REFUSED: Final = "`ocean quarantine list` shows refused frames, `ocean quarantine show` why"
_NEXT: Final = {
    "E_MAC": "give the secret that the box has (--secret-file); `ocean keys nanogridata list` shows "
    "for which models it has one",
    "E_KEY": "give the box a secret for these models: `ocean keys nanogridata --help`",
    "E_POLICY": "use a --level that the box allows: nanogridata.min_level in its settings",
}
"""What to do about errors of frames."""


def summary_lines(simulation: Simulation, order: Order, outcome: Outcome) -> list[str]:
    """Return what came of sending, for people."""
    figures = outcome.figures
    sensors = f"{counted(order.sensors, 'sensor')} {simulation.prefix}…"
    lines = [f"run {simulation.run_id}: {sensors}, seed {order.seed}"]
    if not order.is_answered:
        return [*lines, *_unanswered_lines(order, figures)]
    what = _message(order)
    told = {
        "sent": f"{counted(figures.sent_readings, 'reading')} in "
        f"{counted(figures.sent_requests, what)} ({_way(order)}), "
        f"{counted(order.connections_used, 'connection')}",
        "acknowledged": f"{figures.acknowledged_readings:,} in {figures.seconds:.1f} s, "
        f"{figures.per_second:,.0f}/s",
        "refused": f"{figures.refused_readings:,}",
        "sent again": f"{counted(figures.resent, what)} "
        f"({counted(figures.busy_answers, 'busy answer')}, "
        f"{counted(figures.lost_answers, 'lost answer')})",
        "repeats": f"{figures.repeats:,} of what was acknowledged, "
        f"{figures.repeats_stored_again:,} not recognised",
        "latency": _latencies(figures),
    }
    for name, text in told.items():
        lines.append(f"  {name:<13} {text}")
        if name == "refused":
            reasons = figures.reasons.most_common()
            refused = "frame" if order.frames is not None else what
            lines += [
                f"    {counted(number, refused)}: {shown(reason)}" for reason, number in reasons
            ]
    if outcome.unresolved:
        lines.append(f"  unresolved    {outcome.unresolved:,}: sent, and no answer came")
    if outcome.gave_up:
        lines.append("  given up: no answer came any more; `ocean status` tells how the box is")
    return lines


def nothing_lines(order: Order, outcome: Outcome) -> list[str]:
    """Return that nothing was stored, why, and what to do next, for people."""
    figures = outcome.figures
    reasons = figures.reasons.most_common(_MAIN_REASONS)
    if reasons:
        why = "refused: " + ", ".join(f"{shown(reason)} ({count:,})" for reason, count in reasons)
        error = next((reason for reason, _ in reasons if reason in _NEXT), "")
        advice = _NEXT.get(error, _NEXT_REFUSED if order.frames is not None else _NEXT_STATUS)
    elif figures.connection_error:
        many = counted(figures.failed_connections, "failed connection")
        why = f"{shown(figures.connection_error)} ({many}, this is the last)"
        advice = _NEXT_CONNECTION if order.frames is not None else _NEXT_STATUS
    elif not figures.sent_readings:
        why, advice = "nothing was sent in this time", "give it longer: --for SECONDS"
    elif not order.is_answered:
        why, advice = "datagrams were sent, and none is in the box", _NEXT_REFUSED
    else:
        why, advice = "no answer came", _NEXT_STATUS
    sent = f"{counted(figures.sent_readings, 'reading')} sent"
    known = "none acknowledged" if order.is_answered else "none arrived"
    head = f"NOTHING STORED  {sent}, {known}"
    if outcome.unresolved:
        head = f"NOTHING ACKNOWLEDGED  {sent}, {outcome.unresolved:,} never answered"
    return [head, f"  why   {why}", f"  next  {advice}"]


def arrival_lines(arrival: Arrival) -> list[str]:
    """Return what arrived of what nobody answers, for people."""
    share = 100 * arrival.arrived / arrival.sent if arrival.sent else 0.0
    lines = [f"{arrival.arrived:,} of {arrival.sent:,} readings arrived ({share:.1f} %)"]
    if arrival.doubled:
        lines.append(f"  ! {arrival.doubled:,} more than were sent")
    return lines


def _message(order: Order) -> str:
    """Return what is answered as a whole."""
    is_frame = order.frames is not None and order.frames.transport is not Transport.HTTP
    return "frame" if is_frame else "request"


def _way(order: Order) -> str:
    if order.frames is not None:
        return f"nanogridata over {order.frames.transport}, level {order.frames.level}"
    packed = "" if order.encoding is Encoding.IDENTITY else f", {order.encoding}"
    return f"{order.form}{packed}"


def _unanswered_lines(order: Order, figures: Figures) -> list[str]:
    readings = counted(figures.sent_readings, "reading")
    frames = counted(figures.sent_requests, "frame")
    return [
        f"  sent          {readings} in {frames} ({_way(order)}) in {figures.seconds:.1f} s",
        f"  repeats       {figures.repeats:,}",
        "  Nothing is acknowledged over udp; --verify counts what arrived.",
    ]


def audit_lines(audit: Audit) -> list[str]:
    """Return what the audit found, for people."""
    verdict = (
        f"{audit.acknowledged:,} acknowledged, {audit.found:,} found, {audit.lost:,} lost, "
        f"{audit.doubled:,} doubled"
    )
    word = "FAILED" if audit.series_differing else "UNSURE" if audit.series_unsure else "OK"
    # Of nothing at all it is not OK that all of it is there: see ``nothing_lines``.
    lines = [f"{word}  {verdict}"] if audit.acknowledged or not audit.is_clean else []
    if audit.unresolved:
        lines.append(
            f"  beside these {audit.unresolved:,} unresolved, of which {audit.unresolved_found:,} "
            "are stored"
        )
    if audit.series_unsure:
        lines.append(
            f"  {audit.series_unsure:,} series have so many unresolved requests that only counts "
            "could be compared"
        )
    lines += [
        f"  ! {shown(entry.sensor_id)} {shown(entry.metric)}: {entry.acknowledged:,} acknowledged, "
        f"{entry.found:,} found: {entry.why}"
        for entry in audit.differences
    ]
    more = audit.series_differing - len(audit.differences)
    if more > 0:
        lines.append(f"  ! and {more:,} more series")
    if not audit.is_clean:
        lines.append("  `ocean verify` compares the box with its own journal.")
    return lines


def result_of(
    simulation: Simulation,
    order: Order,
    outcome: Outcome,
    audit: Audit | None,
    arrival: Arrival | None = None,
) -> dict[str, object]:
    """Return the result for programs. Durations in seconds, latencies in milliseconds."""
    figures, latencies = outcome.figures, outcome.figures.latencies
    result: dict[str, object] = {
        "run_id": simulation.run_id,
        "prefix": simulation.prefix,
        "seed": order.seed,
        "sensors": order.sensors,
        "format": order.form if order.frames is None else "nanogridata",
        "transport": None if order.frames is None else order.frames.transport,
        "level": None if order.frames is None else order.frames.level,
        "compress": order.encoding,
        "connections": order.connections_used,
        "seconds": round(figures.seconds, 3),
        "sent": figures.sent_readings,
        "requests": figures.sent_requests,
        "acknowledged": figures.acknowledged_readings,
        "acknowledged_per_second": round(figures.per_second, 1),
        "refused": figures.refused_readings,
        "refused_reasons": dict(figures.reasons.most_common()),
        "unresolved": outcome.unresolved,
        "resent": figures.resent,
        "busy_answers": figures.busy_answers,
        "lost_answers": figures.lost_answers,
        "repeats": figures.repeats,
        "repeats_not_recognised": figures.repeats_stored_again,
        "latency_ms": {
            **{f"p{q:g}": round(1000 * latencies.percentile_s(q), 3) for q in (50, 90, 99, 99.9)},
            "max": round(1000 * latencies.longest_s, 3),
        },
        "failed_connections": figures.failed_connections,
        "connection_error": figures.connection_error or None,
        "interrupted": outcome.interrupted,
        "gave_up": outcome.gave_up,
        "audit": None,
        "arrival": None,
    }
    if arrival is not None:
        result["arrival"] = {
            "sent": arrival.sent, "arrived": arrival.arrived, "doubled": arrival.doubled,
        }  # fmt: skip
    if audit is not None:
        result["audit"] = {
            "clean": audit.is_clean,
            "acknowledged": audit.acknowledged,
            "found": audit.found,
            "lost": audit.lost,
            "doubled": audit.doubled,
            "unresolved_found": audit.unresolved_found,
            "series_differing": audit.series_differing,
            "differences": [
                {
                    "sensor_id": entry.sensor_id, "metric": entry.metric,
                    "acknowledged": entry.acknowledged, "found": entry.found, "why": entry.why,
                }
                for entry in audit.differences
            ],
        }  # fmt: skip
    return result


def _latencies(figures: Figures) -> str:
    latencies = figures.latencies
    parts = [f"p{q:g} {milliseconds(latencies.percentile_s(q))}" for q in (50, 90, 99, 99.9)]
    return ", ".join([*parts, f"longest {milliseconds(latencies.longest_s)}"])
