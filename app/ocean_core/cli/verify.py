"""`ocean verify`: does anything acknowledged miss; the verdict, the cause, then the figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions, connection_options, examples
from ocean_core.cli.tables import counted, json_option, print_json, shown, table_lines
from ocean_core.facade.verification import DIFFERENCES
from ocean_core.obs.clock import SystemClock

EXIT_FAILED: Final = 1
WIDTH: Final = 100
SERIES_SHOWN: Final = 5
ROWS_SHOWN: Final = 2
_LABEL: Final = "verifying"

Report = Mapping[str, Any]


@click.command(
    "verify",
    epilog=examples("ocean verify", "ocean verify --json | jq .problems"),
)
@json_option
@connection_options
def verify_command(*, connection: ConnectionOptions, as_json: bool) -> None:
    """Say whether anything that was acknowledged is missing.

    Reads all of the journal, checks it, and compares it row by row with what analytics hold. Exits
    with 1 if something is missing or differs; analytics that differ are rebuilt from the journal.
    Readings are taken and questions answered meanwhile.
    """
    with opened(connection) as engine:
        # Where no server runs one is started by this: that is not part of the work.
        _ = engine.url
        now = SystemClock().monotonic
        report, took_s = _with_progress(engine.verify, now, hidden=as_json)
    if as_json:
        print_json(report)
    else:
        click.echo("\n".join(verify_lines(report, took_s)))
    if not report["ok"]:
        sys.exit(EXIT_FAILED)


def _with_progress(
    verify: Callable[[Callable[[Report], object]], Report],
    now: Callable[[], float],
    *,
    hidden: bool,
) -> tuple[Report, float]:
    """Verify with a bar on standard error, if that is a terminal; return how long it took, too."""
    began = now()
    rows = 0
    with click.progressbar(
        length=0, label=_LABEL, file=sys.stderr, hidden=hidden or not sys.stderr.isatty(), width=24
    ) as bar:

        def on_step(step: Report) -> None:
            nonlocal rows
            rows += step["readings"] + step["events"]
            bar.length = max(step["head_id"], 1)
            bar.label = f"{_LABEL}  {rows / max(now() - began, 1e-3):,.0f}/s"
            bar.update(step["up_to_id"] - step["after_id"])

        report = verify(on_step)
    return report, now() - began


def verify_lines(report: Report, took_s: float) -> list[str]:
    """Return the report as one screen of lines."""
    lines = [
        "OK  nothing acknowledged is missing, and analytics hold all of it once"
        if report["ok"]
        else "NOT OK  " + _verdict(report)
    ]
    for problem in report["problems"]:
        lines.append(f"  ! {problem['detail']}")
        wrapped = click.wrap_text(problem["next_step"], WIDTH, "    ", "    ")
        lines += wrapped.splitlines()
    lines += [f"  {name:<13}{text}" for name, text in _figures(report, took_s)]
    return lines + _series(report) + _rows(report)


def _verdict(report: Report) -> str:
    where = {problem["where"] for problem in report["problems"]}
    if "journal" in where:
        return "something acknowledged is missing"
    if where <= {"ledger"}:
        return "the ledger does not count what is missing"
    return "nothing acknowledged is missing in the journal, but analytics are wrong"


def _figures(report: Report, took_s: float) -> list[tuple[str, str]]:
    held = report["readings"] + report["events"]
    more = f", {report['waiting']:,} came since" if report["waiting"] else ""
    differing = ", ".join(f"{report[kind]:,} {kind}" for kind in DIFFERENCES)
    gone = ", ".join(f"{report[why]:,} {why}" for why in ("missing", "damaged", "trimmed"))
    figures = [
        ("acknowledged", f"ids up to {report['head_id']:,}{more}"),
        (
            "journal",
            f"{counted(report['readings'], 'reading')}, {counted(report['events'], 'event')} whole; {gone}",
        ),
        ("analytics", f"{report['equal']:,} equal; {differing}"),
        ("statistics", _totals(report)),
        ("forgotten", _forgotten(report)),
    ]
    if report["kept"]:
        figures.append(("only there", f"{report['kept']:,} in analytics, not in the journal"))
    if report["ledger"] is not None:
        figures.append(("ledger", _ledger(report["ledger"])))
    figures += [
        ("digest", f"{report['digest_journal']} journal, {report['digest_analytics']} analytics"),
        ("took", f"{took_s:,.1f} s, {held / max(took_s, 1e-3):,.0f} rows/s"),
    ]
    return figures


def _forgotten(report: Report) -> str:
    sensors = len(report["forgotten_sensors"])
    return f"{report['forgotten']:,} of {counted(sensors, 'sensor')}" if sensors else "none"


def _totals(report: Report) -> str:
    totals = report["totals"]
    if not totals["checked"]:
        return f"not compared with the readings: {totals['why_not']}"
    return f"of {totals['series']:,} series compared with their readings, {totals['differing']:,} differ"


def _ledger(ledger: Report) -> str:
    """Return the sums of the loss ledger, those that there are."""
    told = [
        f"{shown(name)} {count:,}"
        for name, count in ledger["totals"].items()
        if name not in ("stored", "missing")
    ]
    unsure = " (refusals before an unclean stop may be missing)" if ledger["approximate"] else ""
    return (", ".join(told) or "nothing counted") + unsure


def _series(report: Report) -> list[str]:
    if not report["series"]:
        return []
    rows = [
        [entry["sensor_id"], entry["metric"], *(entry[kind] for kind in DIFFERENCES)]
        for entry in report["series"][:SERIES_SHOWN]
    ]
    heads = ("SENSOR", "METRIC", *(kind.upper() for kind in DIFFERENCES))
    more = report["series_differing"] - len(rows)
    last = [f"and at least {more:,} series more"] if more > 0 else []
    return ["", *table_lines(heads, rows, WIDTH), *last]


def _rows(report: Report) -> list[str]:
    return [
        f"for example id {entry['id']} of {shown(entry['sensor_id'])}: {entry['difference']}"
        for entry in report["examples"][:ROWS_SHOWN]
    ]
