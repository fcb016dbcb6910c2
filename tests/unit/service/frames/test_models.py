"""The models file: what it says is done, and what is wrong in it is told by line."""

import re
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ocean_core.cli.main import main
from ocean_core.config.settings import NanogridataSettings
from ocean_core.config.toml_lines import line_numbers, line_of
from ocean_core.model import limits
from ocean_core.model.errors import ModelsFileError
from ocean_core.pipeline.routing import Range, route
from ocean_core.protocol.nanogridata.decoder import Decoded, RecentFrames, decode
from ocean_core.protocol.nanogridata.encode import encode
from ocean_core.protocol.nanogridata.frame import (
    CustomModel,
    FrameRefusedError,
    Header,
    Measurement,
    Options,
    Outcome,
)
from ocean_core.service.frames.models import Models
from ocean_core.service.frames.models_file import FILE_NAME, load_models, read_models
from support.nanogrid import KEYS, NOW, SECRET
from support.paths import REPO

TIME = 1_768_649_992
HEADER = Header(1, 0x50, 1, 1, 20, TIME, 0)
DOCUMENT = (REPO / "docs" / "nanogridata-models.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


def models(text: str, **settings: Any) -> Models:
    return Models(NanogridataSettings(**settings), read_models(text))


def custom(text: str, model_id: int = 0x50) -> CustomModel:
    found = models(text).custom(model_id)
    assert found is not None
    return found


def refusal(text: str) -> str:
    with pytest.raises(ModelsFileError) as caught:
        read_models(text, "f.toml")
    return caught.value.detail


# --- policies -----------------------------------------------------------------------------------


def test_without_a_file_the_settings_hold_for_all() -> None:
    plain = Models(NanogridataSettings(min_level=1, crc_variants=("split", "ccitt")))
    for model_id in (0x10, 0x40, 0x77):
        assert plain.options(model_id) == Options(min_level=1, crc_variants=("split", "ccitt"))
        assert plain.custom(model_id) is None
    assert [plain.is_known(i) for i in (0x10, 0x20, 0x30, 0x40, 0xFF, 0x50)] == [True] * 5 + [False]
    assert plain.name(0x10) == "0x10 pressure_v1"
    assert plain.name(0x50) == "0x50 generic"
    assert plain.profile(0x10).range_of("pressure") == Range(0, 200_000)
    assert plain.profile(0x20).range_of("gas:CO2") == Range(0, 10_000)
    assert plain.profile(0x30).range_of("pressure") is None
    assert (plain.level_min, plain.age_s_max, plain.future_s_max) == (1, 3600, 60)


def test_the_defaults_are_those_of_the_wire_format() -> None:
    assert Models(NanogridataSettings()).options(0x10) == Options()


def test_a_file_changes_one_model_alone() -> None:
    found = models(
        '[model.0x10]\nmin_level = 2\nmax_age_s = 86400\ncrc_variants = ["modbus"]\n'
        "plaintext_high = true\nhigh_mac_size = 16\nmax_payload = 512\nfuture_tolerance_s = 5\n"
        '[model.0xAb]\nlabel = "mine"\n',
        min_level=1,
        unknown_model="reject",
    )
    assert found.options(0x10) == Options(
        min_level=2, max_age_s=86400, crc_variants=("modbus",), plaintext_high=True,
        high_mac_size=16, max_payload=512, future_tolerance_s=5, unknown_model="reject",
    )  # fmt: skip
    assert found.options(0x20) == Options(min_level=1, unknown_model="reject")
    assert found.is_known(0xAB)
    assert found.name(0xAB) == "0xab mine"
    assert (found.level_min, found.age_s_max) == (1, 86400)


def test_models_that_are_not_let_in_lower_no_level() -> None:
    text = "".join(f"[model.0x{i:02x}]\nmin_level = 1\n" for i in (0x10, 0x20, 0x30, 0x40, 0xFF))
    assert models(text).level_min == 0
    assert models(text, unknown_model="reject").level_min == 1


def test_ranges_of_built_in_models() -> None:
    found = models('[model.0x20]\nranges = {"gas:CO2" = [0, 5000], "gas:*" = [1, inf]}')
    assert found.profile(0x20).range_of("gas:CO2") == Range(0, 5000)
    assert found.profile(0x20).range_of("gas:O3") == Range(1, float("inf"))


# --- models of one's own ------------------------------------------------------------------------


def test_the_binary_example_of_the_documentation() -> None:
    found = models(EXAMPLES[0])
    model = found.custom(0x50)
    assert model is not None
    payload = b"\x03g-1" + struct.pack(">IhH", TIME - 5, 2151, 403)
    decoded = model.decode_binary(payload)
    assert decoded == {"device_id": "g-1", "timestamp": TIME - 5, "air": 21.51, "soil": 40.3}
    assert model.measure(decoded, HEADER) == [
        Measurement("temperature", TIME - 5, 21.51, "°C"),
        Measurement("moisture", TIME - 5, 40.3, "%"),
    ]
    assert found.profile(0x50).range_of("temperature") == Range(-40, 85)
    absent = model.decode_binary(b"\x03g-1" + struct.pack(">IhH", TIME, 0, 65535))
    assert absent is not None
    assert [m.metric for m in model.measure(absent, HEADER)] == ["temperature"]
    # The same names as CBOR have values in their units.
    assert model.measure({"device_id": "g", "air": 21.5, "soil": 7}, HEADER) == [
        Measurement("temperature", TIME, 21.5, "°C"),
        Measurement("moisture", TIME, 7, "%"),
    ]


def test_the_cbor_example_of_the_documentation() -> None:
    found = models(EXAMPLES[0])
    model = found.custom(0x51)
    assert model is not None
    assert model.decode_binary(b"\x00") is None
    decoded = {"serial": 17, "t_ms": 1000 * TIME + 1, "env": {"t": 21.5}}
    assert model.measure(decoded, HEADER) == [Measurement("temperature", TIME + 0.001, 21.5, "°C")]
    assert found.profile(0x51).prefix == "weather-"
    assert found.profile(0x51).device_id == ("serial",)


def test_entries_as_the_documentation_has_them() -> None:
    model = custom(EXAMPLES[1], 0x52)
    entries = [{"ts": TIME, "value": 1}, {"value": 2.5}]
    assert model.measure({"device_id": "d", "timestamp": 7, "entries": entries}, HEADER) == [
        Measurement("level", TIME, 1, "m"),
        Measurement("level", 7, 2.5, "m"),
    ]


@pytest.mark.parametrize(
    ("decoded", "told"),
    [
        ({}, "`device_id`: found nothing"),
        ({"device_id": ""}, '`device_id`: found ""'),
        ({"device_id": True, "entries": []}, "`device_id`: found True"),
        ({"device_id": "d"}, "`entries`: found nothing"),
        ({"device_id": "d", "entries": []}, "`entries`: found a list"),
        ({"device_id": "d", "entries": [1]}, "`entries`: found 1, expected a map"),
        ({"device_id": "d", "entries": [{"ts": "x"}]}, '`ts`: found "x"'),
        ({"device_id": "d", "timestamp": False, "entries": [{}]}, "`timestamp`: found False"),
        ({"device_id": "d", "entries": [{}]}, "`value`: found nothing"),
        ({"device_id": "d", "entries": [{"value": "1"}]}, '`value`: found "1"'),
        ({"device_id": "d", "entries": [{"value": True}]}, "`value`: found True"),
        ({"device_id": "d", "entries": [{"value": float("nan")}]}, "`value`: found nan"),
        ({"device_id": "d", "entries": [{"value": b"\1"}]}, "`value`: found a bytes"),
    ],
)
def test_telemetry_that_does_not_fit_is_refused_by_key(decoded: dict[str, Any], told: str) -> None:
    with pytest.raises(FrameRefusedError) as caught:
        custom(EXAMPLES[1], 0x52).measure(decoded, HEADER)
    assert caught.value.outcome is Outcome.PROFILE
    assert told in caught.value.detail


@pytest.mark.parametrize("value", [None, float("nan"), 9, 9.0])
def test_an_optional_reading_may_be_nothing(value: object) -> None:
    model = custom(
        '[model.0x50]\ndevice_id = ""\nreadings = [{key = "v", absent = 9}, {key = "w", optional = true}]'
    )
    assert model.measure({"v": value}, HEADER) == []
    with pytest.raises(FrameRefusedError):
        model.measure({"v": "9"}, HEADER)
    with pytest.raises(FrameRefusedError):
        model.measure({"w": True}, HEADER)


def test_a_value_that_overflows_when_scaled_is_refused() -> None:
    model = custom('[model.0x50]\nreadings = [{key = "v", scale = 1e10}]')
    with pytest.raises(FrameRefusedError, match="finite in its unit"):
        model.measure({"device_id": "d", "v": 1e308}, HEADER)


LAYOUT = """[model.0x50]
device_id = "mac"
fields = [
  {name = "mac", type = "bytes6"},
  {name = "note", type = "text8"},
  {name = "v", type = "f32", metric = "v", scale = 2, offset = 1},
]
"""


@pytest.mark.parametrize(
    ("payload", "offset", "told"),
    [
        (b"", 0, "`mac` (bytes6) takes 6 bytes, but 0 are left"),
        (b"12345", 0, "5 are left"),
        (b"123456", 6, "ends before the length of `note`"),
        (b"123456\x05abc", 6, "said to have 5 bytes, but 3 are left"),
        (b"123456\x02a\xff", 8, "its byte 1 is 0xff"),
        (b"123456\x02\xc0\x80", 7, "is not UTF-8"),
        (b"123456\x00abc", 7, "`v` (f32) takes 4 bytes, but 3 are left"),
        (b"123456\x00abcde", 11, "1 bytes follow the last field `v`"),
    ],
)
def test_binary_payloads_are_read_exactly(payload: bytes, offset: int, told: str) -> None:
    with pytest.raises(FrameRefusedError) as caught:
        custom(LAYOUT).decode_binary(payload)
    assert (caught.value.outcome, caught.value.offset) == (Outcome.PAYLOAD, offset)
    assert told in caught.value.detail


@pytest.mark.parametrize(("level", "start"), [(0, 14), (1, 14), (2, 26)])
def test_whole_frames_of_a_described_model(level: int, start: int) -> None:
    policy = models(LAYOUT)
    payload = b"123456\x00" + struct.pack(">f", 1.5)

    def decoded(plaintext: bytes) -> Decoded:
        frame = encode(0x50, 1, plaintext, level=level, timestamp=NOW, secret=SECRET, iv=bytes(12))
        return decode(frame, NOW, policy, KEYS, RecentFrames())

    found = decoded(payload)
    assert found.content.encoding == "binary"
    assert found.content.measurements == [Measurement("v", NOW, 4.0, "")]
    routed = route(
        found.header, found.content, policy.profile(0x50),
        arrival_us=1_000_000 * NOW, clock_trusted=True,
    )  # fmt: skip
    assert routed.sensor_id == "313233343536"
    with pytest.raises(FrameRefusedError) as caught:
        decoded(payload[:-1])
    assert (caught.value.outcome, caught.value.offset) == (Outcome.PAYLOAD, start + 7)


def test_bytes_and_floats_of_a_layout() -> None:
    decoded = custom(LAYOUT).decode_binary(b"123456\x00" + struct.pack(">f", 1.5))
    assert decoded == {"mac": b"123456", "note": "", "v": 4.0}
    nan = custom(LAYOUT).decode_binary(b"123456\x00" + struct.pack(">f", float("nan")))
    assert nan is not None
    with pytest.raises(FrameRefusedError, match="finite"):
        custom(LAYOUT).measure(nan, HEADER)


# --- mistakes -----------------------------------------------------------------------------------

OWN = '[model.0x50]\nlabel = "x"\n'
FIELDS = OWN + "fields = [\n"
DEVICE = '  {name = "device_id", type = "text8"},\n'
READINGS = OWN + "readings = [\n"

MISTAKES = [
    ("[", "not valid TOML"),
    ("a = " + "[" * 20_000, "not valid TOML"),
    ("x = 1", "f.toml, line 1: x: found `x`, expected one of model"),
    ("model = 5", "line 1: model: found 5, expected a table"),
    ("[models.0x50]", "found `models`, expected one of model; did you mean `model`?"),
    ("[model]\n0x50 = 1", "line 2: model.0x50: found 1, expected a table"),
    ("[model.50]", "line 1: model.50: found `50`, expected the id of a model"),
    ("[model.50]", "50 is 0x32"),
    ('\n[model."x y"]', 'line 2: model."x y": found `x y`'),
    ("[model.0xab]\n[model.0xAB]", "line 2: model.0xAB: found 0xab again, expected each model once"),
    ("[model.0x10]\nmin_level = 4", "line 2: model.0x10.min_level: found 4, expected whole number 0 to 3"),
    ("[model.0x10]\nmin_level = true", "min_level: found true"),
    ('[model.0x10]\nmin_level = "1"', 'found "1", expected whole number 0 to 3'),
    ("[model.0x10]\nhigh_mac_size = 20", "high_mac_size: found 20"),
    ('[model.0x10]\ncrc_variants = ["x"]', "crc_variants: found a list, expected list of text"),
    ("[model.0x10]\ncrc_variants = []", "found a list with nothing in it"),
    ("[model.0x10]\nmax_age = 5", "line 2: model.0x10.max_age: found `max_age`"),
    ("[model.0x10]\nmax_age = 5", "did you mean `max_age_s`?"),
    ('[model.0x10]\nlabel = "x"', "built in as pressure_v1"),
    ("[model.0x20]\nfields = []", "0x20 is built in as gas_v1"),
    ("[model.0x10]\nranges = 5", "ranges: found 5, expected a table"),
    ("[model.0x10]\nranges = {presure = [0, 1]}", "found `presure`, expected pressure"),
    ("[model.0x20.ranges]\nCO2 = [0, 1]", "line 2: model.0x20.ranges.CO2: found `CO2`"),
    ("[model.0x10.ranges]\npressure = [2, 1]", "line 2: model.0x10.ranges.pressure"),
    ("[model.0x10.ranges]\npressure = [1]", "lowest and highest good value"),
    ("[model.0x10.ranges]\npressure = [nan, 1]", "lowest and highest"),
    ('[model.0x10.ranges]\npressure = ["0", 1]', "lowest and highest"),
    ('[model.0x50]\nlabel = "a b"', 'label: found "a b"'),
    ("[model.0x50]\nlabel = 5", "label: found 5, expected text"),
    ("[model.0x50]\nranges = {}", "found `ranges`"),
    ('[model.0x50]\ndevice_id = "x"', "line 1: model.0x50: found `device_id`, expected `fields` or"),
    (OWN + "fields = 5", "fields: found 5, expected a list of 1 to 128 tables"),
    (OWN + "fields = []", "fields: found a list with nothing in it"),
    (OWN + "fields = [5]", "fields[1]: found 5, expected a table"),
    (OWN + "fields = []\nreadings = []", "not both"),
    (FIELDS + DEVICE + '  {name = "a", type = "u9"},\n]', 'line 5: model.0x50.fields[2].type: found "u9", expected one of text8, u8'),
    (FIELDS + DEVICE + '  {name = "a"},\n]', "line 5: model.0x50.fields[2].type: found nothing"),
    (FIELDS + '  {type = "u8"},\n]', "fields[1].name: found nothing"),
    (FIELDS + DEVICE + DEVICE + "]", 'line 5: model.0x50.fields[2].name: found "device_id", expected a name of its own'),
    (FIELDS + '  {name = "a", type = "bytes0"}]', 'found "bytes0"'),
    (FIELDS + '  {name = "a", type = "u8", size = 3}]', "found `size`"),
    (FIELDS + '  {name = "a", type = "u8", unit = "m"}]', "found `unit` without `metric`"),
    (FIELDS + '  {name = "a", type = "text8", metric = "m"}]', "a field of type text8 is no number"),
    (FIELDS + '  {name = "a", type = "u8", scale = 0}]', "scale: found 0, expected a number other than 0"),
    (FIELDS + '  {name = "a", type = "u8", scale = "2"}]', 'scale: found "2"'),
    (FIELDS + '  {name = "a", type = "u8", scale = nan}]', "scale: found nan"),
    (FIELDS + '  {name = "a", type = "u8", metric = "m", min = 2, max = 1}]', "max: found 1, expected no less than min, which is 2"),
    (FIELDS + '  {name = "a", type = "u8", metric = ""}]', "metric: found"),
    (FIELDS + '  {name = "a", type = "u8", metric = "m*"}]', "metric: found"),
    (FIELDS + '  {name = "a", type = "u8", metric = "m", optional = "yes"}]', "true or false"),
    (FIELDS + '  {name = "a", type = "u8"}]', "found no field `device_id`"),
    (FIELDS + '  {name = "device_id", type = "f32"}]', "type f32 as device_id, expected text8, an unsigned number or bytesN"),
    (FIELDS + DEVICE + '  {name = "timestamp", type = "f32"}]', "type f32 as timestamp"),
    (FIELDS + DEVICE + '  {name = "lab_id", type = "u8"}]', "type u8 as lab_id"),
    (FIELDS + DEVICE + ']\ntimestamp = "when"', 'line 6: model.0x50.timestamp: found "when", expected the name of one'),
    (FIELDS + DEVICE + ']\nentries = "e"', "entries are for CBOR"),
    (FIELDS + DEVICE + '  {name = "a", type = "bytes1024"}]', "fields of 1025 bytes together"),
    (FIELDS + DEVICE + '  {name = "a", type = "u8", metric = "m"}, {name = "b", type = "u8", metric = "m"}]', "the metric `m` twice"),
    (READINGS + '  {key = "a"},\n  {key = "b.a"},\n]', "line 5: model.0x50.readings[2].metric: found the metric `a` twice"),
    (READINGS + '  {metric = "a"}]', "key: found nothing"),
    (READINGS + '  {key = "a..b"}]', "keys with one dot between them"),
    (READINGS + '  {key = "a", scael = 2}]', "did you mean `scale`?"),
    (READINGS + '  {key = "a"}]\ntime_unit = "min"', 'time_unit: found "min", expected s, ms or us'),
    (READINGS + '  {key = "a"}]\nentry_time = "t"', "expected `entries` beside it"),
    (READINGS + '  {key = "a"}]\ndevice_prefix = " x"', "device_prefix: found"),
    (READINGS + '  {key = "a", unit = "\\u0007"}]', "unit: found"),
    (READINGS + '  {key = "a", absent = 1979-05-27}]', "absent: found 1979-05-27, expected a number"),
    ("[[model.0x50]]", "model.0x50: found a list, expected a table"),
    (OWN + '[[model.0x50.fields]]\nname = "a"\ntype = "u8"\n[[model.0x50.fields]]\nname = "b"\ntype = "x"', "line 8: model.0x50.fields[2].type"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_every_mistake_is_told(text: str, told: str) -> None:
    detail = refusal(text)
    assert told in detail
    assert detail.startswith("f.toml")


def test_a_file_that_is_too_long_is_refused() -> None:
    assert "bytes" in refusal("#" * (limits.MODELS_FILE_BYTES_MAX + 1))


def test_lines_are_found_whatever_the_form() -> None:
    text = (
        'a = """\n[x]\n"""  # [y]\n"b c".d = {e = [1,\n 2, {f = \'}\'}]}\n[[t]]\nk = 1\n[t.u]\nv=2\n'
        "[[t]]\nk = 1979-05-27 07:32:00\nw = -1.5e3\n"
    )
    tomllib.loads(text)
    lines = line_numbers(text)
    expected: dict[tuple[str | int, ...], int] = {
        ("a",): 1, ("b c", "d", "e", 1): 5, ("b c", "d", "e", 2, "f"): 5, ("t", 0, "k"): 7,
        ("t", 0, "u", "v"): 9, ("t", 1, "k"): 11, ("t", 1, "w"): 12,
    }  # fmt: skip
    assert {place: lines.get(place) for place in expected} == expected
    assert line_of(lines, ("t", 1, "k", "deeper")) == 11
    assert line_of(lines, ("nowhere",)) is None


# --- the file -----------------------------------------------------------------------------------


def test_the_default_file_may_be_missing_a_named_one_not(tmp_path: Path) -> None:
    assert load_models(NanogridataSettings(), tmp_path).models == {}
    (tmp_path / FILE_NAME).write_text("[model.0x50]\n", encoding="utf-8")
    assert set(load_models(NanogridataSettings(), tmp_path).models) == {0x50}
    named = NanogridataSettings(models_file=str(tmp_path / "other.toml"))
    with pytest.raises(ModelsFileError, match=r"other\.toml: there is no such file"):
        load_models(named, tmp_path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\n# \xff")
    with pytest.raises(ModelsFileError, match="line 2: found the byte 0xff, expected UTF-8"):
        load_models(NanogridataSettings(), tmp_path)
    with pytest.raises(ModelsFileError, match="cannot be read"):
        load_models(NanogridataSettings(models_file=str(tmp_path)), tmp_path)


def test_config_check_checks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / FILE_NAME
    for text, code, told in (
        (EXAMPLES[0], 0, f"{file}: 3 models described."),
        ("[model.0x50]\nx = 1\n", 78, f"{file}, line 2: model.0x50.x"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["config", "check", "--data-dir", str(tmp_path)])
        out, err = capsys.readouterr()
        assert ended.value.code == code
        assert told in out + err
