"""A headless Chromium, asked through its DevTools protocol; it reaches this machine only.

The protocol runs over a pair of pipes: JSON, each message ended by a zero byte. The browser reads
descriptor 3 and writes descriptor 4.
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.tools import require_tool
from support.waiting import until

ANSWER_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-sync", "--disable-domain-reliability", "--no-pings", "--password-store=basic",
    "--remote-debugging-pipe", "--hide-scrollbars",
    # Nobody looks at the page, which is no reason to let it sleep.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    # No name is ever looked up, so nothing can leave this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip

# Puts the pipes where the browser looks for them, which subprocess alone cannot do.
LAUNCH = "import os, sys; os.dup2({0}, 3); os.dup2({1}, 4); os.execv(sys.argv[1], sys.argv[1:])"

# What a person can read, in all shadow trees.
TEXT = """
(() => {
  const read = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.nodeName)) return "";
    const tree = node.shadowRoot || node;
    return Array.from(tree.childNodes, read).join(" ");
  };
  return read(document.body).replace(/\\s+/g, " ");
})()
"""


class Browser:
    """One browser with one page; what the page did is recorded in ``events``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = require_tool("chromium")
        self._numbers = itertools.count(1)
        self._received = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        (to_read, self._to) = _pipe()
        (self._from, to_write) = _pipe()
        profile = self._folder / "profile"
        with (self._folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-c", LAUNCH.format(to_read, to_write), self._path, *OPTIONS,
                    f"--user-data-dir={profile}", "about:blank",
                ],
                # Also its own folder for whatever it keeps outside of the profile.
                env={**os.environ, "HOME": str(self._folder)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(to_read, to_write), start_new_session=True,
            )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        try:
            self._open_page()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        if kind is not None:
            log = self._folder / "chromium.log"
            print("--- what the browser told ---")
            print(log.read_bytes()[-4000:].decode("utf-8", "replace"))

    def _end(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close", page=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GONE_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(GONE_WITHIN_S)
        os.close(self._to)
        os.close(self._from)

    def _open_page(self) -> None:
        target = self.call("Target.createTarget", page=False, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", page=False, targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.call(f"{domain}.enable")

    # --- the protocol

    def call(self, method: str, *, page: bool = True, **parameters: Any) -> Any:
        """Return the result of a command; an error fails the test."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if page:
            message["sessionId"] = self._session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._to, content) :]
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            answer = self._next_message(deadline)
            assert answer is not None, f"{method}: no answer"
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next_message(self, deadline: float) -> dict[str, Any] | None:
        """Return the next message and keep it if it is an event; None after the deadline."""
        while b"\0" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has ended"
            self._received += chunk
        content, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(content)
        if "method" in message:
            self.events.append(message)
        return message

    # --- the page

    def show(self, width: int, height: int, *, scheme: str = "light", mobile: bool = False) -> None:
        """Look through a window of this size, with this preference of colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def open(self, url: str) -> None:
        """Go to an address and wait until the page and what it names have loaded."""
        seen = len(self.events)
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), answer
        self.wait_event("Page.loadEventFired", since=seen)

    def wait_event(self, method: str, since: int = 0) -> None:
        """Wait for an event; those before the place ``since`` in ``events`` do not count."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while not any(event["method"] == method for event in self.events[since:]):
            assert self._next_message(deadline) is not None, f"no {method}"

    def wait_complaint(self, words: str) -> None:
        """Wait until the browser finds something wrong and says so with these words."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while not any(words in complaint for complaint in self.complaints()):
            assert self._next_message(deadline) is not None, f"no complaint about {words}"

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_true(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        try:
            until(
                lambda: self.run(f"Boolean({condition})"), within_s=ANSWER_WITHIN_S, what=condition
            )
        except AssertionError:
            print(f"--- what the page shows ---\n{self.text()[:2000]}\n{self.complaints()}")
            raise

    def text(self) -> str:
        """Return what can be read on the page, in all its shadow trees."""
        return str(self.run(TEXT))

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    # --- what it did

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for, in order."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return what the browser found wrong: policies broken, exceptions, failed loads."""
        found: list[str] = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(json.dumps(params["entry"]))
            elif event["method"] == "Audits.issueAdded" and "ContentSecurityPolicy" in str(
                params["issue"]["code"]
            ):
                found.append(json.dumps(params["issue"]))
        return found


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are above those that the browser wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
