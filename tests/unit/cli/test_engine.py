"""How commands reach a server: which one, with which key, trusting which certificate."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ocean_core.cli.engine import opened
from ocean_core.cli.options import ConnectionOptions
from ocean_core.model.errors import CommandError, NotRunningError, UnauthenticatedError
from ocean_core.obs.clock import SystemClock
from ocean_core.runtime.lock import InstanceLock, RunInfo
from ocean_core.runtime.tls import TlsFiles, server_context
from support.listening import make_certificate


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"authorization": self.headers.get("Authorization")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        return


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        return


@contextmanager
def echoing(files: TlsFiles | None = None) -> Iterator[str]:
    """Serve what Authorization was sent; yields the address."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        if files is not None:
            server.socket = server_context(files).wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        scheme = "http" if files is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join(10)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_certificate(tmp_path, "127.0.0.1", now_us=SystemClock().now_us())


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCEAN_KEY", raising=False)


def sent(**options: Any) -> str | None:
    """Return the Authorization header that a request with these options carried."""
    with opened(ConnectionOptions(**options), may_start=False) as engine:
        authorization: str | None = engine.request("GET", "/")["authorization"]
    return authorization


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[InstanceLock]:
    """A server seems to run on the directory of the test."""
    lock = InstanceLock(tmp_path)
    lock.acquire()
    yield lock
    lock.release(clean=True)


def publish(lock: InstanceLock, url: str, cert: str = "") -> None:
    lock.publish(RunInfo(os.getpid(), url, "2.0.0", "now", "", cert=cert))


def key_file(folder: Path, text: str = "ocean_abc\n", mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:8030", "http://", "http://x:99999", "http://x:0", "https://[::1"]
)
def test_an_address_of_another_form_is_refused_with_the_right_one(url: str) -> None:
    with pytest.raises(CommandError) as caught:
        sent(url=url)
    assert "https://gateway:8443" in caught.value.hint


def test_the_key_comes_from_the_file_then_the_environment_then_the_data_directory(
    tmp_path: Path, lock: InstanceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with echoing() as url:
        publish(lock, url)
        here = str(tmp_path)
        assert sent(data_dir=here) is None
        (tmp_path / "local.key").write_text("owner_x\n", encoding="ascii")
        (tmp_path / "local.key").chmod(0o600)
        assert sent(data_dir=here) == "Bearer owner_x"
        # The owner's key is not for servers that were named by hand.
        assert sent(url=url, data_dir=here) is None
        monkeypatch.setenv("OCEAN_KEY", " ocean_env ")
        assert sent(data_dir=here) == "Bearer ocean_env"
        assert sent(url=url, key_file=key_file(tmp_path)) == "Bearer ocean_abc"


@pytest.mark.parametrize("text", ["", "  \n", "two words", "line\nline", "schlüssel", "a\0b"])
def test_what_is_no_key_is_not_sent(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match="holds no key") as caught:
        sent(url="http://127.0.0.1:9", key_file=key_file(tmp_path, text))
    assert not text.strip() or text.strip() not in caught.value.detail
    with pytest.raises(CommandError, match="No such file") as caught:
        sent(url="http://127.0.0.1:9", key_file=tmp_path / "none")
    assert "ocean keys create" in caught.value.hint


def test_careless_use_of_keys_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    def choose(url: str, file: Path) -> None:
        with opened(ConnectionOptions(url=url, key_file=file)):
            pass

    choose("http://127.0.0.1:9", key_file(tmp_path))
    assert capsys.readouterr().err == ""
    loose = key_file(tmp_path, mode=0o644)
    choose("https://192.0.2.1", loose)
    assert "other users may read it" in capsys.readouterr().err
    choose("http://192.0.2.1", key_file(tmp_path))
    assert "without https" in capsys.readouterr().err


def test_https_trusts_what_it_is_told_to(files: TlsFiles, tmp_path: Path) -> None:
    with echoing(files) as url:
        with pytest.raises(CommandError, match="cannot be trusted") as caught:
            sent(url=url)
        assert "--cacert" in caught.value.hint
        assert sent(url=url, cacert=files.cert) is None
        assert sent(url=url, data_dir=str(tmp_path)) is None
        stranger = make_certificate(tmp_path / "other", now_us=SystemClock().now_us())
        with pytest.raises(CommandError, match="cannot be trusted"):
            sent(url=url, cacert=stranger.cert)
    with pytest.raises(CommandError, match="none"):
        sent(url=url, cacert=tmp_path / "none")


def test_the_own_server_is_known_by_its_certificate_not_by_its_names(
    tmp_path: Path, lock: InstanceLock
) -> None:
    files = make_certificate(tmp_path, "gateway.example", now_us=SystemClock().now_us())
    with echoing(files) as url:
        publish(lock, url, str(files.cert))
        assert sent(data_dir=str(tmp_path)) is None
        # Another server at the same address is not it.
        other = make_certificate(tmp_path / "other", now_us=SystemClock().now_us())
        publish(lock, url, str(other.cert))
        with pytest.raises(CommandError, match="cannot be trusted"):
            sent(data_dir=str(tmp_path))
        publish(lock, url, str(tmp_path / "none"))
        with pytest.raises(CommandError, match="none: No such file"):
            sent(data_dir=str(tmp_path))


def test_speaking_tls_to_a_plain_port_is_told() -> None:
    with echoing() as url:
        with pytest.raises(CommandError, match="this port speaks plain HTTP") as caught:
            sent(url=url.replace("http:", "https:"))
        assert f"Use {url}, or" in caught.value.hint


@contextmanager
def refusing() -> Iterator[str]:
    """Serve a refusal of every key; yields the address."""
    body = json.dumps({"detail": "no", "code": "OC-6005", "hint": UnauthenticatedError.hint})

    class Refusing(_Echo):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    with _Server(("127.0.0.1", 0), Refusing) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join(10)


def test_a_refused_key_is_told_by_where_it_came_from(
    tmp_path: Path, lock: InstanceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hint(**options: Any) -> str:
        with pytest.raises(UnauthenticatedError) as caught:
            sent(**options)
        return str(caught.value.hint)

    with refusing() as url:
        publish(lock, url)
        assert "--key-file FILE or the variable OCEAN_KEY" in hint(url=url)
        file = key_file(tmp_path)
        assert f"key in {file} is not valid there" in hint(url=url, key_file=file)
        monkeypatch.setenv("OCEAN_KEY", "ocean_env")
        assert "OCEAN_KEY is not valid there" in hint(url=url)
        assert hint(data_dir=str(tmp_path)) == (
            "The key in OCEAN_KEY is not valid here; unset it to use the owner's."
        )


def test_a_question_that_needs_a_server_starts_none(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no server runs") as caught:
        sent(data_dir=str(tmp_path))
    assert "ocean serve" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
