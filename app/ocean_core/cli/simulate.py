"""`ocean simulate`: a fleet of sensors, and an audit of what became of their readings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from ocean_core.cli.engine import source_of
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import counted, json_option, print_json, shown
from ocean_core.model import limits
from ocean_core.model.block import DEFAULT_METRIC
from ocean_core.obs.clock import SystemClock
from ocean_core.protocol.media import Encoding
from ocean_core.simulator.audit import Audit
from ocean_core.simulator.figures import Figures, milliseconds
from ocean_core.simulator.plan import (
    BATCH_ROWS,
    CONNECTIONS,
    CONNECTIONS_SINGLE,
    FOR_S,
    GIVE_UP_S,
    Faults,
    Form,
    Order,
)
from ocean_core.simulator.run import Outcome, Simulation

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

_COMPRESSIONS: Final = {
    "none": Encoding.IDENTITY,
    "gzip": Encoding.GZIP,
    "zstd": Encoding.ZSTD,
}
# A log wants fewer lines than a terminal can show.
_LOG_EVERY: Final = 10


@click.command(
    "simulate",
    epilog=examples(
        "ocean simulate                 what does the box take? 10 s at the greatest rate",
        "ocean simulate --verify        and is all of that stored, once?",
        "ocean simulate --format single --sensors 2000 --rate 2000 --for 3600",
        "ocean simulate --format block --compress zstd --count 1000000",
        "ocean simulate --url https://gateway:8443 --cacert cert.pem --key-file key --verify",
    ),
)
@click.option(
    "--sensors",
    type=click.IntRange(1, limits.SERIES_TOTAL_MAX),
    default=100,
    show_default=True,
    help="How many sensors.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="What each sensor measures; may be given several times. Default: value.",
)
@click.option(
    "--faults",
    type=click.Choice([str(fault) for fault in Faults]),
    default="few",
    show_default=True,
    help="How many sensors are stuck or silent at times, have spikes, a wrong clock, or "
    "send a request twice.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([str(form) for form in Form]),
    default="rows",
    show_default=True,
    help="How readings are sent; single: one in each request.",
)
@click.option(
    "--compress",
    type=click.Choice(list(_COMPRESSIONS)),
    default="none",
    show_default=True,
    help="How bodies are compressed.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="READINGS/S",
    help="How many readings a second, measured now. Default: as many as the box takes, "
    "with times of the last ten days.",
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help=f"How long. Default: {FOR_S:g}, unless --count is given.",
)
@click.option("--count", type=click.IntRange(1), metavar="READINGS", help="How many readings.")
@click.option(
    "--batch",
    type=click.IntRange(1, limits.BATCH_ITEMS_MAX),
    metavar="READINGS",
    help=f"Readings in a request. Default: {BATCH_ROWS:,}, fewer at a low rate.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 10_000),
    help=f"How many. Default: {CONNECTIONS}; for single readings {CONNECTIONS_SINGLE}.",
)
@click.option(
    "--no-keys",
    is_flag=True,
    help="Send no Idempotency-Key: a little faster, but what is under way when a "
    "connection breaks is not sent again, and nobody knows whether it was stored.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="The same seed makes sensors that behave the same.",
)
@click.option("--prefix", help="How names of sensors begin. Default: sim- and the id of this run.")
@click.option(
    "--verify",
    is_flag=True,
    help="At the end, see that everything acknowledged is stored exactly once. Needs a "
    "key that may read.",
)
@click.option(
    "--give-up",
    "give_up_s",
    type=click.FloatRange(0, min_open=True),
    default=GIVE_UP_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an answer that does not come.",
)
@json_option
@connection_options
def simulate_command(
    *,
    connection: ConnectionOptions,
    compress: str,
    form: str,
    faults: str,
    metrics: tuple[str, ...],
    no_keys: bool,
    verify: bool,
    as_json: bool,
    seconds: float | None,
    count: int | None,
    **others: Any,  # noqa: ANN401 - what goes into the order as it is
) -> None:
    """Send what a fleet of sensors would send, and say what became of it.

    Readings go to the running box (or --url) over HTTP. What is not acknowledged is sent again with
    the same Idempotency-Key, also across a restart of the box, so that nothing is lost or stored
    twice. Each run has sensors of its own; `ocean sensors forget` makes them vanish.

    Ctrl-C ends it early; a second one does not wait for the last answers. Exit code 0: all is well;
    1: nothing was acknowledged, or the audit found a difference; 130: ended by Ctrl-C.
    """  # fmt: skip
    if len(set(metrics)) < len(metrics):
        raise click.UsageError("--metric: each name may be given once")
    order = Order(
        form=Form(form),
        faults=Faults(faults),
        encoding=_COMPRESSIONS[compress],
        metrics=metrics or (DEFAULT_METRIC,),
        keys=not no_keys,
        seconds=FOR_S if seconds is None and count is None else seconds,
        count=count,
        **others,
    )
    simulation = Simulation(
        order,
        source_of(connection, may_start=False),
        clock=SystemClock(),
        random_bytes=os.urandom,
    )
    simulation.meet(verify=verify)
    outcome = simulation.send(_progress(is_terminal=sys.stderr.isatty()))
    if not as_json:
        click.echo("\n".join(summary_lines(simulation, order, outcome)))
    audit = None
    try:
        if verify:
            audit = simulation.audit()
    finally:
        # Also when the audit is ended by Ctrl-C, or the server is gone.
        if as_json:
            print_json(result_of(simulation, order, outcome, audit))
    if audit is not None and not as_json:
        click.echo("\n".join(audit_lines(audit)))
    if outcome.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    failed = outcome.gave_up or not outcome.figures.acknowledged_readings
    if failed or (audit is not None and not audit.is_clean):
        sys.exit(EXIT_FAILED)


def summary_lines(simulation: Simulation, order: Order, outcome: Outcome) -> list[str]:
    """Return what came of sending, for people."""
    figures = outcome.figures
    sensors = f"{counted(order.sensors, 'sensor')} {simulation.prefix}…"
    lines = [f"run {simulation.run_id}: {sensors}, seed {order.seed}"]
    packed = "" if order.encoding is Encoding.IDENTITY else f", {order.encoding}"
    told = {
        "sent": f"{counted(figures.sent_readings, 'reading')} in "
        f"{counted(figures.sent_requests, 'request')} ({order.form}{packed}), "
        f"{counted(order.connections_used, 'connection')}",
        "acknowledged": f"{figures.acknowledged_readings:,} in {figures.seconds:.1f} s, "
        f"{figures.per_second:,.0f}/s",
        "refused": f"{figures.refused_readings:,}",
        "sent again": f"{counted(figures.resent, 'request')} "
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
            lines += [
                f"    {counted(number, 'request')}: {shown(reason)}" for reason, number in reasons
            ]
    if outcome.unresolved:
        lines.append(f"  unresolved    {outcome.unresolved:,}: sent, and no answer came")
    if outcome.gave_up:
        lines.append("  given up: no answer came any more; `ocean status` tells how the box is")
    return lines


def audit_lines(audit: Audit) -> list[str]:
    """Return what the audit found, for people."""
    verdict = (
        f"{audit.acknowledged:,} acknowledged, {audit.found:,} found, {audit.lost:,} lost, "
        f"{audit.doubled:,} doubled"
    )
    word = "FAILED" if audit.series_differing else "UNSURE" if audit.series_unsure else "OK"
    lines = [f"{word}  {verdict}"]
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
    simulation: Simulation, order: Order, outcome: Outcome, audit: Audit | None
) -> dict[str, object]:
    """Return the result for programs. Durations in seconds, latencies in milliseconds."""
    figures, latencies = outcome.figures, outcome.figures.latencies
    result: dict[str, object] = {
        "run_id": simulation.run_id,
        "prefix": simulation.prefix,
        "seed": order.seed,
        "sensors": order.sensors,
        "format": order.form,
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
        "interrupted": outcome.interrupted,
        "gave_up": outcome.gave_up,
        "audit": None,
    }
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


def _progress(*, is_terminal: bool) -> Callable[[str, bool], object]:
    """Return what shows the progress: one line that changes, or now and then a line in a log."""
    lines = 0

    def show(line: str, is_last: bool) -> None:
        nonlocal lines
        lines += 1
        if is_terminal:
            # Back to the begin, and clear what the line before has left behind.
            click.echo(f"\r{line}\x1b[K", err=True, nl=is_last)
        elif lines % _LOG_EVERY == 0:
            click.echo(line, err=True)

    return show
