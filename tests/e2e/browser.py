"""Headless Chromium, driven over its own DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.connection import Connection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SECONDS = 30.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--window-size=900,1000"),
)


class Session:
    """A connection that speaks the protocol."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; meanwhile note the page's uncaught errors."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=_SECONDS))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result


class Tab(Session):
    """One tab, with cookies of its own."""

    def __init__(self, socket: Connection) -> None:
        super().__init__(socket)
        self.call("Runtime.enable")
        self.call("Page.enable")

    def open(self, url: str) -> None:
        """Go to a URL."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + _SECONDS
        # While a page is being opened there is no body yet.
        while not self.evaluate(f"!!document.body && !!({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text()}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Click an element, when it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{found} && !{found}.hidden")
        self.evaluate(f"{found}.click()")

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.evaluate("document.body.innerText"))

    def picture(self, path: Path) -> None:
        """Save a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


class Browser:
    """A running Chromium."""

    def __init__(self, port: int) -> None:
        self._address = f"127.0.0.1:{port}"
        with urllib.request.urlopen(f"http://{self._address}/json/version") as answer:
            self._url: str = json.load(answer)["webSocketDebuggerUrl"]

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new tab that shares no cookies with the others."""
        with connect(self._url) as socket:
            whole = Session(socket)
            context = whole.call("Target.createBrowserContext")["browserContextId"]
            target = whole.call("Target.createTarget", url="about:blank", browserContextId=context)
            url = f"ws://{self._address}/devtools/page/{target['targetId']}"
            with connect(url, max_size=None) as page:
                yield Tab(page)
            whole.call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a profile of its own, gone afterwards."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        environment = {**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile}
        log = (Path(profile) / "log").open("wb")
        with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
            try:
                yield Browser(_port(Path(profile), process))
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return int((profile / "DevToolsActivePort").read_text().split()[0])
        except (OSError, IndexError):
            assert process.poll() is None, (profile / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
