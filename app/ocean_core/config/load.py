"""Builds the settings and remembers where each value came from."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ocean_core.config.settings import SettingInfo, Settings, all_settings
from ocean_core.model.errors import ConfigError, FieldProblem, UnknownSettingError

CONFIG_VARIABLE = "OCEAN_CONFIG"
# Variables of the same prefix that are no settings.
_OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "OCEAN_CRASH_LONG",
        "OCEAN_EXECUTABLE",
        "OCEAN_FAULT",
        "OCEAN_KEY",
        "OCEAN_REQUIRE_TOOLS",
        "OCEAN_URL",
    }
)
# Secrets of Nanogridata are no settings: they are not to be shown. `service.frames.secret_source`
# reads them.
_SECRET_VARIABLE = re.compile(r"OCEAN_NANOGRIDATA_SECRET_[0-9A-Fa-f]{2}(_FILE)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, and per name (``server.port``) where the value came from."""

    settings: Settings
    origin: dict[str, str]


def load_settings(
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> LoadedSettings:
    """Return the settings: defaults < TOML file < ``OCEAN_SECTION__KEY`` < typed flags.

    Raises ConfigError naming file, line and the nearest valid name.
    """
    infos = {info.name: info for info in all_settings()}
    values: dict[str, object] = {name: info.default for name, info in infos.items()}
    origin = dict.fromkeys(values, "default")
    if config_file is None and environment.get(CONFIG_VARIABLE):
        config_file = Path(environment[CONFIG_VARIABLE])
    if config_file is not None:
        for name, value, line in _read_file(config_file, infos):
            where = f"{config_file}, line {line}" if line else str(config_file)
            values[name] = _checked(infos[name], value, where, strict=True)
            origin[name] = where
    for variable, text in sorted(environment.items()):
        _refuse_near_miss(variable, infos)
        if _is_setting_variable(variable):
            name = variable.removeprefix("OCEAN_").lower().replace("__", ".")
            if name not in infos:
                raise _unknown(name, infos, f"environment variable {variable}")
            values[name] = _checked(infos[name], text, f"environment variable {variable}")
            origin[name] = f"environment variable {variable}"
    for name, value in (flags or {}).items():
        values[name] = _checked(infos[name], value, f"flag for {name}")
        origin[name] = "command line"
    return LoadedSettings(_build(values), origin)


def _refuse_near_miss(variable: str, infos: Mapping[str, SettingInfo]) -> None:
    """Refuse OCEAN_SERVER_PORT: with one underscore it would silently mean nothing."""
    if variable.startswith("OCEAN_") and "__" not in variable:
        for info in infos.values():
            if info.variable.replace("__", "_") == variable:
                raise UnknownSettingError(
                    f"environment variable {variable}: did you mean {info.variable}, "
                    "with two underscores after the section?"
                )


def strange_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that begins like ours and means nothing."""
    variables = [info.variable for info in all_settings()]
    told = []
    for name in sorted(environment):
        if not name.startswith("OCEAN_") or name in _OTHER_VARIABLES or name in variables:
            continue
        if _SECRET_VARIABLE.fullmatch(name):
            continue
        word = name.removeprefix("OCEAN_").strip("_")
        near = [known for known in variables if known.endswith(f"__{word}")]
        near = near or difflib.get_close_matches(name, [*variables, *_OTHER_VARIABLES], n=1)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        told.append(f"environment variable {name} is no setting, and nothing else{meant}")
    return told


def _is_setting_variable(variable: str) -> bool:
    return variable.startswith("OCEAN_") and "__" in variable and variable not in _OTHER_VARIABLES


def _read_file(
    path: Path, infos: Mapping[str, SettingInfo]
) -> list[tuple[str, object, int | None]]:
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", hint="Check the path given to --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    found: list[tuple[str, object, int | None]] = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            line = _line_of(text, None, section)
            raise _unknown(section, infos, f"{path}, line {line}")
        for key, value in table.items():
            line = _line_of(text, section, key)
            name = f"{section}.{key}"
            if name not in infos:
                raise _unknown(name, infos, f"{path}, line {line}")
            found.append((name, value, line))
    return found


def _line_of(text: str, section: str | None, key: str) -> int | None:
    """Return the line that sets a key; tomllib does not tell, so look for it as a person would."""
    current: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            current = stripped.strip("[] \"'")
        name = stripped.split("=", 1)[0].strip(" \"'")
        if "=" in stripped and ((current == section and name == key) or name == f"{section}.{key}"):
            return number
    return None


def _unknown(name: str, infos: Mapping[str, SettingInfo], where: str) -> UnknownSettingError:
    nearest = difflib.get_close_matches(name, infos, n=1, cutoff=0.5)
    tail = f"; did you mean `{nearest[0]}`?" if nearest else ""
    return UnknownSettingError(f"{where}: there is no setting `{name}`{tail}")


def _checked(info: SettingInfo, value: object, where: str, *, strict: bool = False) -> object:
    if info.type_text == "list of text" and isinstance(value, str) and not strict:
        # The environment and flags have no lists: names are separated by commas.
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, info.annotation, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{where}: `{info.name}` is {value!r}, but must be: {info.type_text} ({error})",
            fields=(FieldProblem(info.name, repr(value), info.type_text),),
        ) from error


def _build(values: Mapping[str, object]) -> Settings:
    sections: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        section, key = name.split(".", 1)
        sections.setdefault(section, {})[key] = value
    return msgspec.convert(sections, Settings)
