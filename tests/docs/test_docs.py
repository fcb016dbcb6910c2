"""The documents say what the code declares: settings, errors, metrics, routes, alarms, log events."""

import json
import re
from pathlib import Path

import pytest

from ocean_core.config.settings import SettingInfo, all_settings
from ocean_core.model.errors import OceanError, all_error_classes
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.faults import FAULT_POINTS
from ocean_core.obs.log import EVENTS
from ocean_core.obs.metrics import Metric
from ocean_core.service.alarms import ALARM_KINDS
from ocean_core.service.problems import STATUS
from support.paths import REPO
from support.routes import declared_routes

DOCS = REPO / "docs"


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("info", all_settings(), ids=lambda info: info.name)
def test_every_setting_is_described_with_its_default(info: SettingInfo) -> None:
    row = (
        f"| `{info.name}` | `{json.dumps(info.default)}` | {info.type_text} | {info.description} |"
    )
    assert row in text_of("configuration.md")


@pytest.mark.parametrize("cls", all_error_classes(), ids=lambda cls: cls.code)
def test_every_error_is_described(cls: type[OceanError]) -> None:
    status = str(STATUS.get(cls, "-"))
    title = (cls.__doc__ or "").split("\n", 1)[0]
    assert f"| {cls.code} | {status} | {title} | {cls.hint} |" in text_of("errors.md")


def test_error_codes_are_unique() -> None:
    codes = [cls.code for cls in all_error_classes()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_described(metric: Metric) -> None:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    row = f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
    assert row in text_of("metrics.md")


@pytest.mark.parametrize("route", declared_routes())
def test_every_route_is_described(route: str) -> None:
    method, path = route.split(" ", 1)
    assert f"| `{method} {path}` |" in text_of("api.md")


def test_no_route_is_described_that_does_not_exist() -> None:
    described = set(
        re.findall(
            r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \|", text_of("api.md"), re.MULTILINE
        )
    )
    assert described == set(declared_routes())


@pytest.mark.parametrize("name", ALARM_KINDS)
def test_every_alarm_is_described(name: str) -> None:
    kind = ALARM_KINDS[name]
    row = f"| `{name}` | {kind.severity} | {kind.meaning} | {kind.next_step} |"
    assert row in text_of("operations.md")


@pytest.mark.parametrize("name", EVENTS)
def test_every_log_event_is_described(name: str) -> None:
    assert f"| `{name}` | {EVENTS[name]} |" in text_of("operations.md")


@pytest.mark.parametrize("name", FAULT_POINTS)
def test_every_fault_point_is_described(name: str) -> None:
    assert f"| `{name}` | {FAULT_POINTS[name]} |" in text_of("testing.md")


@pytest.mark.parametrize(
    "path", sorted([*DOCS.glob("*.md"), REPO / "README.md"]), ids=lambda p: p.name
)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_every_defence_names_a_test_that_exists() -> None:
    text = text_of("security.md")
    rows = re.findall(
        r"^\| [^|]+ \| [^|]+ \| ([^|]+) \|$", text.split("## Threats")[1], re.MULTILINE
    )
    rows = [row for row in rows if row != "test"]
    assert len(rows) > 20
    security = (REPO / "tests/contract/test_security.py").read_text(encoding="utf-8")
    for row in rows:
        named = re.findall(r"`([^`]+)`", row)
        assert named, row
        files = [name for name in named if name.endswith(".py")]
        texts = [security, *((REPO / name).read_text(encoding="utf-8") for name in files)]
        for name in named:
            if "/" in name:
                assert (REPO / name).exists(), name
            elif name.startswith("test_"):
                assert any(f"def {name}(" in text for text in texts), name


@pytest.mark.parametrize(
    "target", ["setup", "run", "test", "check", "fmt", "bench", "crash", "appliance"]
)
def test_every_make_target_is_described_where_it_is_made(target: str) -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE)
