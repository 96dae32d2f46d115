"""A running ComfyUI with this pack, and what it says about a run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.imaging.save import save_image

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 180.0, 120.0
PREVIEWS = (1, 4)
"""First numbers of binary messages that hold a preview, without and with metadata."""

Prompt = dict[str, dict[str, Any]]


class Server:
    """A ComfyUI with an empty base folder and this pack."""

    def __init__(self, comfy: Path, base: Path) -> None:
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir()
        (base / "custom_nodes" / "faceveil").symlink_to(ROOT)
        save_image(as_image(astronaut()), base / "input" / "portrait.png")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base, self.url = base, f"127.0.0.1:{port}"
        command = [
            sys.executable,
            "main.py",
            "--base-directory",
            str(base),
            "--listen",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += ["--cpu", "--disable-auto-launch", "--disable-api-nodes", "--preview-method", "auto"]
        command += ["--database-url", "sqlite:///:memory:"]
        self._log = (base / "log.txt").open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=comfy,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
        end = time.monotonic() + START_SECONDS
        while not self._is_up():
            assert self._process.poll() is None and time.monotonic() < end, (base / "log.txt").read_text()[-3000:]
            time.sleep(0.5)

    def _is_up(self) -> bool:
        try:
            return urllib.request.urlopen(f"http://{self.url}/system_stats", timeout=3).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def post(self, path: str, body: object) -> dict[str, Any]:
        """The answer as JSON; that of a refused prompt as well."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.url}/{path}", data, {"Content-Type": "application/json"})
        try:
            text = urllib.request.urlopen(request, timeout=30).read()
        except HTTPError as error:
            text = error.read()
        return dict(json.loads(text)) if text else {}

    def run(self, prompt: Prompt, interrupt_after: float | None = None) -> Messages:
        """Run a prompt to its end and return all messages.

        Args:
            interrupt_after: seconds after the first progress at which the user interrupts the run.
        """
        return asyncio.run(self._run(prompt, interrupt_after))

    async def _run(self, prompt: Prompt, interrupt_after: float | None) -> Messages:
        import aiohttp

        messages = Messages()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{self.url}/ws?clientId=test") as ws:
            answer = await asyncio.to_thread(self.post, "prompt", {"prompt": prompt, "client_id": "test"})
            if "prompt_id" not in answer:
                messages.refused = json.dumps(answer)
                return messages
            async with asyncio.timeout(RUN_SECONDS):
                async for message in ws:
                    messages.add(message)
                    if messages.ended:
                        break
                    if interrupt_after is not None and messages.interrupted_at is None and messages.times("progress"):
                        await asyncio.sleep(interrupt_after)
                        messages.interrupted_at = time.monotonic()
                        await asyncio.to_thread(self.post, "interrupt", {})
        return messages


class Messages:
    """What the server said about one run, with times."""

    def __init__(self) -> None:
        self.all: list[tuple[float, str, dict[str, Any]]] = []
        self.previews = 0
        self.refused = ""
        self.interrupted_at: float | None = None

    def add(self, message: Any) -> None:
        if isinstance(message.data, bytes):
            self.previews += int.from_bytes(message.data[:4], "big") in PREVIEWS
            return
        parsed = json.loads(message.data)
        self.all.append((time.monotonic(), parsed["type"], parsed.get("data") or {}))

    @property
    def ended(self) -> bool:
        last = self.all[-1] if self.all else (0.0, "", {})
        return last[1] in ("execution_success", "execution_error", "execution_interrupted")

    def times(self, kind: str, node: str | None = None) -> list[float]:
        return [when for when, name, data in self.all if name == kind and node in (None, data.get("node"))]

    @property
    def error(self) -> str:
        """The sentence in the dialog."""
        return next(
            (data["exception_message"] for _, name, data in self.all if name == "execution_error"), self.refused
        )

    def shown(self, node: str) -> dict[str, Any]:
        """What a node shows."""
        found = [d["output"] for _, name, d in self.all if name == "executed" and d["node"] == node and d["output"]]
        return dict(found[-1]) if found else {}

    def cached(self) -> set[str]:
        return {node for _, name, data in self.all if name == "execution_cached" for node in data["nodes"]}
