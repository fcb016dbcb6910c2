"""`ocean config show` and `ocean config check`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import msgspec

from ocean_core.cli.options import config_option, data_dir_option, naming_origin, settings_from
from ocean_core.config.load import strange_variables
from ocean_core.config.settings import all_settings


@click.group("config")
def config_group() -> None:
    """Look at the settings."""


@config_group.command("show")
@data_dir_option
@config_option
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_command(
    *, data_dir: str | None, config_file: Path | None, origin: bool, as_json: bool
) -> None:
    """Print every setting with its present value, as a TOML file would have it."""
    loaded = settings_from(config_file, {"data.dir": data_dir})
    values = msgspec.to_builtins(loaded.settings)
    if as_json:
        table = {
            info.name: {"value": _value_of(values, info.name), "origin": loaded.origin[info.name]}
            for info in all_settings()
        }
        click.echo(json.dumps(table, indent=2))
        return
    section = ""
    for info in all_settings():
        name = info.name.split(".", 1)
        if name[0] != section:
            section = name[0]
            click.echo(f"[{section}]")
        line = f"{name[1]} = {json.dumps(_value_of(values, info.name))}"
        click.echo(f"{line:<36} # {loaded.origin[info.name]}" if origin else line)


@config_group.command("check")
@data_dir_option
@config_option
def check_command(data_dir: str | None, config_file: Path | None) -> None:
    """Check file, environment, certificate, models, secrets; exit code 78 if something is wrong."""
    from ocean_core.obs.clock import SystemClock
    from ocean_core.obs.log import EventLog
    from ocean_core.runtime.frames import read_rules
    from ocean_core.runtime.listeners import prepare_tls
    from ocean_core.service.frames.models_file import load_models

    for told in strange_variables(os.environ):
        click.echo(f"ocean: warning: {told}", err=True)
    loaded = settings_from(config_file, {"data.dir": data_dir})
    clock = SystemClock()
    data_path = Path(loaded.settings.data.dir).expanduser().absolute()
    with naming_origin(loaded):
        prepare_tls(loaded.settings, clock, EventLog(clock))
        read_rules(loaded.settings, data_path, clock, EventLog(clock))
    described = load_models(loaded.settings.nanogridata, data_path)
    if described.path:
        count = len(described.models)
        click.echo(f"{described.path}: {count} model{'s' if count != 1 else ''} described.")
    changed = [name for name, origin in loaded.origin.items() if origin != "default"]
    differ = (
        "1 setting differs from its"
        if len(changed) == 1
        else f"{len(changed)} settings differ from their"
    )
    click.echo(f"The configuration is valid; {differ} default.")


def _value_of(values: dict[str, dict[str, object]], name: str) -> object:
    section, key = name.split(".", 1)
    value = values[section][key]
    if name == "nanogridata.secret_files":
        assert isinstance(value, list | tuple)
        return [_without_secret(str(entry)) for entry in value]
    return value


def _without_secret(entry: str) -> str:
    """Return MODEL=PATH, without a path that is none: it may be the secret itself."""
    named, is_given, path = entry.rpartition("=")
    if not is_given or Path(path).expanduser().exists():
        return entry
    return f"{named}=(no such file, not shown)"
