"""Chromium, driven over its own protocol: real clicks, keys and screens, without a driver to install."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = (390, 844), (1280, 900)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "--mute-audio",
)  # fmt: skip
_KEYS = {"Enter": (13, "\r"), " ": (32, " "), "Tab": (9, ""), "ArrowRight": (39, ""), "ArrowLeft": (37, "")}


class Browser:
    """One tab of a Chromium of its own."""

    def __init__(self, folder: Path, size: tuple[int, int] = DESK) -> None:
        assert CHROMIUM is not None
        self.downloads, self._profile, self._size, self._number = folder / "downloads", folder / "profile", size, 0
        self.downloads.mkdir(parents=True)
        self._loop = asyncio.new_event_loop()
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.errors: list[str] = []
        self._socket: WebSocketClientConnection = self._do(self._connected())
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        width, height = size
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._do(self._closed())
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._loop.close()

    async def _closed(self) -> None:
        self._socket.close()

    def _do(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def _connected(self) -> WebSocketClientConnection:
        from tornado.httpclient import AsyncHTTPClient

        active = self._profile / "DevToolsActivePort"
        while not active.exists() or "\n" not in active.read_text():
            await asyncio.sleep(0.05)
        port = active.read_text().split()[0]
        pages = json.loads((await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")).body)
        page = next(one for one in pages if one["type"] == "page")
        return await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=2**26)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number

        async def answer() -> dict[str, Any]:
            await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
            while True:
                message = json.loads(await self._socket.read_message() or "{}")
                if message.get("method") == "Runtime.exceptionThrown":
                    self.errors.append(str(message["params"]["exceptionDetails"]))
                if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    self.errors.append(str(message["params"]["entry"]))
                if message.get("id") == number:
                    assert "error" not in message, message
                    result: dict[str, Any] = message["result"]
                    return result

        made: dict[str, Any] = self._do(answer())
        return made

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        made = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in made, made["exceptionDetails"]
        return made["result"].get("value")

    def wait(self, condition: str, timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not within {timeout_s} s: {condition}; {self.text()}; {self.errors}"
            time.sleep(0.02)

    def text(self) -> str:
        return str(self.value("document.body.innerText"))

    def click(self, selector: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """Click into an element with the mouse, at a share of its width and height."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        found = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{found}.scrollIntoView({{block: 'center'}})")
        box = self.value(f"(({{x, y, width, height}}) => [x, y, width, height])({found}.getBoundingClientRect())")
        x, y = (box[side] + at[side] * box[side + 2] for side in (0, 1))
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, key: str) -> None:
        code, text = _KEYS.get(key, (ord(key[0].upper()), key))
        for kind in ("keyDown", "keyUp"):
            told = {"text": text} if kind == "keyDown" and text else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **told)

    def type(self, selector: str, text: str) -> None:
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def downloaded(self) -> Path:
        """Return the file that was saved, once it is whole."""
        end = time.monotonic() + 20
        while True:
            found = [path for path in self.downloads.iterdir() if path.suffix == ".json"]
            if found:
                return found[0]
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.05)
