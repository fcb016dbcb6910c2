"""Write the lock files: build/lock/dev.txt and build/lock/runtime.txt.

Both are resolved from pyproject.toml for every platform at once and carry a hash for each file of
each release, but no address of an index: where packages come from is the business of whoever
installs them. The runtime is resolved under the constraints of the development lock, so that what
is tested is what is shipped.

Versions already locked are kept. Pass `--upgrade` or `--upgrade-package NAME` to raise them.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEV = "build/lock/dev.txt"
RUNTIME = "build/lock/runtime.txt"
OLDEST_PYTHON = "3.11"
# Each would tie the lock to one machine or one mirror.
UNWANTED = (
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--trusted-host",
    "file:",
    "://",
    " @ ",
)


def resolve(output: str, *arguments: str) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv is missing: run `make setup` first")
    command = [
        uv, "pip", "compile", "pyproject.toml",
        "--universal",
        # One version of each package for all Python versions, rather than the newest for each.
        "--fork-strategy", "fewest",
        "--python-version", OLDEST_PYTHON,
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-config",
        "--quiet",
        "--custom-compile-command", "make lock",
        "--output-file", output,
        *arguments,
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)


def check(output: str) -> None:
    """Refuse a lock that names an address or misses a hash."""
    text = (ROOT / output).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("#") and any(word in line for word in UNWANTED):
            sys.exit(f"{output}:{number}: names a place to install from: {line}")
    logical_lines = text.replace("\\\n", " ").splitlines()
    for line in logical_lines:
        if "==" in line and not line.lstrip().startswith("#") and "--hash=sha256:" not in line:
            sys.exit(f"{output}: without a hash: {line}")


def main() -> None:
    resolve(DEV, "--group", "dev", *sys.argv[1:])
    resolve(RUNTIME, "--constraint", DEV, *sys.argv[1:])
    for output in (DEV, RUNTIME):
        check(output)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
