"""A headless Chromium for tests, spoken to by its own protocol (websocket-client is jupyter's)."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from websocket import create_connection

#: What the browser is called on various systems.
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One tab: goes to pages, runs scripts in them."""

    def __init__(self, address: str):
        self.socket = create_connection(address, timeout=60, suppress_origin=True)
        self.number = 0
        self.call("Page.enable")

    def call(self, method: str, **parameters) -> dict:
        """Call a method of the protocol and wait for its answer."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        return self._wait(lambda message: message.get("id") == self.number)

    def _wait(self, wanted) -> dict:
        while True:
            message = json.loads(self.socket.recv())
            if wanted(message):
                return message

    def resize(self, width: int, height: int = 900) -> None:
        """Show pages as on a screen of so many pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def open(self, page: Path) -> None:
        """Go to a page on disk and wait until it is loaded."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def follow(self, selector: str) -> None:
        """Click the first link that a CSS selector finds, and wait until its page is loaded."""
        self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r}).click()")
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def run(self, script: str):
        """The value of a JavaScript expression in the page; AssertionError where it throws."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)["result"]
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser whose own files lie in `folder`; closed in the end."""
    arguments = [found(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        # the browser says where it listens
        line = next(line for line in process.stderr if "ws://" in line)
        port = line.split("ws://127.0.0.1:")[1].split("/")[0]
        yield Tab(_first_tab(port))
    finally:
        process.terminate()
        process.wait()


def _first_tab(port: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
