"""`ocean tls`, and what `serve` and `config check` say about listeners."""

import json
from pathlib import Path

import pytest

from ocean_core.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, out, err


def test_a_certificate_is_made_shown_and_not_replaced_by_accident(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = ("--data-dir", str(tmp_path / "a b"))
    code, out, err = run(capsys, "tls", "show", *here)
    assert (code, out) == (78, "")
    assert "ocean tls self-signed" in err

    code, out, err = run(capsys, "tls", "self-signed", *here, "--name", "gateway.example")
    assert (code, err) == (0, "")
    cert = tmp_path / "a b" / "tls" / "cert.pem"
    assert f"curl --cacert '{cert}' https://gateway.example:8443/health" in out
    assert "ocean serve --network --data-dir '" in out

    code, out, _ = run(capsys, "tls", "show", *here, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["cert"] == str(cert)
    assert {"localhost", "127.0.0.1", "::1", "gateway.example"} <= set(facts["names"])
    assert facts["problem"] == ""

    code, out, err = run(capsys, "tls", "self-signed", *here)
    assert (code, out) == (1, "")
    assert "--force" in err
    code, out, _ = run(capsys, "tls", "self-signed", *here, "--force", "--json", "--days", "5")
    assert code == 0
    assert json.loads(out)["sha256"] != facts["sha256"]
    assert "in 4 days" in json.loads(out)["problem"]


def test_wrong_names_and_days_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = ("--data-dir", str(tmp_path))
    assert run(capsys, "tls", "self-signed", *here, "--days", "0")[0] == 2
    code, _, err = run(capsys, "tls", "self-signed", *here, "--name", "a:1")
    assert code == 1
    assert "'a:1' is neither" in err


@pytest.mark.parametrize("flags", [("--network",), ("--network-host", "::"), ("--host", "0.0.0.0")])
def test_serving_the_network_without_a_certificate_names_three_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    data_dir = tmp_path / "data"
    code, _, err = run(capsys, "serve", "--port", "0", "--data-dir", str(data_dir), *flags)
    assert code == 78
    assert "OC-1003" in err
    for command in ("ocean tls self-signed", "ocean keys create", "ocean serve --network"):
        assert command in err
    assert not data_dir.exists()


def test_config_check_looks_at_listeners_and_certificate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "ocean.toml"
    network = '[network]\nhost = "0.0.0.0"\n'
    file.write_text(network + f'[data]\ndir = "{tmp_path}"\n', encoding="utf-8")
    assert "OC-1003" in run(capsys, "config", "check", "--config", str(file))[2]
    assert run(capsys, "tls", "self-signed", "--config", str(file))[0] == 0
    assert run(capsys, "config", "check", "--config", str(file))[0] == 0
    (tmp_path / "tls" / "key.pem").write_bytes(b"")
    code, _, err = run(capsys, "config", "check", "--config", str(file))
    assert code == 78
    assert "key.pem: is empty (OC-1004)" in err
