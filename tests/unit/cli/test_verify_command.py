"""`ocean verify`: the verdict first, exit code 1 when something is wrong, never a wall of text."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ocean_core.cli import verify as module
from ocean_core.cli.main import main
from ocean_core.cli.verify import verify_lines
from ocean_core.facade.verification import VerifyReport

STEP: dict[str, Any] = {
    "after_id": 0, "up_to_id": 100, "next_after_id": None, "watermark": 100, "head_id": 100,
    "waiting": 0, "readings": 90, "events": 10, "forgotten": 0, "missing": 0, "damaged": 0,
    "trimmed": 0, "kept": 0, "equal": 100, "absent": 0, "changed": 0, "doubled": 0, "surplus": 0,
    "digest_journal": "f" * 16, "digest_analytics": "f" * 16, "series_differing": 0, "series": [],
    "examples": [], "lost": [], "forgotten_sensors": [],
    "totals": {
        "checked": True, "why_not": "", "series": 3, "readings": 90, "differing": 0,
        "differences": [],
    },
}  # fmt: skip
LEDGER = {"totals": {"stored": 100, "duplicate": 4, "refused OC-2002": 5}, "approximate": None}


def step(**changes: Any) -> dict[str, Any]:
    return {**STEP, **changes}


def report_of(
    *steps: dict[str, Any], ledger: Any = LEDGER, forgotten_before: int = 0
) -> dict[str, Any]:
    report = VerifyReport()
    for one in steps:
        report.add(one)
    return report.result(ledger, forgotten_before)


def series(sensor_id: str, **counts: int) -> dict[str, Any]:
    none = dict.fromkeys(("absent", "changed", "doubled", "surplus"), 0)
    return {"sensor_id": sensor_id, "metric": "value", **none, **counts}


BROKEN = step(
    equal=97, absent=2, changed=1, series_differing=2,
    series=[series("press-01", absent=2), series("press-02", changed=1)],
    examples=[{"id": 7, "sensor_id": "press-01", "metric": "value", "difference": "absent"}],
)  # fmt: skip
LOST = step(
    readings=70, missing=15, damaged=5, trimmed=2, kept=4,
    lost=[
        {"first_id": 1, "last_id": 2, "why": "trimmed", "in_analytics": 2},
        {"first_id": 11, "last_id": 25, "why": "missing", "in_analytics": 0},
        {"first_id": 31, "last_id": 35, "why": "damaged", "in_analytics": 2},
    ],
)  # fmt: skip


def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: dict[str, Any],
    *arguments: str,
) -> tuple[int, str, str]:
    class Engine:
        url = "http://127.0.0.1:1"

        def verify(self, on_step: Callable[[Any], object]) -> dict[str, Any]:
            on_step(step(next_after_id=100))
            on_step(step(after_id=100))
            return report

    @contextmanager
    def opened(_connection: object) -> Iterator[Engine]:
        yield Engine()

    monkeypatch.setattr(module, "opened", opened)
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def test_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(monkeypatch, capsys, report_of(STEP))
    assert (code, err) == (0, "")
    assert out.startswith("OK  nothing acknowledged is missing")
    assert "90 readings, 10 events whole; 0 missing, 0 damaged, 0 trimmed" in out
    assert "ledger       duplicate 4, refused OC-2002 5\n" in out
    assert "forgotten    none" in out
    assert "only there" not in out
    assert len(out.splitlines()) <= 12


def test_something_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, report_of(BROKEN))
    assert code == 1
    assert out.startswith("NOT OK  nothing acknowledged is missing in the journal, but analytics")
    assert "2 absent, 1 changed" in out.splitlines()[1]
    assert "rebuilt" in out
    assert "press-01  value   2" in out
    assert "id 7 of press-01: absent" in out
    assert len(out.splitlines()) <= 24, "one screen"
    code, out, _ = run(monkeypatch, capsys, report_of(BROKEN), "--json")
    assert code == 1
    assert json.loads(out)["problems"][0]["where"] == "analytics"


def test_the_bar_is_only_for_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, out, err = run(monkeypatch, capsys, report_of(STEP))
    assert out.startswith("OK")
    assert "verifying" in err
    assert "100%" in err
    _, out, err = run(monkeypatch, capsys, report_of(STEP), "--json")
    assert json.loads(out)["ok"] is True
    assert err == ""


def test_something_is_lost() -> None:
    report = report_of(LOST)
    assert not report["ok"]
    lines = verify_lines(report, 2.0)
    assert lines[0] == "NOT OK  something acknowledged is missing"
    assert "20 acknowledged are missing: ids 11-25, 31-35" in lines[1]
    text = " ".join(" ".join(lines).split())
    assert "Analytics still show 2 of them" in text
    assert "keep a copy of analytics.duckdb" in text
    assert "4 in analytics, not in the journal" in text
    # Rollups and rows at once are one problem.
    both = report_of({**BROKEN, "totals": {**STEP["totals"], "differing": 2}})
    assert [problem["where"] for problem in both["problems"]] == ["analytics"]
    assert "the statistics of 2 series" in both["problems"][0]["detail"]


def test_the_ledger_counts_what_was_forgotten() -> None:
    forgotten = step(forgotten=9, forgotten_sensors=[{"sensor_id": "a", "count": 9}])
    counted = {"totals": {"stored": 100, "forgotten": 9}, "approximate": {"stops": 1}}
    report = report_of(forgotten, ledger=counted)
    assert report["ok"]
    assert "forgotten    9 of 1 sensor" in "\n".join(verify_lines(report, 1.0))
    assert "may be missing" in "\n".join(verify_lines(report, 1.0))
    report = report_of(forgotten)
    assert [problem["where"] for problem in report["problems"]] == ["ledger"]
    assert verify_lines(report, 1.0)[0] == "NOT OK  the ledger does not count what is missing"
    # Some more was forgotten while this ran; or some that the ledger counts is not.
    more = {"totals": {"stored": 100, "forgotten": 20}, "approximate": None}
    assert report_of(forgotten, ledger=more, forgotten_before=9)["ok"]
    assert not report_of(forgotten, ledger=more, forgotten_before=10)["ok"]
    # Of what the journal no longer holds nobody can say whether it was forgotten.
    assert report_of({**forgotten, "trimmed": 1})["ok"]
    assert report_of(forgotten, ledger=None)["ok"]


def test_steps_add_up_and_lists_stay_short() -> None:
    many = [series(f"press-{k:03}", absent=1) for k in range(150)]
    first = step(
        absent=150, series=many, series_differing=180, next_after_id=100, totals=None,
        digest_journal=f"{2**63:016x}",
    )  # fmt: skip
    worse = [series("press-149", absent=2), *(series(f"hall-{k}", changed=1) for k in range(150))]
    report = report_of(first, step(series=worse, digest_journal=f"{2**63 + 5:016x}"))
    assert report["absent"] == 150
    assert report["digest_journal"] == f"{5:016x}"
    assert report["series"][0] == series("press-149", absent=3)
    assert len(report["series"]) == 200
    assert report["series_differing"] == 300
    lines = verify_lines(report, 0.0)
    assert len(lines) <= 24
    assert "and at least 295 series more" in lines
    unchecked = {**STEP["totals"], "checked": False, "why_not": "too many"}
    assert "not compared with the readings: too many" in "\n".join(
        verify_lines(report_of(step(totals=unchecked, waiting=3)), 1.0)
    )
