"""Where the packaged executable begins.

The executable is two programs in one file: a launcher that unpacks everything into a folder of its
own under TMPDIR (`_MEI…`) and removes it at the end, and the `ocean` command, its child, which
begins here. A launcher that is killed takes this program with it; it cannot remove its folder, so
the next start does.
"""

import multiprocessing

# First of all: a library may start this executable as its helper.
multiprocessing.freeze_support()

import contextlib  # noqa: E402
import fcntl  # noqa: E402
import importlib.util  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import zlib  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from importlib.abc import MetaPathFinder  # noqa: E402
from importlib.machinery import ModuleSpec  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402

# Comes out of the executable first, and empty.
MARKER = ".ocean"
UNPACKING_MAX_S = 600
CHUNK_BYTES = 1024 * 1024


class UnpackOnDemand(MetaPathFinder):
    """Finds the libraries that the launcher left packed (`….so.z`), and unpacks them."""

    def __init__(self, folder: Path) -> None:
        self._packed = {path.name.partition(".")[0]: path for path in folder.glob("*.so.z")}

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is, once it is unpacked; None for all others."""
        packed = self._packed.get(name)
        if packed is None:
            return None
        library = packed.with_suffix("")
        if not library.exists():
            unpack(packed, library)
        return importlib.util.spec_from_file_location(name, library)


def unpack(packed: Path, library: Path) -> None:
    """Unpack a library; it appears complete or not at all."""
    partial = library.with_suffix(f".{os.getpid()}")
    inflating = zlib.decompressobj()
    with packed.open("rb") as source, partial.open("wb") as result:
        while chunk := source.read(CHUNK_BYTES):
            result.write(inflating.decompress(chunk))
        result.write(inflating.flush())
    partial.replace(library)


def die_with_launcher(folder: Path) -> None:
    """Get SIGTERM when the launcher ends; end at once if it is gone already.

    The name of its folder begins with its process id, so that there is no moment in which its end
    goes unnoticed.
    """
    from ocean_core.runtime.process import die_with_parent

    launcher = int(folder.name.removeprefix("_MEI")[:8], 16)
    if not die_with_parent(launcher, signal.SIGTERM):
        sys.exit("ocean: the launching process is gone")


def hold(folder: Path) -> None:
    """Keep a folder from being removed while this process lives, also by systemd-tmpfiles."""
    # Closed by nobody but the end of the process.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    (folder / MARKER).write_text("complete\n", encoding="ascii")


def remove_left_folders(own: Path) -> None:
    """Remove what killed launchers of this program left behind.

    The marker tells our folders from those of other programs. An empty one means that a launcher
    is unpacking, or was killed while it did.
    """
    for folder in own.parent.glob("_MEI*"):
        with contextlib.suppress(OSError):
            marker = (folder / MARKER).lstat()
            abandoned = time.time() - marker.st_mtime > UNPACKING_MAX_S
            if folder != own and (marker.st_size or abandoned):
                remove_unless_held(folder)


def remove_unless_held(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    own = Path(sys._MEIPASS)  # type: ignore[attr-defined]
    if (own / MARKER).stat().st_size == 0:
        # The first program in this folder. Later ones (analytics) are started by it, and watch it.
        die_with_launcher(own)
        hold(own)
        remove_left_folders(own)
    sys.meta_path.insert(0, UnpackOnDemand(own))

    from ocean_core.cli.main import main

    main()
