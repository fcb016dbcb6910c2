"""`ocean simulate`: a fleet of sensors, and an audit of what became of their readings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from ocean_core.cli.engine import source_of
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.simulate_frames import frame_options, locator
from ocean_core.cli.simulate_report import (
    arrival_lines,
    audit_lines,
    nothing_lines,
    result_of,
    summary_lines,
)
from ocean_core.cli.tables import json_option, print_json
from ocean_core.model import limits
from ocean_core.model.block import DEFAULT_METRIC
from ocean_core.obs.clock import SystemClock
from ocean_core.protocol.media import Encoding
from ocean_core.simulator.device_network import Address
from ocean_core.simulator.plan import (
    BATCH_ROWS,
    CONNECTIONS,
    CONNECTIONS_SINGLE,
    FOR_S,
    GIVE_UP_S,
    Faults,
    Form,
    FrameOrder,
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
        "ocean simulate --protocol nanogridata --sensors 500 --secret-file esp32.key --verify",
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
@frame_options
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
    frame_order: FrameOrder | None,
    to: Address | None,
    **others: Any,  # noqa: ANN401 - what goes into the order as it is
) -> None:
    """Send what a fleet of sensors or devices would send, and say what became of it.

    Readings go to the running box (or --url) over HTTP, frames of devices as --transport says. What
    is not acknowledged is sent again, readings with the same Idempotency-Key, also across a restart
    of the box, so that nothing is lost or stored twice. Each run has sensors of its own; `ocean
    sensors forget` makes them vanish.

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
        keys=not no_keys and frame_order is None,
        seconds=FOR_S if seconds is None and count is None else seconds,
        count=count,
        frames=frame_order,
        **others,
    )
    source = source_of(connection, may_start=False)
    simulation = Simulation(
        order,
        source,
        clock=SystemClock(),
        random_bytes=os.urandom,
        locate=None if frame_order is None else locator(source, frame_order.transport, to),
    )
    simulation.meet(verify=verify)
    outcome = simulation.send(_progress(is_terminal=sys.stderr.isatty()))
    if not as_json:
        click.echo("\n".join(summary_lines(simulation, order, outcome)))
    is_good = _verify(simulation, order, outcome, as_json=as_json, verify=verify)
    if outcome.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if outcome.gave_up or not is_good:
        sys.exit(EXIT_FAILED)


def _verify(
    simulation: Simulation, order: Order, outcome: Outcome, *, as_json: bool, verify: bool
) -> bool:
    """Compare with the box if wanted, tell the result; return whether all is well."""
    audit = arrival = None
    figures, is_answered = outcome.figures, order.is_answered
    try:
        if verify and is_answered:
            audit = simulation.audit()
        elif verify:
            arrival = simulation.arrival()
    finally:
        # Also when the audit is ended by Ctrl-C, or the server is gone.
        if as_json:
            print_json(result_of(simulation, order, outcome, audit, arrival))
    good = figures.acknowledged_readings if is_answered else figures.sent_readings
    if arrival is not None:
        good = arrival.arrived
    if not as_json:
        lines = [] if audit is None else audit_lines(audit)
        lines += [] if arrival is None else arrival_lines(arrival)
        lines += [] if good > 0 else nothing_lines(order, outcome)
        click.echo("\n".join(lines), nl=bool(lines))
    return good > 0 and (audit is None or audit.is_clean)


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
