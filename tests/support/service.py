"""The real service in a process of its own, on a clip and a model that are drawn here."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import cv2
import pytest
import yaml
from support.onnx_models import picture_with_spots, spot_model

SIDE = 416


def walkers_clip(path: Path, *, crossings: int = 4, fps: float = 10.0) -> Path:
    """Write a clip in which ``crossings`` spots walk down through the middle, one after the other.

    Each starts at a quarter of the height and ends at three quarters, so each crosses a
    line across the middle once, downwards: "in".
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (SIDE, SIDE))
    assert writer.isOpened()
    for walker in range(crossings):
        x = 80 + 60 * (walker % 4)
        for y in range(104, 312, 8):
            writer.write(picture_with_spots([(x, y)], SIDE, SIDE))
        for _ in range(20):
            writer.write(picture_with_spots([], SIDE, SIDE))
    writer.release()
    return path


def model(folder: Path) -> Path:
    """Write the model that sees those spots."""
    return spot_model(folder / "spots.onnx", "yolox", width=SIDE, height=SIDE)


def configuration(source: str, onnx: Path, **changes: Any) -> Dict[str, Any]:
    """A configuration with one camera ``door`` and one line ``middle``, changed by ``changes``."""
    line = {"name": "middle", "from": [0.0, 0.5], "to": [1.0, 0.5]}
    return {
        "device": "lobby",
        "model": {"path": str(onnx)},
        "cameras": [
            # A drawn picture is as dark and still as a covered one.
            {"name": "door", "source": source, "lines": [line], "watch_picture": False}
        ],
        "places": {"hall": {"in": ["door.middle"]}},
        "http": {"port": 0},
        "ledger": {"enabled": False},
        **changes,
    }


class Service:
    """``edgecount run`` under test; what it logs is read when it has ended."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *arguments: str,
        environ: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.config = folder / "edgecount.yaml"
        self.log = folder / "service.log"
        self.write(settings)
        command = [sys.executable, "-m", "edgecount", "run", "-c", str(self.config), *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environ or {})},
            )

    def write(self, settings: Mapping[str, Any]) -> None:
        """Replace the configuration file."""
        self.config.write_text(yaml.safe_dump(dict(settings)))

    def events(self) -> List[Dict[str, Any]]:
        """What was logged so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> List[Dict[str, Any]]:
        """Every log line of one kind."""
        return [e for e in self.events() if e["event"] == event]

    def wait_for(self, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
        """What ``condition`` returns once it is true; the log is shown where it never is."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, (
                f"timed out; the service said:\n{self.log.read_text()}"
            )
            time.sleep(0.05)

    def port(self) -> int:
        """Port of its HTTP server."""
        started = self.wait_for(lambda: self.logged("started"))
        return int(started[-1]["http"])

    def get(self, path: str) -> Tuple[int, str]:
        """Status and body of a page; waits while a reload moves the server to another port."""
        answer: Tuple[int, str] = self.wait_for(lambda: self._get(path))
        return answer

    def _get(self, path: str) -> Optional[Tuple[int, str]]:
        try:
            url = f"http://127.0.0.1:{self.port()}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, socket.timeout):
            return None  # ``wait_for`` has the patience, and shows the log where it ends

    def state(self) -> Dict[str, Any]:
        """The JSON of ``/api/state``."""
        parsed: Dict[str, Any] = json.loads(self.get("/api/state")[1])
        return parsed

    def camera(self) -> Dict[str, Any]:
        """The state of the camera ``door``."""
        parsed: Dict[str, Any] = self.state()["cameras"]["door"]
        return parsed

    def ended(self, within: float) -> int:
        """Its exit code once it has ended by itself; if it hangs, what its threads do is shown."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(10)
            pytest.fail(
                f"still running after {within} s; the service said:\n{self.log.read_text()}"
            )

    def terminate(self, within: float = 5.0) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
