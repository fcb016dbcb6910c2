"""Style as tests: lengths, forbidden calls, and files in places where they do harm."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import PACKAGE, REPO

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

CLOCK_MODULE = "obs/clock.py"
TIME_READERS = {
    "time": {
        "clock_gettime",
        "clock_gettime_ns",
        "gmtime",
        "localtime",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "time",
        "time_ns",
    },
    "datetime": {"now", "today", "utcnow"},
    "date": {"today"},
}

# Functions that may catch everything, as "file:function". Each is the top of a thread or process,
# or guards one: whatever happens below must end in a report and not in a thread that is gone.
CATCH_ALL_ALLOWED: frozenset[str] = frozenset(
    {
        "pipeline/archiving/keeper.py:_serve_call",
        "service/jobs.py:_run",
        "service/work.py:_run",
        "buffer/embedded/writer.py:_run",
        "ingress/fast_http.py:_store",
        "pipeline/mover.py:_run",
        "pipeline/rules.py:follow",
        "service/answering.py:answer",
        "service/singles.py:_acknowledge",
        "service/frames/store.py:_store_load",
        "service/frames/store.py:_store_shared",
        "service/singles.py:_commit",
        "service/singles.py:_refuse",
        "storage/operational/opened.py:_run_one",
        "storage/operational/writer.py:_run",
    }
)

MODULES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


every_module = each(MODULES)
# Standard output belongs to the results of commands.
silent_module = each([path for path in MODULES if not name_of(path).startswith("cli/")])
timeless_module = each([path for path in MODULES if name_of(path) != CLOCK_MODULE])


# --- lengths ------------------------------------------------------------------------------------


@every_module
def test_module_is_not_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX


@every_module
def test_functions_are_not_too_long(path: Path) -> None:
    lengths = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(parse(path))
        if isinstance(node, Function)
    }
    too_long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}
    assert too_long == {}


# --- forbidden calls ----------------------------------------------------------------------------


def time_readings(tree: ast.Module) -> Iterator[str]:
    """Name each use of a function that reads the time, whether it is called or handed on."""
    real_names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            real_names |= {alias.asname or alias.name: alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            for alias in node.names:
                if alias.name in TIME_READERS["time"]:
                    yield f"line {node.lineno}: from time import {alias.name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value).rpartition(".")[2]
        if node.attr in TIME_READERS.get(real_names.get(owner, owner), set()):
            yield f"line {node.lineno}: {owner}.{node.attr}"


@timeless_module
def test_only_the_clock_reads_the_time(path: Path) -> None:
    assert list(time_readings(parse(path))) == []


@silent_module
def test_only_commands_print(path: Path) -> None:
    lines = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert lines == []


def catches_everything(node: ast.AST) -> bool:
    """Tell whether a node swallows any exception; what ends in a bare `raise` swallows none."""
    if isinstance(node, ast.ExceptHandler):
        ending = node.body[-1]
        if isinstance(ending, ast.Raise) and ending.exc is None:
            return False
        return node.type is None or names_the_root(node.type)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(names_the_root(argument) for argument in node.args)
    return False


def names_the_root(expression: ast.expr) -> bool:
    names = {ast.unparse(node) for node in ast.walk(expression) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def catch_alls(path: Path) -> set[str]:
    found: set[str] = set()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, Function):
            function = node.name
        if catches_everything(node):
            found.add(f"{name_of(path)}:{function}")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(parse(path), "<module>")
    return found


def test_only_thread_tops_catch_everything() -> None:
    found = set().union(*(catch_alls(path) for path in MODULES))
    assert sorted(found - CATCH_ALL_ALLOWED) == [], "not in the allow list"
    assert sorted(CATCH_ALL_ALLOWED - found) == [], "in the allow list without need"


# --- files --------------------------------------------------------------------------------------


def test_there_is_something_to_check() -> None:
    assert PACKAGE / "__init__.py" in MODULES


def test_every_folder_with_code_is_a_package_with_a_docstring() -> None:
    for folder in {path.parent for path in MODULES}:
        opening = folder / "__init__.py"
        assert opening.exists(), f"{folder} has no __init__.py"
        assert ast.get_docstring(parse(opening)), f"{opening} has no docstring"


@every_module
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(parse(path))


@pytest.mark.parametrize("folder", ["build", "packaging"])
def test_folder_does_not_shadow_a_package(folder: str) -> None:
    assert list((REPO / folder).rglob("__init__.py")) == []


def test_no_ignore_rule_hides_sources() -> None:
    if not (REPO / ".git").exists():
        pytest.skip("not a checkout")
    sources = ["build/any.py", "packaging/any.service", "app/ocean_core/storage/any.sql"]
    answer = subprocess.run(
        ["git", "check-ignore", *sources],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert answer.stdout == ""


def files_of_the_project() -> Iterator[Path]:
    """Yield what is in the repository or about to be, or all files where there is no Git."""
    if (REPO / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPO,
            capture_output=True,
            check=True,
            timeout=30,
        )
        names = [name.decode() for name in listing.stdout.split(b"\0") if name]
        yield from (REPO / name for name in names if (REPO / name).is_file())
        return
    skipped = {".venv", ".cache", "dist", "__pycache__"}
    for path in REPO.rglob("*"):
        if path.is_file() and not skipped & set(path.relative_to(REPO).parts):
            yield path


def machine_paths() -> re.Pattern[bytes]:
    """Match home directories of people, and the place of this very checkout."""
    patterns = [rb"/(?:home|Users)/\w[\w.-]*/", rb"/root/", rb"[A-Z]:\\Users\\"]
    # One part alone, such as `/src`, may be any path.
    if len(REPO.parts) > 2:
        patterns.append(re.escape(str(REPO).encode()) + rb"\b")
    return re.compile(rb"(?<![\w.*~-])(?:" + rb"|".join(patterns) + rb")")


def test_no_file_names_a_place_on_one_machine() -> None:
    pattern = machine_paths()
    offenders = []
    for path in files_of_the_project():
        content = path.read_bytes()
        if path == Path(__file__).resolve() or b"\0" in content:
            continue
        match = pattern.search(content)
        if match:
            offenders.append(f"{path.relative_to(REPO)}: {match.group().decode()}")
    assert offenders == []
