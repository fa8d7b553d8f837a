"""A headless Chromium, driven over WebDriver (W3C) by Debian's chromedriver; no further library."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Self

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
START_TIME = 60.0


class Browser:
    """One window. `port` is free, `profile` an empty directory."""

    def __init__(self, port: int, profile: str) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}", "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1200,900",
        ]
        options = {"args": [*arguments, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "unhandledPromptBehavior": "accept", "goog:chromeOptions": options}
        self._session = ""
        started = until(lambda: self._start({"capabilities": {"alwaysMatch": wanted}}), START_TIME)
        self._session = f"/session/{started['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(30)

    def go(self, url: str) -> None:
        """Load a page, and wait until it has loaded."""
        self._ask("POST", "/url", {"url": url})

    def type(self, selector: str, text: str) -> None:
        """Into the field that a CSS selector finds, once it is there."""
        self._on(selector, "value", {"text": text})

    def click(self, selector: str) -> None:
        """On what a CSS selector finds, once it can be clicked on."""
        self._on(selector, "click", {})

    def run(self, script: str, *arguments: object) -> Any:
        """The value that the body of a JavaScript function returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, script: str, *arguments: object) -> Any:
        """The first value of the script that is true."""
        return until(lambda: self._quietly(lambda: self.run(script, *arguments)))

    def picture(self) -> str:
        """A PNG of the window, in base64."""
        return str(self._ask("GET", "/screenshot"))

    def _on(self, selector: str, action: str, data: dict[str, object]) -> None:
        def act() -> bool:
            found = self._ask("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
            self._ask("POST", f"/element/{found}/{action}", data)
            return True

        until(lambda: self._quietly(act))

    @staticmethod
    def _quietly(act: Callable[[], Any]) -> Any:
        """What it returns; None where the page is not so far."""
        try:
            return act()
        except urllib.error.HTTPError:
            return None

    def _start(self, wanted: dict[str, Any]) -> Any:
        try:
            return self._ask("POST", "/session", wanted)
        except urllib.error.URLError:
            assert self._driver.poll() is None, "chromedriver has ended"
            return None

    def _ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._address + self._session + path, body, method=method)
        request.full_url = self._address + (self._session + path if self._session else path)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]


def until(probe: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of a probe. Raises: AssertionError where there is none in that time."""
    end = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return found
