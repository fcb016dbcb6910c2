"""`ocean keys`, `sensors`, `users`, `audit`, `ledger` as their user meets them."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocean_core import get_data_engine
from ocean_core.model.errors import ForbiddenError
from support.appliance import Appliance, run_ocean
from support.web import INGEST

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def ocean(data_dir: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    ended = run_ocean(*arguments, "--data-dir", str(data_dir))
    assert ended.returncode == code, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stdout, ended.stderr


def ocean_json(data_dir: Path, *arguments: str) -> Any:
    return json.loads(ocean(data_dir, *arguments, "--json")[0])


def test_a_key_is_made_used_listed_and_revoked(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data", OCEAN_ACCESS__TRUST_LOOPBACK="false") as box:
        box.start()
        out, err = ocean(
            box.data_dir, "keys", "create", "--name", "press", "--scope", "ingest",
            "--sensors", "press-*", "--expires", "90d",
        )  # fmt: skip
        assert err == "", "a server runs"
        secrets = re.findall(r"^ocean_\S+$", out, re.MULTILINE)
        assert len(secrets) == 1
        line = out.strip().splitlines()[-1].strip()
        assert line.startswith("curl ")
        assert box.url in line
        if shutil.which("curl"):
            sent = subprocess.run(
                [*shlex.split(line), "--silent", "--show-error"],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert json.loads(sent.stdout)["buffered"] is True, (line, sent)
        (key,) = ocean_json(box.data_dir, "keys", "list")
        assert (key["name"], key["status"]) == ("press", "active")
        assert secrets[0] not in ocean(box.data_dir, "keys", "list")[0]
        ocean(box.data_dir, "keys", "revoke", "press")
        headers = {"Authorization": f"Bearer {secrets[0]}"}
        reading = {"sensor_id": "press-1", "value": 1}
        refused = box.http().post(INGEST, reading, headers=headers)
        assert refused.status == 401
        assert [entry["act"] for entry in ocean_json(box.data_dir, "audit")] == [
            "keys.revoke",
            "keys.create",
        ]
        assert box.stop() == 0


def test_a_key_made_before_the_first_start_works_after_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    out, err = ocean(data_dir, "keys", "create", "--name", "d", "--scope", "read")
    assert f"no server runs on {data_dir}; started one for this command" in err
    key = re.findall(r"^ocean_\S+$", out, re.MULTILINE)[0]
    assert "http://127.0.0.1:8030/" in out, "where the server will be, not where it was just now"
    with Appliance(data_dir, OCEAN_ACCESS__TRUST_LOOPBACK="false") as box:
        box.start()
        with get_data_engine(box.url, key=key) as reader:
            assert reader.sensors() == []
            with pytest.raises(ForbiddenError):
                reader.list_users()
        assert box.stop() == 0


def test_sensors_are_described_renamed_and_forgotten(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        for value in (1.5, 2.5):
            box.http().post(INGEST, {"sensor_id": "press-01", "value": value}).good()
        ocean(
            box.data_dir, "sensors", "set", "press-01", "--name", "Press", "--unit", "bar",
            "--tag", "hall=1", "--tag", "line=2",
        )  # fmt: skip
        ocean(box.data_dir, "sensors", "set", "press-01", "--tag", "line=")
        record = ocean_json(box.data_dir, "sensors", "show", "press-01")
        assert (record["unit"], record["tags"], record["count"]) == ("bar", {"hall": "1"}, 2)
        out, _ = ocean(box.data_dir, "sensors", "list")
        assert "press-01" in out
        ocean(box.data_dir, "sensors", "rename", "press-01", "press-a")
        (sensor,) = ocean_json(box.data_dir, "sensors", "list", "--prefix", "press")
        assert sensor["sensor_id"] == "press-a"
        _, err = ocean(box.data_dir, "sensors", "forget", "press-a", code=1)
        assert "2 readings" in err
        assert "--yes" in err
        out, _ = ocean(box.data_dir, "sensors", "forget", "press-a", "--yes")
        assert "2 readings and events" in out
        assert "press-a" not in ocean(box.data_dir, "sensors", "list")[0]
        ledger = ocean_json(box.data_dir, "ledger")
        (loss,) = ledger["sensors"]
        assert ledger["totals"]["forgotten"] == 2
        assert (loss["class"], loss["count"]) == ("forgotten", 2)
        assert box.stop() == 0


def test_users_without_a_running_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    password = tmp_path / "password"
    password.write_text("correct horse\n", encoding="utf-8")
    made = json.loads(
        ocean(
            data_dir, "users", "create", "ada", "ada@example.org",
            "--password-file", str(password), "--json",
        )[0]
    )  # fmt: skip
    _, err = ocean(data_dir, "users", "create", "Ada", "b@example.org", code=1)
    assert "OC-8002" in err
    shown = ocean_json(data_dir, "users", "show", "ada")
    assert (shown["id"], shown["credits"], shown["usage"]) == (made["id"], 0, 0)
    ocean(data_dir, "users", "disable", made["id"])
    (listed,) = ocean_json(data_dir, "users", "list")
    assert listed["status"] == "disabled"
    out, _ = ocean(data_dir, "users", "list", "--status", "active")
    assert "no users" in out
    assert not (data_dir / "run.json").exists(), "each stopped what it started"


def test_names_of_users_work_wherever_ids_do(tmp_path: Path) -> None:
    with Appliance(tmp_path / "data") as box:
        box.start()
        here = box.data_dir
        password = tmp_path / "password"
        password.write_text("correct horse\n", encoding="utf-8")
        ocean(here, "users", "create", "ada", "ada@example.org")
        _, err = ocean(here, "users", "passwd", "ada", code=2)
        assert "no terminal to ask at; use --password-file" in err
        assert "Warning" not in err
        ocean(here, "users", "passwd", "ada", "--password-file", str(password))
        out, _ = ocean(here, "users", "credits", "ADA", "1000", "--note", "January")
        assert out == "ada has 1,000 credits now\n"
        ocean(here, "users", "credits", "ada", "-300")
        entries = ocean_json(here, "users", "ledger", "ada")
        assert [entry["amount"] for entry in entries] == [-300, 1000]
        ocean(here, "keys", "create", "--name", "p", "--scope", "ingest", "--user", "ada")
        _, err = ocean(here, "keys", "create", "--name", "p", "--scope", "read", code=1)
        assert "ocean keys revoke p" in err
        with get_data_engine(box.url) as engine:
            engine.create_session(username="ada", password="correct horse")
        out, _ = ocean(here, "users", "disable", "ada")
        assert "1 session ended" in out
        assert "1 key suspended until `ocean users enable ada`: p" in out
        out, _ = ocean(here, "users", "enable", "ada")
        assert out == "ada is active again; what works again, too: 1 key (p)\n"
        out, _ = ocean(here, "status")
        assert f"  listens    {box.url}\n" in out
        _, err = ocean(here, "sensors", "set", "zz9", "--unit", "bar")
        assert err == "ocean: zz9 has sent nothing yet; check the id\n"
        wrong = run_ocean("status", "--url", box.url.replace("http:", "https:"))
        assert "this port speaks plain HTTP" in wrong.stderr
        assert box.stop() == 0


def test_a_question_about_a_directory_that_is_not_there_makes_none(tmp_path: Path) -> None:
    _, err = ocean(tmp_path / "typo", "sensors", "list", code=1)
    assert "does not exist" in err
    assert not (tmp_path / "typo").exists()


def test_the_settings_of_a_file_hold_for_the_server_of_a_command(tmp_path: Path) -> None:
    config = tmp_path / "ocean.toml"
    config.write_text(
        '[network]\nhost = "0.0.0.0"\nallow_plain = true\n[billing]\ninitial_credits = 7\n',
        encoding="utf-8",
    )
    out, _ = ocean(
        tmp_path / "data", "users", "create", "ada", "a@example.org", "--config", str(config)
    )
    user_id = re.findall(r"^id +(\S+)$", out, re.MULTILINE)[0]
    shown = ocean_json(tmp_path / "data", "users", "show", user_id)
    assert shown["credits"] == 7


def test_wrong_settings_are_78(tmp_path: Path) -> None:
    config = tmp_path / "ocean.toml"
    config.write_text("[server]\nprot = 1\n", encoding="utf-8")
    _, err = ocean(tmp_path / "data", "keys", "list", "--config", str(config), code=78)
    assert "OC-1002" in err
