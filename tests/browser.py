"""A real browser, told what to do by DevTools' protocol over a pipe, in real time."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


class Tab:
    """One page."""

    def __init__(self, asks: int, answers: int) -> None:
        self._asks, self._answers = os.fdopen(asks, "wb", 0), os.fdopen(answers, "rb")
        self._numbers = itertools.count(1)
        self._rest = b""
        self.said: list[str] = []
        """Errors that the page or the browser told of."""
        (target,) = [one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Log", "Runtime", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, self._session, **parameters)

    def look(self, width: int, height: int, dark: bool) -> None:
        """A screen of this size, light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, (expression, self.said)
            time.sleep(0.05)

    def press(self, key: str, modifiers: int = 0) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._asks.write(json.dumps(asked).encode() + b"\0")
        while (told := self._next()).get("id") != number:
            self._hear(told)
        assert "result" in told, told
        result: dict[str, Any] = told["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            self._rest += os.read(self._answers.fileno(), 1 << 16)
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _hear(self, told: dict[str, Any]) -> None:
        entry = told.get("params", {}).get("entry", {})
        if told.get("method") == "Runtime.exceptionThrown" or entry.get("level") in ("error", "warning"):
            self.said.append(json.dumps(told["params"]))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    asked, asks = os.pipe()
    answers, answered = os.pipe()
    command = f'exec "$0" "$@" 3<&{asked} 4>&{answered}'
    process = subprocess.Popen(
        ["bash", "-c", command, str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(asked, answered),
        stderr=subprocess.DEVNULL,
    )
    os.close(asked)
    os.close(answered)
    try:
        yield Tab(asks, answers)
    finally:
        process.kill()
        process.wait()
