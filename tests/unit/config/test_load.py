"""Settings: precedence, provenance, and errors that say what would be right."""

from pathlib import Path

import pytest

from ocean_core.config import load_settings
from ocean_core.config.load import strange_variables
from ocean_core.config.settings import all_settings
from ocean_core.model.errors import ConfigError, UnknownSettingError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "ocean.toml", '[server]\nport = 9000\n\n[log]\nlevel = "debug"\n')
    loaded = load_settings(
        config_file=file,
        environment={"OCEAN_SERVER__PORT": "9001", "OCEAN_JOURNAL__COMMIT_DELAY_MS": "5"},
        flags={"server.host": "::1"},
    )
    assert loaded.settings.server.port == 9001
    assert loaded.settings.log.level == "debug"
    assert loaded.settings.journal.commit_delay_ms == 5
    assert loaded.settings.server.host == "::1"
    assert loaded.origin["server.port"] == "environment variable OCEAN_SERVER__PORT"
    assert loaded.origin["log.level"] == f"{file}, line 5"
    assert loaded.origin["server.host"] == "command line"
    assert loaded.origin["data.dir"] == "default"


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    file = write(tmp_path / "ocean.toml", "[server]\nport = 9000\n")
    assert load_settings(environment={"OCEAN_CONFIG": str(file)}).settings.server.port == 9000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\n\nprot = 1\n", ("line 3", "`server.prot`", "`server.port`")),
        ("[sever]\nport = 1\n", ("line 2", "`sever.port`", "`server.port`")),
        ("port = 1\n", ("line 1", "`port`")),
        ("[server]\nport = 70000\n", ("line 2", "`server.port` is 70000", "0 to 65535")),
        ('[server]\nport = "80"\n', ("line 2", "whole number")),
        ('[journal]\ndurability = "maybe"\n', ("line 2", '"fsync" or "os"')),
        ("[server\n", ("not valid TOML",)),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_remedy(
    tmp_path: Path, text: str, told: tuple[str, ...]
) -> None:
    file = write(tmp_path / "ocean.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_settings(config_file=file, environment={})
    assert str(file) in caught.value.detail
    for part in told:
        assert part in caught.value.detail


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(config_file=tmp_path / "none.toml", environment={})


def test_an_unknown_variable_names_the_nearest_setting() -> None:
    with pytest.raises(UnknownSettingError, match=r"OCEAN_SERVER__PROT.*`server\.port`"):
        load_settings(environment={"OCEAN_SERVER__PROT": "1"})


def test_a_single_underscore_is_not_silently_ignored() -> None:
    with pytest.raises(UnknownSettingError, match="did you mean OCEAN_SERVER__PORT"):
        load_settings(environment={"OCEAN_SERVER_PORT": "1"})


def test_variables_that_are_no_settings_are_left_alone() -> None:
    load_settings(environment={"OCEAN_REQUIRE_TOOLS": "1", "OCEAN_FAULT": "", "HOME": "/"})


def test_every_setting_has_a_description_and_a_variable() -> None:
    for info in all_settings():
        assert info.description.endswith("."), info.name
        assert info.variable == f"OCEAN_{info.name.upper().replace('.', '__')}"


def test_the_key_for_commands_is_no_setting() -> None:
    assert load_settings(environment={"OCEAN_KEY": "ocean_x"}).settings.access.trust_loopback


def test_secrets_are_no_settings_and_not_strange() -> None:
    secrets = {
        "OCEAN_NANOGRIDATA_SECRET_10": "aa",
        "OCEAN_NANOGRIDATA_SECRET_fF_FILE": "/x",
        "NANOGRIDATA_ESP32_SECRET": "aa",
    }
    load_settings(environment=secrets)
    assert strange_variables(secrets) == []
    assert len(strange_variables({"OCEAN_NANOGRIDATA_SECRET_0X10": "aa"})) == 1
    with pytest.raises(UnknownSettingError, match="OCEAN_NANOGRIDATA__SECRET_FILES"):
        load_settings(environment={"OCEAN_NANOGRIDATA_SECRET_FILES": "0x10=/x"})
