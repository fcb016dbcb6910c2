"""Bodies that are no JSON, or not the JSON that belongs here: found and explained."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import numpy as np

from ocean_core.model.errors import (
    BodyTooLargeError,
    FieldProblem,
    InvalidReadingError,
    MalformedBodyError,
)
from ocean_core.protocol.readings.shapes import RAW_FIELDS, RAW_ITEMS, DecodeContext
from ocean_core.protocol.readings.wording import found_json, sentence

INGEST: Final = "/api/ocean/telemetry/ingest"
FIELDS_MAX: Final = 100
BATCH: Final = "/api/ocean/telemetry/batch"

# Columns come in any order. What each may hold is checked once they are apart.
_COLUMNAR = re.compile(rb'[ \t\r\n]*+\{[ \t\r\n]*+"(?:sensor_id|timestamp|value|metric)"')
_COLUMNS_MAX: Final = 4

BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_EXCERPT_BYTES: Final = 12
_CHUNK_BYTES: Final = 1 << 20
_POSITION = re.compile(r"^(?:JSON is malformed: )?(.*) \(byte (\d+)\)$")
# Escaped backslashes and whole surrogate pairs come first, so that what is left for the group is
# half a pair; at the very end it may as well be a body that was cut.
_LONE_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)(?=.)", re.DOTALL
)
_HINTS: Final = {
    b"\x1f\x8b": "It looks like gzip: send Content-Encoding: gzip as well.",
    b"\x28\xb5\x2f\xfd": "It looks like zstd: send Content-Encoding: zstd as well.",
    b"\xc1\x53\x01": "It looks like a Nanogridata frame: send Content-Type: application/x-nanogridata.",
    b"OCB1": "It looks like a block: send Content-Type: application/x-ocean-block, to /batch.",
}
"""What is easily forgotten, by how the body begins."""
_TOO_EARLY: Final = "ends too early"
_HALF_PAIR: Final = "half of a surrogate pair"
_KINDS: Final = {
    ord("["): "an array",
    ord("{"): "an object",
    ord('"'): "a string",
    ord("t"): "true",
    ord("f"): "false",
    ord("n"): "null",
}


def check_body(body: bytes, context: DecodeContext) -> None:
    """Check what does not depend on the shape: length and UTF-8.

    Raises BodyTooLargeError or MalformedBodyError.
    """
    check_length(body, context)
    if not body.isascii():
        try:
            str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedBodyError(
                f"The body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x} "
                f"({error.reason}).",
                hint=_looks_like(body),
            ) from None
        if body.startswith(BOM):
            raise MalformedBodyError(
                "The body begins with a byte order mark (bytes 0 to 2); send JSON without it."
            )
    elif not body or body.isspace():
        raise MalformedBodyError("The body is empty.")


def _looks_like(body: bytes) -> str | None:
    """Return what to do about a body that is known by how it begins; None for any other."""
    return next((hint for magic, hint in _HINTS.items() if body.startswith(magic)), None)


def check_length(body: bytes, context: DecodeContext) -> None:
    """Raise BodyTooLargeError for a body that is too long."""
    if len(body) > context.body_bytes_max:
        raise BodyTooLargeError(
            f"The body has {len(body)} bytes; at most {context.body_bytes_max} are taken."
        )


def first_byte(body: bytes) -> int:
    """Return the first byte that is no white space; the body is not blank."""
    return body.lstrip(_SPACE)[0]


def malformed(body: bytes, error: Exception) -> MalformedBodyError:
    """Return the error for a body that the JSON decoder refused with ``error``."""
    if isinstance(error, RecursionError):
        return MalformedBodyError("The JSON is nested too deeply.")
    position, reason = fault_of(body, error)
    if reason == _TOO_EARLY:
        return MalformedBodyError(f"The JSON {_TOO_EARLY}, at byte {position}.")
    if reason == _HALF_PAIR:
        return MalformedBodyError(f"The body is not valid JSON at byte {position}: {_HALF_PAIR}.")
    near = found_json(body[max(0, position - _EXCERPT_BYTES) : position + _EXCERPT_BYTES])
    return MalformedBodyError(
        f"The body is not valid JSON at byte {position}: {reason}, near {near}"
    )


def fault_of(text: bytes, error: Exception) -> tuple[int, str]:
    """Return at which byte ``text`` stops being JSON and why, by what the decoder said."""
    message = str(error)
    match = _POSITION.match(message)
    # For half of a surrogate pair the decoder says one of these, depending on what follows it.
    if match is None or "escape" in message or "surrogate" in message:
        for escape in _LONE_SURROGATE.finditer(text):
            if escape[1] is not None:
                return escape.start(), _HALF_PAIR
    if match is None:
        return len(text), _TOO_EARLY
    position = int(match[2])
    if match[1].startswith("trailing characters"):
        position -= 1  # Here alone the decoder counts one further.
    return position, match[1]


def split_object(body: bytes) -> bytes:
    """Return the body of a single request, once it is known to be one valid JSON object.

    Raises MalformedBodyError.
    """
    first = first_byte(body)
    try:
        check_syntax(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed(body, error) from None
    if first == ord("["):
        raise MalformedBodyError(
            f"The body is an array; {INGEST} takes one object. Send arrays to {BATCH}."
        )
    if first != ord("{"):
        raise MalformedBodyError(
            f"The body is {_kind(first)}; {INGEST} takes one object with sensor_id and value."
        )
    return body


def check_syntax(body: bytes) -> None:
    """Raise DecodeError or RecursionError if the body is no JSON. Builds nothing from it."""
    msgspec.json.decode(body, type=msgspec.Raw)


def split_batch(body: bytes, context: DecodeContext) -> list[msgspec.Raw]:
    """Return the items of a batch as JSON text.

    Raises MalformedBodyError, BodyTooLargeError, or InvalidReadingError for a field beside
    ``readings``.
    """
    check_item_count(body, context)
    try:
        check_syntax(body)
        first = first_byte(body)
        if first == ord("["):
            return RAW_ITEMS.decode(body)
        if first == ord("{"):
            return RAW_ITEMS.decode(_unwrap(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed(body, error) from None
    raise MalformedBodyError(
        f"The body is {_kind(first)}; {BATCH} takes an array of objects with sensor_id and value."
    )


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a JSON object as JSON text.

    Raises InvalidReadingError if there are far too many, before anything is made of them; and what
    the decoder raises.
    """
    if body.count(b":") > FIELDS_MAX:
        count = _commas_at_depth(body, 1) + 1
        if count > FIELDS_MAX:
            problem = FieldProblem("", f"an object of {count} fields", "at most a few")
            raise InvalidReadingError(sentence(problem) + ".", fields=(problem,))
    return RAW_FIELDS.decode(body)


def _unwrap(body: bytes) -> msgspec.Raw:
    fields = fields_of(body)
    if "readings" not in fields:
        raise MalformedBodyError(
            f"The body is one object; {BATCH} takes an array, or an object with the array as "
            f"readings or with an array per field. Send one reading to {INGEST}, or put it into "
            "square brackets."
        )
    unknown = next((name for name in fields if name != "readings"), None)
    if unknown is not None:
        problem = FieldProblem(unknown[:60], found_json(fields[unknown]), "no field but readings")
        raise InvalidReadingError(sentence(problem) + ".", fields=(problem,))
    readings = fields["readings"]
    if memoryview(readings)[0] != ord("["):
        raise MalformedBodyError(
            f"readings is {_kind(memoryview(readings)[0])}; {BATCH} takes an array."
        )
    return readings


def _kind(first: int) -> str:
    return _KINDS.get(first, "a number")


def check_item_count(body: bytes, context: DecodeContext) -> None:
    """Refuse a batch of too many items before an object is made for each.

    Raises BodyTooLargeError.
    """
    # n items need n - 1 commas, so most bodies need no closer look.
    if len(body) // 2 < context.items_max or body.count(b",") < context.items_max:
        return
    depth_wanted = 1 if first_byte(body) == ord("[") else 2
    count = _commas_at_depth(body, depth_wanted) + 1
    columns = _COLUMNS_MAX if _COLUMNAR.match(body) else 1
    if count > columns * context.items_max:
        raise too_many(context)


def check_count(count: int, context: DecodeContext) -> None:
    """Refuse a batch of no items, or of too many.

    Raises InvalidReadingError or BodyTooLargeError.
    """
    if count == 0:
        problem = FieldProblem("", "[]", "at least one reading")
        raise InvalidReadingError(sentence(problem) + ".", fields=(problem,))
    if count > context.items_max:
        raise too_many(context)


def too_many(context: DecodeContext) -> BodyTooLargeError:
    """Return the error for a batch of too many items."""
    return BodyTooLargeError(
        f"The batch has more than {context.items_max} items.", hint="Send smaller batches."
    )


def _commas_at_depth(body: bytes, depth_wanted: int) -> int:
    """Count the commas outside strings at a depth of brackets, in steps that bound the memory."""
    # Without escapes each quote begins or ends a string. Those of backslashes go first, so that a
    # backslash that is left before a quote belongs to it.
    text = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    depth = count = quotes_before = 0
    for start in range(0, len(text), _CHUNK_BYTES):
        codes = np.frombuffer(text, np.uint8, min(_CHUNK_BYTES, len(text) - start), start)
        quotes = quotes_before + np.cumsum(codes == ord('"'), dtype=np.int32)
        is_outside = quotes & 1 == 0
        # [ and { differ from ] and } by two; 0x20 is what sets the braces apart.
        folded = codes | 0x20
        steps = (folded == ord("{")).astype(np.int32) - (folded == ord("}"))
        depths = depth + np.cumsum(steps * is_outside, dtype=np.int32)
        count += int(np.count_nonzero((codes == ord(",")) & is_outside & (depths == depth_wanted)))
        depth, quotes_before = int(depths[-1]), int(quotes[-1])
    return count
