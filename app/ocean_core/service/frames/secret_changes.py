"""What adding, rotating and removing make of the secrets in our file: old entries in, new ones out.

Of one place there is one present secret, and during a rotation a former one beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocean_core.model.errors import ConflictError, UnknownRecordError
from ocean_core.obs.clock import iso_utc
from ocean_core.service.frames.key_file import Entry
from ocean_core.service.frames.secret_source import Place, model_text

_LIST = "`ocean keys nanogridata list` shows what is there."


def added(entries: Sequence[Entry], place: Place, secret: bytes, now_us: int) -> list[Entry]:
    """Return the entries with the first secret of a place.

    Raises ConflictError if there is one, or if the secret serves other devices of the model.
    """
    valid = _valid(entries, now_us)
    present = _of(valid, place)
    if present:
        raise ConflictError(
            f"{place} has a secret already: {present[0].name}",
            hint=f"`ocean keys nanogridata rotate {_options(place)}` puts a new one beside it.",
        )
    _refuse_same(valid, place, secret)
    return [*valid, Entry(place, _next_number(entries, place), secret, now_us)]


def rotated(
    entries: Sequence[Entry], place: Place, secret: bytes, now_us: int, overlap_s: int
) -> list[Entry]:
    """Return the entries with a new secret of a place, the present one a former one for a while.

    Raises UnknownRecordError if there is none, ConflictError if two count already, or it is the
    same.
    """
    valid = _valid(entries, now_us)
    ours = _of(valid, place)
    present = next((entry for entry in ours if entry.until_us is None), None)
    if present is None:
        raise UnknownRecordError(f"{place} has no secret that could be rotated", hint=_LIST)
    former = next((entry for entry in ours if entry.until_us is not None), None)
    if former is not None and former.until_us is not None:
        raise ConflictError(
            f"{place} has two secrets already: {former.name} counts until "
            f"{iso_utc(former.until_us)}",
            hint=f"`ocean keys nanogridata remove {_options(place)} --former` ends that at once.",
        )
    _refuse_same(valid, present.place, secret)
    kept = [entry for entry in valid if entry is not present]
    if overlap_s:
        until_us = now_us + overlap_s * 1_000_000
        kept.append(
            Entry(present.place, present.number, present.secret, present.created_us, until_us)
        )
    return [*kept, Entry(present.place, present.number + 1, secret, now_us)]


def removed(entries: Sequence[Entry], place: Place, now_us: int, *, former: bool) -> list[Entry]:
    """Return the entries without those of a place, or without its former one.

    Raises UnknownRecordError if there is none.
    """
    valid = _valid(entries, now_us)
    doomed = [entry for entry in _of(valid, place) if not former or entry.until_us is not None]
    if not doomed:
        what = "former secret" if former else "secret"
        raise UnknownRecordError(f"{place} has no {what} in this data directory", hint=_LIST)
    return [entry for entry in valid if entry not in doomed]


def _valid(entries: Sequence[Entry], now_us: int) -> list[Entry]:
    return [entry for entry in entries if entry.counts(now_us)]


def _of(entries: Sequence[Entry], place: Place) -> list[Entry]:
    return [entry for entry in entries if entry.place[:2] == place[:2]]


def _next_number(entries: Sequence[Entry], place: Place) -> int:
    return 1 + max((entry.number for entry in _of(entries, place)), default=0)


def _refuse_same(entries: Sequence[Entry], place: Place, secret: bytes) -> None:
    for entry in entries:
        if entry.secret == secret and entry.place.model_id == place.model_id:
            raise ConflictError(
                f"this secret is known already, as {entry.name}",
                hint="Each group of devices has its own; --out makes a new one.",
            )


def _options(place: Place) -> str:
    group = f" --group {place.group}" if place.group else ""
    return f"--model {model_text(place.model_id)}{group}"
