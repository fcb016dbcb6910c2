"""Bring the files of other projects that our pages need into app/ocean_core/api/static.

`vendored.json` there pins one npm package: its version, the sha512 of its archive, and the sha256
of each file taken from it. Without arguments the archive is fetched by name and compared with
that, and the files are written. `--check` compares the files that are there, without a network.
`--take VERSION` moves the pins to another version: read its changes before committing them.

Large files are kept compressed, which keeps the executable small; hashes are those of the content.
Only the archive is fetched, so nothing that the package depends on comes here and nothing of it
runs.
"""

import argparse
import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

STATIC = Path(__file__).resolve().parent.parent / "app" / "ocean_core" / "api" / "static"
MANIFEST = STATIC / "vendored.json"
# Beside nothing of ours: its licence is not that of our files.
FOLDER = STATIC / "swagger-ui"
COMPRESSED_FROM_BYTES = 64 * 1024


def read_manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return manifest


def fetch(package: str, version: str) -> bytes:
    """Return the archive of a package, as npm gets it."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is missing: install it, or use --check")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                npm, "pack", f"{package}@{version}",
                "--ignore-scripts", "--silent", f"--pack-destination={folder}",
            ],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (archive,) = Path(folder).glob("*.tgz")
        return archive.read_bytes()


def integrity_of(archive: bytes) -> str:
    """Return the hash of an archive in npm's way of writing."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()


def files_in(archive: bytes, names: list[str]) -> dict[str, bytes]:
    """Return the content of these files of the package; any that is missing ends the program."""
    content: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as packed:
            for name in names:
                path = f"package/{name}"
                member = packed.extractfile(path) if path in packed.getnames() else None
                if member is None:
                    sys.exit(f"{name} is no file in the archive")
                content[name] = member.read()
    return content


def stored_as(name: str, size: int) -> Path:
    return FOLDER / (f"{name}.gz" if size >= COMPRESSED_FROM_BYTES else name)


def read_stored(name: str) -> bytes | None:
    """Return the content of a file that is here, None if it is not."""
    plain, compressed = FOLDER / name, FOLDER / f"{name}.gz"
    if compressed.exists():
        return gzip.decompress(compressed.read_bytes())
    return plain.read_bytes() if plain.exists() else None


def write_stored(name: str, content: bytes) -> None:
    """Write a file unless it is here: compressors differ, and their results need not change."""
    if read_stored(name) == content:
        return
    for old in (FOLDER / name, FOLDER / f"{name}.gz"):
        old.unlink(missing_ok=True)
    path = stored_as(name, len(content))
    # No time in it, so that the same content makes the same file.
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    print(f"wrote {path.name}: {path.stat().st_size} bytes for {len(content)}")


def differences(manifest: dict[str, Any], contents: dict[str, bytes | None]) -> list[str]:
    """Return which files are not those of the manifest."""
    found = []
    for name, expected in manifest["files"].items():
        content = contents[name]
        if content is None:
            found.append(f"{name} is missing")
        elif hashlib.sha256(content).hexdigest() != expected:
            found.append(f"{name} is not the file that {MANIFEST.name} names")
    return found


def check() -> None:
    manifest = read_manifest()
    wrong = differences(manifest, {name: read_stored(name) for name in manifest["files"]})
    if wrong:
        sys.exit("\n".join(wrong))
    print(
        f"{len(manifest['files'])} files of {manifest['package']} {manifest['version']} are right"
    )


def vendor() -> None:
    manifest = read_manifest()
    archive = fetch(manifest["package"], manifest["version"])
    if integrity_of(archive) != manifest["integrity"]:
        sys.exit(f"the archive is {integrity_of(archive)}, not {manifest['integrity']}")
    contents = files_in(archive, list(manifest["files"]))
    wrong = differences(manifest, dict(contents))
    if wrong:
        sys.exit("\n".join(wrong))
    for name, content in contents.items():
        write_stored(name, content)
    check()


def take(version: str) -> None:
    manifest = read_manifest()
    archive = fetch(manifest["package"], version)
    contents = files_in(archive, ["package.json", *manifest["files"]])
    about = json.loads(contents.pop("package.json"))
    manifest |= {
        "version": about["version"],
        "integrity": integrity_of(archive),
        "licence": about["license"],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    for name, content in contents.items():
        write_stored(name, content)
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(f"{manifest['package']} is at {about['version']} now: {manifest['integrity']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="compare only, without a network")
    choice.add_argument("--take", metavar="VERSION", help="move the pins to another version")
    arguments = parser.parse_args()
    if arguments.check:
        check()
    elif arguments.take:
        take(arguments.take)
    else:
        vendor()


if __name__ == "__main__":
    main()
