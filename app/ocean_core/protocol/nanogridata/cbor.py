"""CBOR within the limits of section 6.3, read strictly and written at its shortest.

Why no library: the well-kept ones read the whole language (tags become dates, bignums and regular
expressions, indefinite lengths and repeated keys pass), and none lets the counts, the length of a
string and the depth be judged before it allocates. What is left of the language is small.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from ocean_core.protocol.nanogridata.frame import FrameRefusedError, Outcome

STRING_BYTES_MAX: Final = 256
ARRAY_ITEMS_MAX: Final = 64
MAP_PAIRS_MAX: Final = 20
DEPTH_MAX: Final = 8

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_HALF: Final = struct.Struct(">e")
_SINGLE: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")
_FLOATS: Final = {25: _HALF, 26: _SINGLE, 27: _DOUBLE}
_LITERALS: Final = {0xF4: False, 0xF5: True, 0xF6: None}
_COUNTED: Final = {
    _BYTES: (STRING_BYTES_MAX, "a byte string of {} bytes"),
    _TEXT: (STRING_BYTES_MAX, "a text of {} bytes"),
    _ARRAY: (ARRAY_ITEMS_MAX, "an array of {} items"),
    _MAP: (MAP_PAIRS_MAX, "a map of {} pairs"),
}
"""Largest count, and how a larger one is told."""
_KINDS: Final = (
    "a number", "a number", "a byte string", "a text", "an array", "a map", "a tag", "a simple value"
)  # fmt: skip
_INTEGER_MAX: Final = 1 << 64

_Read = tuple[Any, int]


# --- reading ------------------------------------------------------------------------------------


def read_map(data: bytes) -> dict[str, Any]:
    """Return the map that ``data`` consists of; byte strings are ``bytes``.

    Raises FrameRefusedError (E_CBOR, E_CBOR_LIMIT), its offset that of the item at fault.
    """
    if not data or data[0] >> 5 != _MAP:
        found = _KINDS[data[0] >> 5] if data else "nothing"
        raise _fault(0, f"{found} found, a map expected")
    try:
        value, end = _map(data, 0, DEPTH_MAX)
    except IndexError:
        raise _fault(
            len(data), f"the payload ends after {len(data)} bytes, within an item"
        ) from None
    if end != len(data):
        raise _fault(end, f"{len(data) - end} bytes after the map, nothing expected")
    return value


def _item(data: bytes, at: int, depth: int) -> _Read:
    """Return the item at ``at`` and where it ends; ``depth`` more arrays and maps may be nested.

    Raises IndexError where the data ends too early.
    """
    first = data[at]
    if first < 0x18:
        return first, at + 1
    major = first >> 5
    if major == _TEXT:
        return _text(data, at)
    if major == _MAP:
        return _map(data, at, depth)
    if major == _UNSIGNED:
        return _argument(data, at)
    if major == _SIMPLE:
        return _simple(data, at)
    if major == _ARRAY:
        return _array(data, at, depth)
    if major == _NEGATIVE:
        argument, end = _argument(data, at)
        return -1 - argument, end
    if major == _BYTES:
        length, start = _count(data, at)
        end = start + length
        _check_end(data, at, end)
        return data[start:end], end
    raise _fault(
        at, "a tag found, which is not taken here, the one for self-described data included"
    )


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that an initial byte and those behind it hold, and where it ends."""
    info = data[at] & 0x1F
    if info < 24:
        return info, at + 1
    if info == 24:
        return data[at + 1], at + 2
    if info <= 27:
        end = at + 1 + (1 << (info - 24))
        data[end - 1]
        return int.from_bytes(data[at + 1 : end], "big"), end
    if info == 31:
        raise _fault(at, f"{_KINDS[data[at] >> 5]} of indefinite length found, a length expected")
    raise _fault(at, f"additional information {info} found, which has no meaning")


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Return a length that is within its limit; nothing behind it was looked at yet."""
    count, end = _argument(data, at)
    limit, told = _COUNTED[data[at] >> 5]
    if count > limit:
        raise _beyond(at, f"{told.format(count)} found, at most {limit} are taken")
    return count, end


def _check_end(data: bytes, at: int, end: int) -> None:
    if end > len(data):
        kind = _KINDS[data[at] >> 5]
        raise _fault(at, f"{kind} found that ends {end - len(data)} bytes behind the payload")


def _text(data: bytes, at: int) -> tuple[str, int]:
    info = data[at] & 0x1F
    length, start = (info, at + 1) if info < 24 else _count(data, at)
    end = start + length
    _check_end(data, at, end)
    try:
        return data[start:end].decode(), end
    except UnicodeDecodeError as error:
        place = start + error.start
        raise _fault(
            place, f"byte 0x{data[place]:02x} of a text is no UTF-8 ({error.reason})"
        ) from None


def _array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth == 0:
        raise _too_deep(at)
    count, end = _count(data, at)
    items = []
    for _ in range(count):
        item, end = _item(data, end, depth - 1)
        items.append(item)
    return items, end


def _map(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth == 0:
        raise _too_deep(at)
    count, end = _count(data, at)
    pairs: dict[str, Any] = {}
    for _ in range(count):
        key_at = end
        if data[key_at] >> 5 != _TEXT:
            raise _fault(key_at, f"{_KINDS[data[key_at] >> 5]} found as a key, a text expected")
        key, end = _text(data, key_at)
        if key in pairs:
            raise _fault(key_at, f"key {key!r} found twice in one map")
        pairs[key], end = _item(data, end, depth - 1)
    return pairs, end


def _simple(data: bytes, at: int) -> _Read:
    first = data[at]
    if first in _LITERALS:
        return _LITERALS[first], at + 1
    form = _FLOATS.get(first & 0x1F)
    if form is not None:
        end = at + 1 + form.size
        data[end - 1]
        return form.unpack_from(data, at + 1)[0], end
    if first == 0xFF:
        raise _fault(at, "a break found outside anything of indefinite length")
    if first == 0xF7:
        raise _fault(at, "undefined found; false, true, null and numbers are taken")
    if first < 0xF9:
        raise _fault(at, "a simple value found that has no meaning; false, true and null are taken")
    raise _fault(at, f"additional information {first & 0x1F} found, which has no meaning")


def _too_deep(at: int) -> FrameRefusedError:
    return _beyond(at, f"more than {DEPTH_MAX} arrays and maps within each other")


def _beyond(offset: int, detail: str) -> FrameRefusedError:
    return FrameRefusedError(Outcome.CBOR_LIMIT, offset, detail)


def _fault(offset: int, detail: str) -> FrameRefusedError:
    return FrameRefusedError(Outcome.CBOR, offset, detail)


def locate(data: bytes, path: tuple[str | int, ...]) -> int:
    """Return where the item at ``path`` (keys, places) begins in a map that `read_map` read.

    Of a path that leads nowhere, where the last item on it begins.
    """
    at = 0
    for step in path:
        count, inner = _count(data, at)
        is_map = data[at] >> 5 == _MAP
        for place in range(count):
            key: str | int = place
            if is_map:
                key, inner = _text(data, inner)
            if key == step:
                at = inner
                break
            _, inner = _item(data, inner, DEPTH_MAX)
        else:
            return at
    return at


# --- writing ------------------------------------------------------------------------------------


def write_map(value: dict[str, Any]) -> bytes:
    """Return a map as CBOR, every item in its shortest form.

    Raises ValueError for what `read_map` would not take, with its place.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} given, a dict expected")
    parts: list[bytes] = []
    _write(parts.append, value, "", DEPTH_MAX)
    return b"".join(parts)


def _write(put: Callable[[bytes], None], value: Any, place: str, depth: int) -> None:  # noqa: ANN401
    if isinstance(value, str):
        _write_string(put, _TEXT, value.encode(), place)
    elif isinstance(value, bytes):
        _write_string(put, _BYTES, value, place)
    elif value is None or isinstance(value, bool):
        put(b"\xf6" if value is None else b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        if not -_INTEGER_MAX <= value < _INTEGER_MAX:
            raise ValueError(f"{place or 'value'}: {value} does not fit 64 bits")
        put(_head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value))
    elif isinstance(value, float):
        put(_float(value))
    elif isinstance(value, dict | list | tuple):
        if depth == 0:
            raise ValueError(f"{place}: more than {DEPTH_MAX} arrays and maps within each other")
        _write_inner(put, value, place, depth - 1)
    else:
        raise TypeError(f"{place or 'value'}: CBOR here has nothing for {type(value).__name__}")


def _write_inner(
    put: Callable[[bytes], None],
    value: dict[Any, Any] | list[Any] | tuple[Any, ...],
    place: str,
    depth: int,
) -> None:
    if not isinstance(value, dict):
        put(_counted(_ARRAY, len(value), place))
        for index, item in enumerate(value):
            _write(put, item, f"{place}[{index}]", depth)
        return
    put(_counted(_MAP, len(value), place))
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{place or 'value'}: key {key!r} found, a text expected")
        _write_string(put, _TEXT, key.encode(), place)
        _write(put, item, f"{place}.{key}" if place else key, depth)


def _write_string(put: Callable[[bytes], None], major: int, value: bytes, place: str) -> None:
    put(_counted(major, len(value), place))
    put(value)


def _counted(major: int, count: int, place: str) -> bytes:
    limit, told = _COUNTED[major]
    if count > limit:
        raise ValueError(f"{place or 'value'}: {told.format(count)}, at most {limit} are taken")
    return _head(major, count)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info in (24, 25, 26, 27):
        size = 1 << (info - 24)
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise AssertionError("callers check that it fits")


def _float(value: float) -> bytes:
    """Return the shortest form that holds the same number."""
    for info, form in _FLOATS.items():
        try:
            packed = form.pack(value)
        except OverflowError:
            continue
        if form.unpack(packed)[0] == value or value != value:  # noqa: PLR0124  # NaN
            return bytes([_SIMPLE << 5 | info]) + packed
    raise AssertionError("a double holds any")
