"""What `ocean keys nanogridata` tells of secrets; never anything of the secrets themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ocean_core.cli.tables import moment
from ocean_core.obs.clock import iso_utc
from ocean_core.service.frames.key_file import Entry
from ocean_core.service.frames.keyring import Known
from ocean_core.service.frames.secret_source import model_text

TAKEN_OVER: Final = "A server that runs on this data directory takes it over within 10 s."


def told(known: Known) -> dict[str, Any]:
    """Return what may be told of a secret."""
    return {
        "name": known.name,
        "model": model_text(known.place.model_id),
        "group": known.place.group,
        "sensors": known.place.sensors,
        "state": "current" if known.until_us is None else "former",
        "until": None if known.until_us is None else iso_utc(known.until_us),
        "created_at": None if known.created_us is None else iso_utc(known.created_us),
        "origin": known.origin,
        "where": known.where,
        "fingerprint": known.fingerprint,
    }


def state_of(entry: Mapping[str, Any]) -> str:
    """Return the state of a secret for a table."""
    return f"former until {moment(entry['until'])}" if entry["until"] else str(entry["state"])


def former_of(entries: list[Entry], known: Known) -> Entry | None:
    """Return the secret that one has followed and that still counts, if there is one."""
    return next(
        (entry for entry in entries if entry.place == known.place and entry.until_us is not None),
        None,
    )


def story(known: Known, out: Path | None, former: Entry | None) -> list[str]:
    """Return what to say of a secret that was just stored."""
    devices = f"devices {known.place.sensors}" if known.place.group else "all its devices"
    named = f"secret {known.name} (fingerprint {known.fingerprint})"
    lines = [f"{named} counts for model {model_text(known.place.model_id)}, {devices}"]
    if former is not None and former.until_us is not None:
        lines.append(f"{former.name} goes on counting until {iso_utc(former.until_us)}")
    if out is not None:
        lines.append(
            f"{out.absolute()} holds it as hex: put these bytes into the devices, then remove it"
        )
    return [*lines, TAKEN_OVER]
