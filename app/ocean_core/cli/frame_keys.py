"""`ocean keys nanogridata`: the secrets that devices sign their frames with.

They work on the file in the data directory; a server that runs there looks at it by itself.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from ocean_core.cli.asking import is_interactive
from ocean_core.cli.frame_key_texts import TAKEN_OVER, former_of, state_of, story, told
from ocean_core.cli.options import config_option, data_dir_option, examples, settings_from
from ocean_core.cli.tables import json_option, moment, print_json, print_list
from ocean_core.config.settings import Settings
from ocean_core.model import limits
from ocean_core.model.errors import (
    CommandError,
    DataDirError,
    SecretError,
)
from ocean_core.obs.clock import Clock, SystemClock
from ocean_core.obs.log import EventLog
from ocean_core.runtime.lock import prepare_data_dir
from ocean_core.service.frames.key_file import (
    FILE_NAME,
    Entry,
    change_entries,
    read_entries,
    sync_directory,
    write_private,
)
from ocean_core.service.frames.keyring import SecretStore
from ocean_core.service.frames.secret_changes import added, removed, rotated
from ocean_core.service.frames.secret_source import (
    Place,
    check_place,
    others_may_read,
    read_model,
    read_secret_file,
)

SECRET_BYTES: Final = 32
OVERLAP_DEFAULT: Final = "24h"
OVERLAP_S_MAX: Final = 366 * 86_400
_SPAN: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

clock: Clock = SystemClock()
"""What the commands go by; tests put their own here."""


@click.group("nanogridata")
def nanogridata_group() -> None:
    """Make, list, rotate and remove the secrets of Nanogridata devices."""


def _model(_context: object, _option: object, typed: str) -> int:
    try:
        return read_model(typed, typed)
    except SecretError as error:
        raise click.BadParameter(error.detail) from None


def _span(_context: object, _option: object, typed: str) -> int:
    found = _SPAN.fullmatch(typed)
    seconds = 0 if typed == "0" else int(found[1]) * _UNITS[found[2]] if found else None
    if seconds is None or seconds > OVERLAP_S_MAX:
        raise click.BadParameter(f"{typed!r} is no time such as 24h, 7d, 30m (at most 366d), or 0")
    return seconds


_model_option: Final = click.option(
    "--model", "model_id", required=True, metavar="0x10", callback=_model,
    help="Model of the devices, as in their frames.",
)  # fmt: skip
_group_option: Final = click.option(
    "--group", default="", metavar="NAME", help="Only for a group of its devices."
)
_file_option: Final = click.option(
    "--secret-file", type=click.Path(path_type=Path), metavar="FILE",
    help="Take the secret from a file, hex or raw bytes.",
)  # fmt: skip
_out_option: Final = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE",
    help="Make 32 random bytes, and write them as hex to a new file for the devices.",
)  # fmt: skip


@nanogridata_group.command(
    "add",
    epilog=examples(
        "ocean keys nanogridata add --model 0x10 --out esp32.key",
        "ocean keys nanogridata add --model 0x10 --group line-3 --sensors 'press-*' --out line3.key",
        "ocean keys nanogridata add --model 0x20 --secret-file stm32.key",
    ),
)
@_model_option
@_group_option
@click.option(
    "--sensors", default="", metavar="PATTERN", help="Device ids of the group, such as 'press-*'."
)
@_file_option
@_out_option
@json_option
@data_dir_option
@config_option
def add_command(
    *,
    model_id: int,
    group: str,
    sensors: str,
    secret_file: Path | None,
    out: Path | None,
    as_json: bool,
    data_dir: str | None,
    config_file: Path | None,
) -> None:
    """Add the secret of a model, or of a group of its devices. It is never shown.

    With --out its bytes are made here; the file is what goes into the devices.
    """
    place = check_place(Place(model_id, group, sensors), "--group and --sensors")
    settings = settings_from(config_file, {"data.dir": data_dir}).settings
    folder = prepare_data_dir(Path(settings.data.dir))

    def change(entries: list[Entry], secret: bytes, now_us: int) -> list[Entry]:
        return added(entries, place, secret, now_us)

    _keep(settings, folder, place, secret_file, out, change, as_json=as_json)


@nanogridata_group.command(
    "rotate",
    epilog=examples(
        "ocean keys nanogridata rotate --model 0x10 --out esp32-new.key",
        "ocean keys nanogridata rotate --model 0x10 --group line-3 --overlap 7d --out line3-new.key",
        "ocean keys nanogridata rotate --model 0x10 --overlap 0 --out esp32-new.key",
    ),
)
@_model_option
@_group_option
@_file_option
@_out_option
@click.option(
    "--overlap", "overlap_s", default=OVERLAP_DEFAULT, show_default=True, metavar="TIME",
    callback=_span, help="How long the former one goes on counting: 24h, 7d, …, 0: not at all.",
)  # fmt: skip
@json_option
@data_dir_option
@config_option
def rotate_command(
    *,
    model_id: int,
    group: str,
    secret_file: Path | None,
    out: Path | None,
    overlap_s: int,
    as_json: bool,
    data_dir: str | None,
    config_file: Path | None,
) -> None:
    """Put a new secret beside the present one, which goes on counting for a while.

    Give the new one to the devices meanwhile; `ocean keys nanogridata remove --former` ends it early.
    """
    place = Place(model_id, group)
    settings, folder = _existing(data_dir, config_file)

    def change(entries: list[Entry], secret: bytes, now_us: int) -> list[Entry]:
        return rotated(entries, place, secret, now_us, overlap_s)

    _keep(settings, folder, place, secret_file, out, change, as_json=as_json)


@nanogridata_group.command("list")
@json_option
@data_dir_option
@config_option
def list_command(*, as_json: bool, data_dir: str | None, config_file: Path | None) -> None:
    """List the secrets that count, without the secrets themselves.

    Those of settings and environment are what this command sees; the server's may differ.
    """
    settings, folder = _existing(data_dir, config_file)
    print_list(
        [told(known) for known in _store(settings, folder).known()],
        {
            "NAME": lambda entry: entry["name"],
            "MODEL": lambda entry: entry["model"],
            "GROUP": lambda entry: entry["group"],
            "DEVICES": lambda entry: entry["sensors"] or "all",
            "STATE": state_of,
            "CREATED": lambda entry: moment(entry["created_at"]),
            "ORIGIN": lambda entry: entry["origin"],
            "FINGERPRINT": lambda entry: entry["fingerprint"],
            "WHERE": lambda entry: entry["where"],
        },
        empty="There are no secrets: signed and encrypted frames are refused (E_KEY). "
        "`ocean keys nanogridata add` makes one.",
        as_json=as_json,
    )


@nanogridata_group.command(
    "remove",
    epilog=examples(
        "ocean keys nanogridata remove --model 0x10 --former",
        "ocean keys nanogridata remove --model 0x10 --group line-3",
    ),
)
@_model_option
@_group_option
@click.option("--former", is_flag=True, help="Only the former one of a rotation.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@data_dir_option
@config_option
def remove_command(
    *,
    model_id: int,
    group: str,
    former: bool,
    yes: bool,
    as_json: bool,
    data_dir: str | None,
    config_file: Path | None,
) -> None:
    """Remove the secrets of a model, or of a group. Frames signed with them are refused then."""
    place = Place(model_id, group)
    _, folder = _existing(data_dir, config_file)
    names: list[str] = []

    def change(entries: list[Entry]) -> list[Entry]:
        left = removed(entries, place, clock.now_us(), former=former)
        names[:] = [entry.name for entry in entries if entry not in left]
        return left

    if not (yes or former):
        change(read_entries(folder / FILE_NAME))
        _confirm(place)
    change_entries(folder, change, pause=time.sleep)
    if as_json:
        print_json({"removed": names})
        return
    click.echo(f"removed: {', '.join(names)}")
    click.echo(TAKEN_OVER)


def _keep(
    settings: Settings,
    folder: Path,
    place: Place,
    secret_file: Path | None,
    out: Path | None,
    change: Callable[[list[Entry], bytes, int], list[Entry]],
    *,
    as_json: bool,
) -> None:
    """Find or make a secret, store it by ``change`` and tell of it."""
    if (secret_file is None) == (out is None):
        raise click.UsageError("give one of --secret-file FILE and --out FILE")
    secret = os.urandom(SECRET_BYTES) if secret_file is None else read_secret_file(secret_file)
    if secret_file is not None and others_may_read(secret_file):
        click.echo(
            f"ocean: warning: {secret_file}: other users may read the secret (chmod 600)", err=True
        )

    def checked(entries: list[Entry]) -> list[Entry]:
        changed = change(entries, secret, clock.now_us())
        _store(settings, folder).check(changed)
        # Last, so that it is not made for nothing; first, so that no secret is lost.
        if out is not None:
            _hand_out(out, secret)
        return changed

    try:
        entries = change_entries(folder, checked, pause=time.sleep)
    except CommandError:
        # Not stored, so of no use to any device. One that was there before is not ours to remove.
        kept = {entry.secret for entry in read_entries(folder / FILE_NAME)}
        if out is not None and secret not in kept and _holds(out, secret):
            out.unlink(missing_ok=True)
        raise
    name = next(
        entry.name
        for entry in reversed(entries)
        if entry.place[:2] == place[:2] and entry.until_us is None
    )
    known = next(item for item in _store(settings, folder).known() if item.name == name)
    if as_json:
        print_json({**told(known), "out": None if out is None else str(out.absolute())})
        return
    click.echo("\n".join(story(known, out, former_of(entries, known))))


def _hand_out(out: Path, secret: bytes) -> None:
    """Write a secret to a new file for the devices. Raises CommandError."""
    try:
        write_private(out, secret.hex().encode() + b"\n")
        sync_directory(out.absolute().parent)
    except FileExistsError:
        raise CommandError(
            f"{out}: is there already; nothing was changed", hint="Name a new file with --out."
        ) from None
    except OSError as error:
        raise CommandError(
            f"{out}: cannot be written: {error.strerror}; nothing was changed"
        ) from error


def _holds(path: Path, secret: bytes) -> bool:
    try:
        with path.open("rb") as file:
            # Also the beginning of one, if the disk was full.
            content = file.read(4 * limits.SECRET_BYTES_MAX).strip()
    except OSError:
        return False
    return secret.hex().encode().startswith(content)


def _existing(data_dir: str | None, config_file: Path | None) -> tuple[Settings, Path]:
    settings = settings_from(config_file, {"data.dir": data_dir}).settings
    folder = Path(settings.data.dir).expanduser().absolute()
    if not folder.is_dir():
        raise DataDirError(f"{folder}: there is no such directory")
    return settings, folder


def _store(settings: Settings, folder: Path) -> SecretStore:
    return SecretStore(
        folder, settings.nanogridata.secret_files, os.environ, clock, EventLog(clock)
    )


def _confirm(place: Place) -> None:
    """Say what will happen, and go on only when the name is typed again."""
    click.echo(
        f"This removes every secret of {place}: frames signed with one are refused from then on. "
        "There is no way back.",
        err=True,
    )
    if not is_interactive():
        raise CommandError(
            "nobody is there to confirm it; nothing was removed",
            hint="In a script add --yes, if this is really meant.",
        )
    typed = click.prompt(f"Type {place} to go on", default="", show_default=False, err=True)
    if typed != str(place):
        raise CommandError(f"{typed!r} is not {str(place)!r}; nothing was removed")
