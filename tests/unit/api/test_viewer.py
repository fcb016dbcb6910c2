"""The page that shows the API: its files are the right ones, and nothing else is served."""

import asyncio
import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from litestar import Litestar

from ocean_core.api.controllers.viewer import (
    ASSETS,
    PAGE,
    POLICY,
    ViewerController,
    has_version,
    takes_gzip,
)
from ocean_core.api.problems import ErrorHandlers
from ocean_core.model.errors import OceanError
from ocean_core.obs.catalog import METRICS
from ocean_core.obs.clock import ManualClock
from ocean_core.obs.log import EventLog
from ocean_core.obs.metrics import MetricsRegistry
from support.paths import PACKAGE, REPO

STATIC = PACKAGE / "api" / "static"
MANIFEST = json.loads((STATIC / "vendored.json").read_bytes())
BUNDLE = "swagger-ui-bundle.js"


@dataclass
class Seen:
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def app() -> Any:
    handlers = ErrorHandlers(EventLog(ManualClock()), MetricsRegistry(METRICS))
    return Litestar(
        [ViewerController],
        openapi_config=None,
        logging_config=None,
        exception_handlers={
            OceanError: handlers.ocean,
            404: handlers.http,
            Exception: handlers.unexpected,
        },
    )


def ask(app: Any, path: str, **headers: str) -> Seen:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8030),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return Seen(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message["body"] for message in sent[1:]),
    )


def stored(name: str) -> bytes:
    content = (STATIC / ASSETS[name][0]).read_bytes()
    return gzip.decompress(content) if ASSETS[name][0].endswith(".gz") else content


# --- what lies in the package -------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_a_file_of_others_is_the_one_that_was_checked(name: str) -> None:
    assert hashlib.sha256(stored(name)).hexdigest() == MANIFEST["files"][name]


def test_nothing_lies_there_that_is_not_served_or_checked() -> None:
    found = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert found == {path for path, _ in ASSETS.values()} | {"index.html", "vendored.json"}
    of_others = {name for name in ASSETS if ASSETS[name][0].startswith("swagger-ui/")}
    assert of_others == set(MANIFEST["files"])


def test_the_pin_names_version_licence_and_hash() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", MANIFEST["version"])
    assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", MANIFEST["integrity"])
    assert MANIFEST["licence"] == "Apache-2.0"
    assert b"Apache License" in stored("LICENSE")


def test_the_files_can_be_checked_without_a_network() -> None:
    command = [sys.executable, str(REPO / "build" / "vendor.py"), "--check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", ["index.html", "boot.js", "colours.js", "ocean.css", "icon.svg"])
def test_our_own_files_load_nothing_from_elsewhere(name: str) -> None:
    content = (STATIC / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", content.replace("// ", "")))
    # The name of a language, which nobody asks for.
    assert addresses <= {"http://www.w3.org"}
    assert "@import" not in content


def test_the_page_has_no_inline_scripts_or_styles_and_names_only_what_is_served() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page) == []
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    beside = {address.removeprefix("ui/") for address in named if address.startswith("ui/")}
    assert beside == set(ASSETS)
    assert {address for address in named if not address.startswith("ui/")} == {"../openapi.json"}


# --- how it is served ---------------------------------------------------------------------------


def test_the_page(app: Any) -> None:
    seen = ask(app, PAGE)
    assert (seen.status, seen.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert seen.body == (STATIC / "index.html").read_bytes()
    assert seen.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert seen.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ASSETS)
@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "identity"])
def test_a_file_has_type_length_and_policy(app: Any, name: str, accepted: str) -> None:
    seen = ask(app, f"{PAGE}/{name}", accept_encoding=accepted)
    charset = "; charset=utf-8" if ASSETS[name][1].startswith("text/") else ""
    assert (seen.status, seen.headers["content-type"]) == (200, ASSETS[name][1] + charset)
    assert seen.headers["content-length"] == str(len(seen.body))
    assert seen.headers["content-security-policy"] == POLICY
    assert seen.headers["vary"] == "Accept-Encoding"
    packed = seen.headers.get("content-encoding") == "gzip"
    assert packed == (ASSETS[name][0].endswith(".gz") and "gzip" in accepted)
    assert (gzip.decompress(seen.body) if packed else seen.body) == stored(name)


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip", True),
        ("br, GZIP ; q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("br, deflate", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        (";;,,q=", False),
    ],
)
def test_compressed_only_for_those_who_take_it(accepted: str, wanted: bool) -> None:
    assert takes_gzip(accepted) == wanted


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_who_has_this_version_gets_no_second_copy(app: Any, accepted: str) -> None:
    path = f"{PAGE}/{BUNDLE}"
    first = ask(app, path, accept_encoding=accepted)
    tag = first.headers["etag"]
    again = ask(app, path, accept_encoding=accepted, if_none_match=tag)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["content-security-policy"] == POLICY
    changed = ask(app, path, accept_encoding=accepted, if_none_match='"other"')
    assert (changed.status, changed.body) == (200, first.body)


def test_both_forms_have_versions_of_their_own(app: Any) -> None:
    tags = {
        ask(app, f"{PAGE}/{BUNDLE}", accept_encoding=accepted).headers["etag"]
        for accepted in ("gzip", "identity")
    }
    assert len(tags) == 2


@pytest.mark.parametrize(
    ("held", "same"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ("", False), ("a", False)],
)
def test_versions_that_a_client_holds(held: str, same: bool) -> None:
    assert has_version(held, '"a"') == same


@pytest.mark.parametrize(
    "name",
    [
        "vendored.json",
        "index.html",
        "swagger-ui-bundle.js.gz",
        "swagger-ui",
        "..",
        "../vendored.json",
        "swagger-ui/LICENSE",
        # How the front writes the slash of `..%2fvendored.json`.
        "..\x1fvendored.json",
        "..\\vendored.json",
        "..%2fvendored.json",
        "boot.js\x00",
        "BOOT.JS",
        "/etc/passwd",
        "x" * 3000,
    ],
)
def test_no_other_file_can_be_had(app: Any, name: str) -> None:
    seen = ask(app, f"{PAGE}/{name}")
    assert (seen.status, json.loads(seen.body)["code"]) == (404, "OC-6001")


def test_a_slash_too_many_leads_to_the_page(app: Any) -> None:
    seen = ask(app, f"{PAGE}/")
    assert (seen.status, seen.headers["location"]) == (308, "../ui")


def test_browsers_are_led_from_the_root_to_the_page(app: Any) -> None:
    seen = ask(app, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (seen.status, "/" + seen.headers["location"]) == (303, PAGE)
    assert seen.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_programs_are_told_where_the_descriptions_are(app: Any, accept: str) -> None:
    seen = ask(app, "/", accept=accept)
    assert (seen.status, seen.headers["content-type"]) == (200, "application/json")
    assert json.loads(seen.body) == {
        "system": "Clisonix Ocean Core 2.0.0",
        "docs": "/api/ocean/docs",
        "openapi": "/api/ocean/openapi.json",
        "viewer": PAGE,
    }


def test_whoever_comes_may_see_it() -> None:
    app = Litestar([ViewerController], openapi_config=None, logging_config=None)
    access = {
        handler.opt["access"]
        for route in app.routes
        for handler, _ in getattr(route, "route_handler_map", {}).values()
        if handler.handler_name != "options_handler"
    }
    assert access == {"public"}
