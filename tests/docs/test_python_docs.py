"""The examples of docs/python.md, typed in one after the other on an empty box."""

import doctest
import re
from pathlib import Path

import pytest

from ocean_core.facade import DataEngine
from support.paths import REPO

DOCUMENT = REPO / "docs" / "python.md"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_every_method_is_in_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.partition("## Every method")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", table))
    public = {name for name in dir(DataEngine) if not name.startswith("_")}
    assert public <= named
    assert named - public <= {"limit"}


def test_every_example_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCEAN_URL", "OCEAN_KEY", "OCEAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCEAN_DATA__DIR", str(tmp_path / "data"))
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 8
    names: dict[str, object] = {}
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), names, "python.md", None, 0)
    told: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    try:
        runner.run(test, out=told.append, clear_globs=False)
    finally:
        # Also when an example failed before the one that closes.
        engine = names.get("db")
        if engine is not None:
            engine.close()  # type: ignore[attr-defined]
    assert runner.summarize(verbose=False).failed == 0, "".join(told)
