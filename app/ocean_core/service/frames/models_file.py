"""The models file: what is accepted of each model, and models that nobody wrote code for.

``read_models`` is pure, ``load_models`` finds and reads the file. How people write it is told in
``docs/nanogridata-models.md``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from ocean_core.config.settings import NanogridataSettings, all_settings
from ocean_core.config.toml_lines import line_numbers
from ocean_core.model import limits
from ocean_core.model.errors import ModelsFileError
from ocean_core.pipeline.routing import Profile, Range
from ocean_core.pipeline.routing.profile import GENERIC, WILDCARD
from ocean_core.protocol.nanogridata.frame import (
    GAS,
    MULTI_SENSOR,
    PAYLOAD_BYTES_MAX,
    PRESSURE,
    CustomModel,
)
from ocean_core.protocol.readings.names import name_is_good
from ocean_core.service.frames.custom_table import read_custom
from ocean_core.service.frames.toml_table import Document, Table, is_bound

FILE_NAME: Final = "nanogridata.toml"
POLICY_KEYS: Final = (
    "min_level",
    "max_age_s",
    "future_tolerance_s",
    "crc_variants",
    "plaintext_high",
    "high_mac_size",
    "max_payload",
)
_BUILT_IN_RANGES: Final = {
    PRESSURE: {"pressure": Range(0, 200_000)},
    GAS: {"gas:*": Range(0, 10_000)},
    MULTI_SENSOR: {},
}
_BUILT_IN_NAMES: Final = {PRESSURE: "pressure_v1", GAS: "gas_v1", MULTI_SENSOR: "multi_sensor_v1"}
BUILT_IN: Final = {
    model_id: Profile(model_id, name, ranges=_BUILT_IN_RANGES[model_id])
    for model_id, name in _BUILT_IN_NAMES.items()
}

_MODEL_ID: Final = re.compile(r"0x([0-9a-fA-F]{2})", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_POLICIES: Final = {
    info.name.partition(".")[2]: info
    for info in all_settings()
    if info.name.partition(".")[0] == "nanogridata"
}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the file says of one model: options that differ, its profile, how its payloads read."""

    options: Mapping[str, Any]
    profile: Profile
    custom: CustomModel | None


@dataclass(frozen=True, slots=True)
class ModelsFile:
    """The content of a models file by model id; ``path`` is empty if there is none."""

    models: Mapping[int, ModelEntry] = field(default_factory=dict)
    path: str = ""


def load_models(settings: NanogridataSettings, data_dir: Path) -> ModelsFile:
    """Return what the models file says, nothing if none is named and the default one is not there.

    Raises ModelsFileError naming the file, and what is wrong in it.
    """
    path = Path(settings.models_file or data_dir / FILE_NAME).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(limits.MODELS_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        if not settings.models_file:
            return ModelsFile()
        raise ModelsFileError(
            f"{path}: there is no such file", hint="Correct nanogridata.models_file, or empty it."
        ) from None
    except OSError as error:
        raise ModelsFileError(
            f"{path}: cannot be read: {error.strerror}", hint="Let this user read the file."
        ) from error
    try:
        return read_models(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModelsFileError(
            f"{path}, line {line}: found the byte 0x{data[error.start]:02x}, expected UTF-8"
        ) from None


def read_models(text: str, name: str = FILE_NAME) -> ModelsFile:
    """Return what a models file says; ``name`` is how errors call it. Raises ModelsFileError."""
    if len(text) > limits.MODELS_FILE_BYTES_MAX:
        raise ModelsFileError(
            f"{name}: found more than {limits.MODELS_FILE_BYTES_MAX} bytes, expected fewer"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelsFileError(f"{name}: not valid TOML: {error}") from None
    except RecursionError:
        raise ModelsFileError(f"{name}: not valid TOML: nested too deep") from None
    document = Document(name, line_numbers(text))
    top = Table(document, (), values)
    models: dict[int, ModelEntry] = {}
    described = top.table("model")
    for key, table in described.tables():
        model_id = _model_id(described, key)
        if model_id in models:
            raise described.mistake((key,), f"0x{model_id:02x} again", "each model once")
        models[model_id] = _read_model(model_id, table)
    top.finish()
    return ModelsFile(models, name)


def _model_id(described: Table, key: str) -> int:
    match = _MODEL_ID.fullmatch(key)
    if match is not None:
        return int(match[1], 16)
    expected = "the id of a model as 0x and two hexadecimal digits, such as [model.0x50]"
    if key.isascii() and key.isdigit() and int(key) < limits.MODELS_MAX:
        expected += f"; {int(key)} is 0x{int(key):02x}"
    raise described.mistake((key,), f"`{key[:80]}`", expected)


def _read_model(model_id: int, table: Table) -> ModelEntry:
    options = {key: _option(table, key) for key in POLICY_KEYS if key in table}
    built_in = BUILT_IN.get(model_id)
    if built_in is not None:
        profile = Profile(model_id, built_in.name, ranges=_ranges(model_id, table))
        _refuse_described(table, built_in)
        _finish(table)
        return ModelEntry(options, profile, None)
    label = table.text("label", GENERIC)
    if _LABEL.fullmatch(label) is None:
        table.refuse("label", "1 to 64 letters, digits, _ . or -, such as greenhouse_v1")
    described = read_custom(table, int(options.get("max_payload", PAYLOAD_BYTES_MAX)))
    _finish(table)
    if described is None:
        return ModelEntry(options, Profile(model_id, label), None)
    profile = Profile(
        model_id,
        label,
        ranges={item.metric: item.range for item in described.custom.measured if item.range},
        device_id=described.custom.device_id,
        lab_id=described.lab_id,
        prefix=described.prefix,
    )
    return ModelEntry(options, profile, described.custom)


def _finish(table: Table) -> None:
    # So that the policies are among what is proposed for a key that is not known.
    for key in POLICY_KEYS:
        table.value(key)
    table.finish()


def _option(table: Table, key: str) -> Any:  # noqa: ANN401 - as declared by the setting
    value, info = table.value(key), _POLICIES[key]
    try:
        return msgspec.convert(value, info.annotation, strict=True)
    except msgspec.ValidationError as error:
        table.refuse(key, f"{info.type_text} ({str(error).partition(' - at')[0]})")


def _refuse_described(table: Table, built_in: Profile) -> None:
    key = table.has("label", "fields", "readings")
    if key:
        table.refuse(
            key,
            f"nothing: {built_in.model} is built in as {built_in.name}, with fields and readings "
            "of its own; only what is accepted of it and its ranges can be changed",
        )


def _ranges(model_id: int, table: Table) -> dict[str, Range]:
    """Return the ranges of a built-in model, those of the file before its own."""
    of_metric = {PRESSURE: "pressure", GAS: "gas:* or gas:NAME"}.get(model_id, "")
    ranges = dict(_BUILT_IN_RANGES[model_id])
    found = table.table("ranges")
    for metric in found.keys():  # noqa: SIM118 - no dict
        fits = {PRESSURE: metric == "pressure", GAS: metric.startswith("gas:")}.get(model_id, True)
        name = metric.removesuffix(WILDCARD)
        if not fits or (name and not name_is_good(name, limits.METRIC_BYTES_MAX)):
            expected = f"{of_metric}, the metric of this model" if of_metric else "a metric"
            raise found.mistake((metric,), f"`{metric[:80]}`", expected)
        bounds = found.value(metric)
        is_pair = isinstance(bounds, list) and len(bounds) == 2 and all(map(is_bound, bounds))
        if not is_pair or bounds[0] > bounds[1]:
            found.refuse(metric, "lowest and highest good value, such as [0, 5000]")
        ranges[metric] = Range(float(bounds[0]), float(bounds[1]))
    return ranges
