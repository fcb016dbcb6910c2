"""What was typed or piped as a frame or a secret, as bytes: hex, base64 or binary, told apart.

Hex digits are letters of base64, too, so a text may be both. A frame begins with C1 53: in hex with
``c153``, in base64 with ``wVM``, and no text begins with both. Only texts that are frames in neither
reading remain unclear; they are taken as hex, and that is said.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Literal, NamedTuple

from ocean_core.protocol.nanogridata.frame import MAGIC

INPUT_BYTES_MAX: Final = 64 * 1024
SECRET_FILE_BYTES_MAX: Final = 64 * 1024

Form = Literal["hex", "base64", "binary"]

_BETWEEN_HEX: Final = re.compile(r"0[xX]|[\s:,]")
_SPACE: Final = re.compile(r"\s")
_NOT_HEX: Final = re.compile(r"[^0-9a-fA-F]")
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/_-]")
_TO_STANDARD: Final = str.maketrans("-_", "+/")
_BOM: Final = b"\xef\xbb\xbf"


class InputError(Exception):
    """The input is no frame in any form; the text says what was found, and where."""


class Given(NamedTuple):
    """The bytes, the form they came in, and, if the form was not clear, a note that says so."""

    data: bytes
    form: Form
    note: str = ""


def frame_of_text(text: str, form: Form | None = None) -> Given:
    """Return the bytes of a frame that was typed.

    ``form`` settles what the text is; None finds out. Raises InputError.
    """
    if form == "base64":
        return Given(_of_base64(text), "base64")
    if form == "hex":
        return Given(_of_hex(text), "hex")
    as_hex, as_base64 = _tried(_of_hex, text), _tried(_of_base64, text)
    if as_hex is not None and as_base64 is not None and as_hex:
        return _clearer(as_hex, as_base64)
    if as_hex is not None:
        return Given(as_hex, "hex")
    if as_base64 is not None:
        return Given(as_base64, "base64")
    raise InputError(f"{_hex_trouble(text)}; and {_base64_trouble(text)}")


def frame_of_bytes(data: bytes, form: Form | None = None) -> Given:
    """Return the bytes of a frame that came through a pipe: binary, or text as above.

    Raises InputError.
    """
    if len(data) > INPUT_BYTES_MAX:
        raise InputError(
            f"the input has more than {INPUT_BYTES_MAX} bytes; a frame has 1070 at most"
        )
    if form == "binary" or (form is None and data.startswith(MAGIC)):
        return Given(data, "binary")
    text = _printable(data.removeprefix(_BOM))
    if text is not None:
        return frame_of_text(text, form)
    if form is not None:
        raise InputError(f"the input is not {form}: it is no text")
    return Given(data, "binary")


def secret_of(content: bytes) -> tuple[bytes, Form]:
    """Return the secret in a file's content, and whether it was hex or raw bytes.

    Hex may have white space around and between; anything else is the secret byte by byte. Raises
    InputError.
    """
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise InputError(f"the secret file has more than {SECRET_FILE_BYTES_MAX} bytes")
    if not content.strip():
        raise InputError("the secret file is empty")
    text = _printable(content.removeprefix(_BOM))
    digits = _SPACE.sub("", text or "")
    if digits and len(digits) % 2 == 0 and not _NOT_HEX.search(digits):
        return bytes.fromhex(digits), "hex"
    return content, "binary"


def _clearer(as_hex: bytes, as_base64: bytes) -> Given:
    if as_base64.startswith(MAGIC):
        return Given(as_base64, "base64")
    if as_hex.startswith(MAGIC) or not as_base64:
        return Given(as_hex, "hex")
    note = (
        f"The input can be read as hex ({len(as_hex)} bytes) and as base64 ({len(as_base64)} "
        "bytes), and is a frame in neither; taken as hex. --as base64 reads it the other way."
    )
    return Given(as_hex, "hex", note)


def _tried(read: object, text: str) -> bytes | None:
    assert callable(read)
    try:
        found = read(text)
    except InputError:
        return None
    assert isinstance(found, bytes)
    return found


def _of_hex(text: str) -> bytes:
    digits = _BETWEEN_HEX.sub("", text)
    if _NOT_HEX.search(digits) or len(digits) % 2:
        raise InputError(_hex_trouble(text))
    return bytes.fromhex(digits)


def _of_base64(text: str) -> bytes:
    letters = _SPACE.sub("", text)
    body = letters.rstrip("=")
    padding = len(letters) - len(body)
    is_padded_right = padding in {0, -len(body) % 4}
    if _NOT_BASE64.search(body) or len(body) % 4 == 1 or not is_padded_right:
        raise InputError(_base64_trouble(text))
    standard = body.translate(_TO_STANDARD)
    try:
        return base64.b64decode(standard + "=" * (-len(body) % 4), validate=True)
    except binascii.Error as error:
        raise InputError(f"as base64: {error}") from error


def _hex_trouble(text: str) -> str:
    # Blanks of the same length, so that positions are those of what was typed.
    blanked = _BETWEEN_HEX.sub(lambda found: " " * len(found.group()), text)
    wrong = re.search(r"[^0-9a-fA-F ]", blanked)
    if wrong:
        return f"as hex, letter {wrong.start() + 1} is {wrong.group()!r}, which is no hex digit"
    digits = len(blanked.replace(" ", ""))
    return f"as hex, it has {digits} digits, an odd number: half a byte is missing or too much"


def _base64_trouble(text: str) -> str:
    wrong = re.search(r"[^A-Za-z0-9+/_=\s-]", text)
    if wrong:
        return (
            f"as base64, letter {wrong.start() + 1} is {wrong.group()!r}, which is no letter of it"
        )
    body = _SPACE.sub("", text).rstrip("=")
    if "=" in body:
        return "as base64, '=' stands in the middle; it may only stand at the end"
    if len(body) % 4 == 1:
        return f"as base64, it has {len(body)} letters, and one is missing or too much"
    return "as base64, the number of '=' at the end is wrong"


def _printable(data: bytes) -> str | None:
    """Return data as text if it is nothing but printable ASCII and white space."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    return text if all(letter.isprintable() or letter.isspace() for letter in text) else None
