"""What a body is, and how it was compressed, by its headers. Sans-IO, for every HTTP route."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ocean_core.model.errors import ContentTypeError, FieldProblem


class Media(StrEnum):
    """What kind of body it is."""

    JSON = "application/json"
    NDJSON = "application/x-ndjson"
    BLOCK = "application/x-ocean-block"
    FRAMES = "application/x-nanogridata"


class Encoding(StrEnum):
    """How a body was compressed."""

    IDENTITY = "identity"
    GZIP = "gzip"
    ZSTD = "zstd"


ONLY_JSON: Final = frozenset({Media.JSON})
SINGLES: Final = frozenset({Media.JSON, Media.FRAMES})
"""What one item, or one frame, may come as."""
READINGS: Final = frozenset(Media)

_NDJSON_TYPES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "text/x-ndjson",
    }
)
_ENCODINGS: Final = {
    "": Encoding.IDENTITY,
    "identity": Encoding.IDENTITY,
    "gzip": Encoding.GZIP,
    "x-gzip": Encoding.GZIP,
    "zstd": Encoding.ZSTD,
}


def media_of(content_type: str | None, allowed: frozenset[Media] = ONLY_JSON) -> Media:
    """Return what a Content-Type stands for.

    A missing header is taken as JSON: small devices often send none. (Pages of other sites cannot
    use that, see ``service.guard``.) Raises ContentTypeError for anything that is not ``allowed``.
    """
    if not content_type:
        return Media.JSON
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    media = _known(kind)
    if media is None or media not in allowed:
        hint = None
        if kind == "application/x-www-form-urlencoded":
            hint = "Add -H 'Content-Type: application/json' (curl -d alone says it is a form)."
        elif media is not None:
            hint = "Readings in this form go to /api/ocean/telemetry/batch."
        raise ContentTypeError(
            f"Content-Type is {kind[:80]!r}",
            hint=hint,
            fields=(FieldProblem("Content-Type", content_type[:80], " or ".join(sorted(allowed))),),
        )
    charset = parameters.lower().partition("charset=")[2].split(";")[0].strip(' "')
    if charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise ContentTypeError(
            f"charset is {charset[:80]!r}",
            fields=(FieldProblem("Content-Type", content_type[:80], "charset=utf-8"),),
        )
    return media


def _known(kind: str) -> Media | None:
    if kind in _NDJSON_TYPES:
        return Media.NDJSON
    if kind in {Media.BLOCK, Media.FRAMES}:
        return Media(kind)
    if kind in ("application/json", "text/json"):
        return Media.JSON
    if kind.startswith("application/") and kind.endswith("+json"):
        return Media.JSON
    return None


def encoding_of(content_encoding: str | None, *, compressed: bool = True) -> Encoding:
    """Return what a Content-Encoding stands for.

    Raises ContentTypeError for one that is not known, or for any if not ``compressed``.
    """
    name = (content_encoding or "").strip().lower()
    encoding = _ENCODINGS.get(name)
    if encoding is None or (encoding is not Encoding.IDENTITY and not compressed):
        expected = "identity, gzip or zstd" if compressed else "identity"
        raise ContentTypeError(
            f"Content-Encoding is {name[:40]!r}",
            hint="Send the body uncompressed, or as gzip or zstd."
            if compressed
            else "Send the body uncompressed.",
            fields=(FieldProblem("Content-Encoding", name[:40], expected),),
        )
    return encoding
