"""Build the executable: dist/ocean, one file that needs no Python.

The same sources and the same locked packages give the same file, byte for byte.
"""

import ctypes
import os
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from PyInstaller.archive.readers import CArchiveReader

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "appliance.spec"
WORK = ROOT / ".cache" / "pyinstaller"
EXECUTABLE = ROOT / "dist" / "ocean"
SIZE_MAX_MB = 75
# When the sources carry no date of their own: 2026-01-01, any fixed moment will do.
FALLBACK_EPOCH = "1767225600"
MIB = 1024 * 1024


def require_libpython() -> None:
    """Stop with advice if this Python has no shared library to put into the executable."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folder = sysconfig.get_config_var("LIBDIR")
    for candidate in (f"{folder}/{name}", name):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return
    sys.exit(
        f"{name} is missing, and the executable cannot be built without it.\n"
        f"  on Debian:  sudo apt-get install libpython{sys.version_info.major}."
        f"{sys.version_info.minor}\n"
        "  with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install …"
    )


def source_epoch() -> str:
    """Return the date of the sources: as given, of the last commit, or a fixed one."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    try:
        answer = subprocess.run(
            ["git", "log", "-1", "--format=%ct"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return FALLBACK_EPOCH
    return answer.stdout.strip() or FALLBACK_EPOCH


def build() -> None:
    command = [
        sys.executable, "-m", "PyInstaller", str(SPEC),
        "--distpath", str(EXECUTABLE.parent),
        "--workpath", str(WORK / "work"),
        "--noconfirm",
        "--log-level", "WARN",
    ]  # fmt: skip
    environment = os.environ | {
        # Dates in archives, and the order in which sets are walked.
        "SOURCE_DATE_EPOCH": source_epoch(),
        "PYTHONHASHSEED": "1",
        "PYINSTALLER_CONFIG_DIR": str(WORK / "config"),
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def tell_size() -> None:
    """Print the size of the file and of the packages in it, as they are stored."""
    sizes: Counter[str] = Counter()
    archive = CArchiveReader(str(EXECUTABLE))
    for name, (_, stored, _, _, kind) in archive.toc.items():
        top = name.partition("/")[0] if kind != "z" else "Python code"
        sizes[top.partition(".")[0]] += stored
    total = EXECUTABLE.stat().st_size
    print(f"{EXECUTABLE.relative_to(ROOT)}: {total / MIB:.1f} MB")
    for name, size in sizes.most_common(10):
        print(f"  {size / MIB:6.1f} MB  {name}")
    if total > SIZE_MAX_MB * MIB:
        sys.exit(f"the executable is larger than {SIZE_MAX_MB} MB")


def smoke_test() -> None:
    """Start it once, in an environment with nothing in it."""
    started = time.monotonic()
    answer = subprocess.run(
        [EXECUTABLE, "version"], env={}, cwd="/", capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    if answer.returncode != 0:
        sys.exit(f"`ocean version` failed with exit code {answer.returncode}:\n{answer.stderr}")
    print(f"`ocean version`: {answer.stdout.strip()} after {time.monotonic() - started:.2f} s")


def main() -> None:
    require_libpython()
    started = time.monotonic()
    build()
    print(f"built in {time.monotonic() - started:.0f} s")
    tell_size()
    smoke_test()


if __name__ == "__main__":
    main()
