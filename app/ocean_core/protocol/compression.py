"""Compressed bodies back to what was compressed, never more of it than is allowed. Sans-IO."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

from backports import zstd

from ocean_core.model.errors import BodyTooLargeError, MalformedBodyError
from ocean_core.protocol.media import Encoding

ZSTD_WINDOW_LOG_MAX: Final = 23
"""A zstd body may ask for a window of up to 8 MiB, as RFC 9659 has it for HTTP."""
PARTS_MIN: Final = 16
BYTES_PER_PART: Final = 16 * 1024
"""A body may have PARTS_MIN gzip members or zstd frames, or one for each so many bytes that may
come out if these are more: each takes its time, even an empty one."""

_GZIP_WBITS: Final = 31
# What is left of a piece after a member's end is copied, so pieces begin small and grow.
_PIECE_BYTES_MIN: Final = 4 * 1024
_PIECE_BYTES_MAX: Final = 1024 * 1024
_MAGIC: Final = {Encoding.GZIP: b"\x1f\x8b", Encoding.ZSTD: b"\x28\xb5\x2f\xfd"}
_PART: Final = {Encoding.GZIP: "gzip member", Encoding.ZSTD: "zstd frame"}
_HINT: Final = "Compress the body again and send all of it, or send it without Content-Encoding."


class _Decompressor(Protocol):
    """One member or frame: what zlib and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def feed(self, data: memoryview, bytes_max: int) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: memoryview, bytes_max: int) -> bytes:
        return self._inner.decompress(data, bytes_max)


class _Zstd:
    def __init__(self) -> None:
        options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG_MAX}
        self._inner = zstd.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: memoryview, bytes_max: int) -> bytes:
        return self._inner.decompress(data, bytes_max)


def expand(body: bytes, encoding: Encoding, bytes_max: int) -> bytes:
    """Return the body as it was before it was compressed; it may have several members or frames.

    Memory stays within about twice ``bytes_max`` and the window. Raises MalformedBodyError for
    what is damaged, cut off, or followed by other bytes, and BodyTooLargeError as soon as it is
    clear that more than ``bytes_max`` bytes would come out, or that there are too many parts.
    """
    if encoding is Encoding.IDENTITY:
        return body
    if not body:
        raise MalformedBodyError(f"The body is empty, not {encoding}.", hint=_HINT)
    view = memoryview(body)
    expanded: list[bytes] = []
    parts_left = max(PARTS_MIN, bytes_max // BYTES_PER_PART)
    room = bytes_max
    position = 0
    while position < len(body):
        if parts_left == 0:
            raise BodyTooLargeError(
                f"The body has too many {_PART[encoding]}s.", hint="Compress the body as a whole."
            )
        _check_start(body, position, encoding)
        outcome, position = _expand_part(view, position, encoding, room, bytes_max)
        expanded += outcome
        room -= sum(map(len, outcome))
        parts_left -= 1
    return expanded[0] if len(expanded) == 1 else b"".join(expanded)


def _expand_part(
    view: memoryview, position: int, encoding: Encoding, room: int, bytes_max: int
) -> tuple[list[bytes], int]:
    """Return what one member or frame holds, and where in the body it ends."""
    decompressor: _Decompressor = _Gzip() if encoding is Encoding.GZIP else _Zstd()
    pieces: list[bytes] = []
    start, size = position, _PIECE_BYTES_MIN
    while not decompressor.eof:
        if position == len(view):
            raise MalformedBodyError(
                f"The body is cut off: it ends after {position} bytes, inside the {_PART[encoding]}"
                f" that begins at byte {start}.",
                hint=_HINT,
            )
        data = view[position : position + size]
        try:
            piece = decompressor.feed(data, room + 1)
        except (zlib.error, zstd.ZstdError) as error:
            raise _damaged(encoding, start, error) from None
        room -= len(piece)
        if room < 0:
            raise BodyTooLargeError(
                f"The body expands to more than {bytes_max} bytes; the limit holds for what comes out."
            )
        if piece:
            pieces.append(piece)
        position += len(data)
        size = min(2 * size, _PIECE_BYTES_MAX)
    return pieces, position - len(decompressor.unused_data)


def _check_start(body: bytes, position: int, encoding: Encoding) -> None:
    magic = _MAGIC[encoding]
    found = body[position : position + len(magic)]
    if magic.startswith(found) or (encoding is Encoding.ZSTD and _is_skippable(found)):
        return
    if position:
        raise MalformedBodyError(
            f"After the last {_PART[encoding]}, at byte {position}, {len(body) - position} more "
            f"bytes follow, beginning with 0x{found.hex()}; expected the end, or another "
            f"{_PART[encoding]} beginning with 0x{magic.hex()}.",
            hint=_HINT,
        )
    raise MalformedBodyError(
        f"The body begins with 0x{found.hex()}; expected 0x{magic.hex()}, since Content-Encoding "
        f"says {encoding}.",
        hint=_HINT,
    )


def _is_skippable(found: bytes) -> bool:
    """Say whether a frame begins that zstd skips: 0x184D2A50 to 0x184D2A5F, little-endian."""
    return found[1:] == b"\x2a\x4d\x18" and found[0] & 0xF0 == 0x50


def _damaged(encoding: Encoding, start: int, error: Exception) -> MalformedBodyError:
    reason = str(error).rpartition(": ")[2].rstrip(".")
    if "too much memory" in reason:
        reason = f"its window is larger than {1 << (ZSTD_WINDOW_LOG_MAX - 20)} MiB"
    return MalformedBodyError(
        f"The {_PART[encoding]} at byte {start} cannot be expanded: {reason}.", hint=_HINT
    )
