"""The page that shows the API, in a real browser against a running box."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.appliance import Appliance
from support.browser import Browser
from support.web import INGEST

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("viewer"), pytest.mark.timeout(120)]

PAGE = "/api/ocean/docs/ui"
DOCUMENT = "/api/ocean/openapi.json"
READY = "document.documentElement.dataset.state === 'ready' && document.querySelector('.opblock')"
DESK, PHONE = (1280, 1000), (390, 844)
STATUS = "/api/ocean/status"
KEY = "no-key-of-anybody"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("viewer") / "data") as running:
        running.start()
        yield running
        assert "api.internal_error" not in running.log()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def browser(box: Appliance, chromium: Browser) -> Iterator[Browser]:
    """A browser in front of the page; whatever it did there must have been within bounds."""
    chromium.events.clear()
    chromium.show(*DESK)
    chromium.open(box.url + "/")
    chromium.wait_true(READY)
    yield chromium
    assert chromium.complaints() == []
    assert foreign_requests(chromium, box) == []


def foreign_requests(browser: Browser, box: Appliance) -> list[str]:
    return [
        address
        for address in browser.requested()
        if not address.startswith((f"{box.url}/", "data:image/"))
    ]


def path_of(operation: str) -> str:
    return f"[data-path={json.dumps(operation)}]"


def click(browser: Browser, selector: str) -> None:
    browser.wait_true(f"document.querySelector({json.dumps(selector)})")
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def try_out(browser: Browser, operation: str) -> str:
    """Send the request that the page suggests, and return what it shows of the answer."""
    click(browser, path_of(operation))
    click(browser, ".opblock.is-open .try-out__btn")
    click(browser, ".opblock.is-open .execute")
    browser.wait_true("document.querySelector('.live-responses-table .response')")
    return str(browser.run("document.querySelector('.live-responses-table').innerText"))


def test_browsers_come_to_the_page_and_it_loads_only_its_own_files(
    browser: Browser, box: Appliance
) -> None:
    assert browser.run("location.href") == box.url + PAGE
    assert browser.run("document.title") == "Clisonix Ocean Core"
    asked = [urlsplit(address).path for address in browser.requested() if "data:" not in address]
    # Its picture comes once for as long as the browser runs.
    assert {*asked, f"{PAGE}/icon.svg"} == {
        "/",
        PAGE,
        DOCUMENT,
        *(
            f"{PAGE}/{name}"
            for name in (
                "boot.js", "colours.js", "icon.svg", "ocean.css", "swagger-ui-bundle.js",
                "swagger-ui.css",
            )
        ),
    }  # fmt: skip


def test_every_operation_is_shown(browser: Browser, box: Appliance) -> None:
    document = box.http().get(DOCUMENT).good()
    expected = {
        (method.upper(), path, operation["summary"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert ("POST", INGEST, "Store one item") in expected
    shown = browser.run("""
        Array.from(document.querySelectorAll(".opblock"), (block) => [
          block.querySelector(".opblock-summary-method").textContent,
          block.querySelector(".opblock-summary-path").dataset.path,
          block.querySelector(".opblock-summary-description").textContent,
        ])
    """)
    assert {tuple(row) for row in shown} == expected
    assert len(shown) == len(expected)
    # What most people come for is the first thing they see.
    assert [row[1] for row in shown[:2]] == [INGEST, INGEST.replace("ingest", "batch")]


def test_the_page_says_what_this_is_and_how_to_get_in(browser: Browser) -> None:
    told = str(browser.run("document.querySelector('.info .description').innerText"))
    for words in ("no key is needed", "press Authorize and paste a key", "ocean keys create"):
        assert words in " ".join(told.split())


def test_an_operation_shows_its_parameters_examples_and_problems(browser: Browser) -> None:
    click(browser, path_of(INGEST))
    browser.wait_true("document.querySelector('.opblock.is-open .responses-wrapper')")
    text = browser.text()
    assert "Idempotency-Key" in text
    assert '"press-01"' in text
    assert "The disk is full" in text


def test_a_request_can_be_tried(browser: Browser, box: Appliance) -> None:
    shown = try_out(browser, INGEST)
    assert '"buffered": true' in shown
    assert f"{box.url}{INGEST}" in browser.requested()


def test_a_key_is_sent_and_not_kept(browser: Browser, box: Appliance) -> None:
    click(browser, ".btn.authorize")
    browser.wait_true("document.querySelector('.auth-container input')")
    browser.run("document.querySelector('.auth-container input').focus()")
    browser.call("Input.insertText", text=KEY)
    click(browser, ".auth-container .btn.authorize")
    click(browser, ".auth-container .btn-done")
    try_out(browser, STATUS)
    sent = [
        event["params"]["request"]["headers"].get("Authorization")
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
        and urlsplit(event["params"]["request"]["url"]).path == STATUS
    ]
    assert sent == [f"Bearer {KEY}"]
    # The box knows no such key, which the browser reports as a failed load.
    browser.events = [event for event in browser.events if event["method"] != "Log.entryAdded"]
    kept = browser.run(
        "indexedDB.databases().then((found) => JSON.stringify("
        "[{...localStorage}, {...sessionStorage}, document.cookie, found]))"
    )
    assert json.loads(kept) == [{}, {}, "", []]
    assert KEY not in browser.run("location.href")
    browser.open(box.url + PAGE)
    browser.wait_true(READY)
    assert KEY not in browser.run("document.documentElement.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colours_of_the_system(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    browser.show(*PHONE, scheme=scheme, mobile=True)
    browser.open(browser.run("location.href"))
    browser.wait_true(READY)
    click(browser, path_of(INGEST))
    browser.wait_true("document.querySelector('.opblock.is-open .responses-wrapper')")
    assert browser.run("document.documentElement.scrollWidth") <= PHONE[0]
    background = browser.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (background == "rgb(28, 32, 34)") == (scheme == "dark")
    picture = tmp_path / "page.png"
    browser.screenshot(picture)
    assert picture.stat().st_size > 10_000, "an empty page"


def test_a_link_cannot_put_another_description_into_the_page(
    browser: Browser, box: Appliance
) -> None:
    for query in ("url=/health", "configUrl=/health", "url=http://elsewhere.invalid/x"):
        browser.open(f"{box.url}{PAGE}?{query}")
        browser.wait_true(READY)
        assert "Store one item" in browser.text()


# What an attacker would do who got markup into the page.
ATTACKS = {
    "inline script": "const s = document.createElement('script'); s.textContent = 'window.got = 1';"
    "document.head.append(s)",
    "handler": "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"got = 1\" id=x>');"
    "document.getElementById('x').click()",
    "inline style": "document.body.insertAdjacentHTML('beforeend', '<style>b{color:red}</style>')",
    "image": "new Image().src = 'http://127.0.0.1:9/x.png'",
    "request": "fetch('http://127.0.0.1:9/').catch(() => 0)",
    "frame": "document.body.insertAdjacentHTML('beforeend', '<iframe src=\"/health\"></iframe>')",
    "base": "document.head.insertAdjacentHTML('beforeend', '<base href=\"http://127.0.0.1:9/\">')",
    "form": "document.body.insertAdjacentHTML('beforeend', '<form action=/health id=f></form>');"
    "document.getElementById('f').submit()",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_policy_holds_in_the_browser(browser: Browser, box: Appliance, attack: str) -> None:
    assert browser.complaints() == []
    browser.run(f"(() => {{ {ATTACKS[attack]} }})()")
    browser.wait_complaint("Content Security Policy")
    assert browser.run("window.got") is None
    assert browser.run("location.href") == box.url + PAGE
    # These complaints were wanted.
    browser.events = [e for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    browser.events = [e for e in browser.events if ":9/" not in e["params"]["request"]["url"]]


@pytest.mark.parametrize("path", ["/", PAGE, f"{PAGE}/boot.js", f"{PAGE}/..%2fvendored.json"])
def test_every_answer_keeps_browsers_in_bounds(box: Appliance, path: str) -> None:
    headers = dict(box.http().get(path).headers)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none';")


@pytest.mark.parametrize(
    "name",
    ["..%2fvendored.json", "%2e%2e%2fvendored.json", "../vendored.json", "..%5cvendored.json",
     "%2fetc%2fpasswd", "..%252fvendored.json", "index.html", "vendored.json"],
)  # fmt: skip
def test_no_other_file_can_be_had(box: Appliance, name: str) -> None:
    box.http().get(f"{PAGE}/{name}").problem(404, "OC-6001")


def test_the_bundle_comes_compressed_or_not(box: Appliance) -> None:
    path = f"{PAGE}/swagger-ui-bundle.js"
    packed: Any = box.http().request("GET", path, headers={"Accept-Encoding": "gzip"})
    plain: Any = box.http().request("GET", path, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert len(packed.body) * 3 < len(plain.body)


@pytest.mark.parametrize("name", ["x", "openapi.json", "openapi.yaml", "swagger"])
def test_nothing_is_rendered_below_the_document(box: Appliance, name: str) -> None:
    box.http().get(f"{DOCUMENT}/{name}").problem(404, "OC-6001")
