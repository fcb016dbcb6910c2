"""Secrets as people write them down: hex or raw bytes, in files, settings and the environment.

No error says anything of what a secret consists of, also not of a malformed one; and because people
put a secret where its file should be named, what does not look like a path is not repeated either.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ocean_core.model import limits
from ocean_core.model.errors import SecretError
from ocean_core.protocol.nanogridata.frame import GAS, PRESSURE

VARIABLE: Final = "OCEAN_NANOGRIDATA_SECRET_"
FILE_SUFFIX: Final = "_FILE"
ORIGINAL_VARIABLES: Final = {
    "NANOGRIDATA_ESP32_SECRET": PRESSURE,
    "NANOGRIDATA_STM32_SECRET": GAS,
}
"""Those of the original gateway."""
SETTING: Final = "nanogridata.secret_files"

_FORM: Final = "0x10=/path, or 0x10/group:pattern=/path for a group of devices"
_MODEL: Final = re.compile(r"0[xX]([0-9a-fA-F]{2})", re.ASCII)
_VARIABLE_MODEL: Final = re.compile(r"([0-9a-fA-F]{2})(_FILE)?", re.ASCII)
_GROUP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SPACE: Final = re.compile(rb"\s+")
_HEX: Final = re.compile(rb"[0-9a-fA-F]+")
_DECORATION: Final = re.compile(rb"0[xX]|[:,\s-]")
_SECRET_LETTERS: Final = re.compile(r"[0-9a-zA-Z+/=_-]{32,}")
# Twice the largest secret in hex, with white space.
_FILE_BYTES_MAX: Final = 4 * limits.SECRET_BYTES_MAX


class Place(NamedTuple):
    """What a secret is for: a model, or the devices of it that a group's pattern matches."""

    model_id: int
    group: str = ""
    sensors: str = ""

    def __str__(self) -> str:
        """How people call it, such as ``0x10/line-3``."""
        return (
            f"{model_text(self.model_id)}/{self.group}" if self.group else model_text(self.model_id)
        )


class Found(NamedTuple):
    """A secret from outside of our own file, ``origin`` being ``setting`` or ``environment``."""

    place: Place
    secret: bytes
    origin: str
    where: str

    def __repr__(self) -> str:
        """Tell what it is for, not what it is."""
        return f"Found({self.place}, {self.where})"


class Named(NamedTuple):
    """A file that holds a secret, named by a setting or variable."""

    place: Place
    path: Path
    origin: str
    where: str


def model_text(model_id: int) -> str:
    """Return a model as people write it, ``0x10``."""
    return f"0x{model_id:02x}"


def read_model(text: str, where: str) -> int:
    """Return the model that ``0x10`` means. Raises SecretError naming ``where``."""
    found = _MODEL.fullmatch(text.strip())
    if found is None:
        meant = f"; 0x{int(text):02x} is meant?" if re.fullmatch(r"\d{1,2}|1\d\d", text) else ""
        raise SecretError(
            f"{where}: a model is expected as 0x and two hex digits, as in 0x10{meant}"
        )
    return int(found[1], 16)


def check_place(place: Place, where: str) -> Place:
    """Return a place whose group and pattern are good. Raises SecretError."""
    if bool(place.group) != bool(place.sensors):
        raise SecretError(f"{where}: a group needs a name and a pattern of device ids, both")
    if place.group and not _GROUP.fullmatch(place.group):
        raise SecretError(
            f"{where}: the group's name must have 1 to 64 letters, digits, '_', '.' or '-', and begin "
            "with a letter or digit"
        )
    size = len(place.sensors.encode(errors="replace"))
    if size > limits.KEY_PATTERN_BYTES_MAX or not place.sensors.isprintable():
        raise SecretError(
            f"{where}: the pattern of device ids has {size} bytes; expected: up to "
            f"{limits.KEY_PATTERN_BYTES_MAX}, printable"
        )
    return place


def parse_hex(text: bytes, where: str) -> bytes:
    """Return a secret written in hex; white space does not count. Raises SecretError."""
    digits = _SPACE.sub(b"", text)
    if not digits:
        raise SecretError(f"{where}: is empty")
    if not _HEX.fullmatch(digits):
        raise SecretError(f"{where}: has other characters than hex digits")
    if len(digits) % 2:
        raise SecretError(f"{where}: has {len(digits)} hex digits, an odd number")
    return check_secret(bytes.fromhex(digits.decode("ascii")), where)


def parse_content(content: bytes, where: str) -> bytes:
    """Return the secret in a file: hex if it has nothing but hex digits, else byte by byte.

    Raises SecretError, also for text that was surely meant otherwise: digits with ``0x`` or colons
    between, and text with a line end, which would be part of the secret.
    """
    digits = _SPACE.sub(b"", content)
    if not digits or _HEX.fullmatch(digits):
        return parse_hex(digits, where)
    if _HEX.fullmatch(_DECORATION.sub(b"", content)):
        raise SecretError(
            f"{where}: has other characters between hex digits; write the digits alone"
        )
    if (
        content.endswith((b"\n", b"\r"))
        and content.isascii()
        and content.strip().decode().isprintable()
    ):
        raise SecretError(
            f"{where}: is text with a line end, which would be a part of the secret",
            hint="Write it as hex, or without the line end (printf '%s').",
        )
    return check_secret(content, where)


def check_secret(secret: bytes, where: str) -> bytes:
    """Return a secret that is good enough. Raises SecretError."""
    if not limits.SECRET_BYTES_MIN <= len(secret) <= limits.SECRET_BYTES_MAX:
        raise SecretError(
            f"{where}: the secret has {len(secret)} bytes; expected: "
            f"{limits.SECRET_BYTES_MIN} to {limits.SECRET_BYTES_MAX}"
        )
    if secret.count(secret[0]) == len(secret):
        # Such as the one that an implementation of this protocol falls back to.
        raise SecretError(f"{where}: the secret is one byte again and again: anybody guesses that")
    return secret


def read_secret_file(path: Path, where: str = "") -> bytes:
    """Return the secret in a file. Raises SecretError naming file and ``where`` it was named."""
    told = f"{path}" + (f" ({where})" if where else "")
    if _is_no_path(path):
        raise SecretError(
            f"{where or 'the secret file'}: names no file that is there; what stands for its path may "
            "be a secret itself, so it is not shown",
            hint="Put the secret into a file (chmod 600) and name that.",
        )
    try:
        # A pipe without a writer must not hold anybody up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretError(f"{told}: is no regular file")
            content = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SecretError(f"{told}: cannot be read: {reason}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise SecretError(f"{told}: has more than {_FILE_BYTES_MAX} bytes; is it another file?")
    return parse_content(content, told)


def others_may_read(path: Path) -> bool:
    """Whether a file is open to more than its owner, as far as one can see."""
    try:
        status = path.stat()
    except OSError:
        return False
    # The group may be how this user reads it.
    unwanted = stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)
    return bool(status.st_mode & unwanted)


def files_of_setting(entries: Sequence[str]) -> list[Named]:
    """Return the files that ``nanogridata.secret_files`` names. Raises SecretError.

    In a pattern there can be no ``=``: what follows the first one is the path.
    """
    return [
        _named(entry, SETTING if len(entries) == 1 else f"{SETTING}, entry {number}")
        for number, entry in enumerate(entries, 1)
    ]


def _named(entry: str, where: str) -> Named:
    target, equals, path = entry.partition("=")
    if not equals or not path.strip() or not target.strip():
        raise SecretError(f"{where}: is not of the form {_FORM}")
    model, slash, rest = target.strip().partition("/")
    group, colon, sensors = rest.partition(":")
    if slash and not (group and colon and sensors):
        raise SecretError(f"{where}: is not of the form {_FORM}")
    place = check_place(Place(read_model(model, where), group, sensors), where)
    return Named(place, Path(path.strip()).expanduser().absolute(), "setting", where)


def of_environment(environment: Mapping[str, str]) -> tuple[list[Found], list[Named]]:
    """Return the secrets in variables, and the files that variables name; empty ones do not count.

    Raises SecretError naming the variable.
    """
    found: list[Found] = []
    named: list[Named] = []
    for variable, text in sorted(environment.items()):
        where = f"environment variable {variable}"
        if variable in ORIGINAL_VARIABLES and text.strip():
            place = Place(ORIGINAL_VARIABLES[variable])
            found.append(Found(place, _hex_of(text, where), "environment", where))
        if not variable.startswith(VARIABLE) or not text.strip():
            continue
        match = _VARIABLE_MODEL.fullmatch(variable.removeprefix(VARIABLE))
        if match is None:
            raise SecretError(
                f"{where}: names no model; expected: {VARIABLE} and two hex digits, as in "
                f"{VARIABLE}10, or {VARIABLE}10{FILE_SUFFIX}"
            )
        place = Place(int(match[1], 16))
        if match[2]:
            path = Path(text.strip()).expanduser().absolute()
            named.append(Named(place, path, "environment", where))
        else:
            found.append(Found(place, _hex_of(text, where), "environment", where))
    return found, named


def _hex_of(text: str, where: str) -> bytes:
    return parse_hex(text.encode("utf-8", "replace"), where)


def _is_no_path(path: Path) -> bool:
    """Whether there is no such file, and its name could be hex or base64."""
    try:
        path.lstat()
    except PermissionError:
        return False
    except (OSError, ValueError):
        if _SECRET_LETTERS.fullmatch(path.name):
            return True
        # Base64 may have slashes.
        tail = "".join(path.parts[-2:])
        return "." not in tail and not os.path.isdir(path.parent)  # noqa: PTH112 - never raises
    return False
