"""Start, kill, freeze and restart the RTSP server of ``rtsp_server.py``."""

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Optional

import pytest

SYSTEM_PYTHON = os.environ.get("EDGECOUNT_SYSTEM_PYTHON", "/usr/bin/python3")
_SCRIPT = Path(__file__).with_name("rtsp_server.py")
_NOT_INSTALLED = 3
_START_S = 20.0


class RtspServer:
    """One gst-rtsp-server; skips the test where it is not installed.

    Args:
        arguments: Options of ``rtsp_server.py``, as strings.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: Optional[subprocess.Popen[str]] = None
        self.port = 0
        self.start()

    def url(self, path: str = "/cam", login: str = "") -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start, on the same port as before."""
        if not Path(SYSTEM_PYTHON).exists():
            pytest.skip(f"{SYSTEM_PYTHON}, which runs the RTSP server, does not exist")
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(_SCRIPT), "--port", str(self.port), *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
        line = self._process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            self._explain()
        self.port = int(line.split()[1])

    def kill(self) -> None:
        """End it as a power cut does for the process: at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Stop it: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _explain(self) -> None:
        assert self._process is not None
        self._process.kill()
        _, errors = self._process.communicate()
        if self._process.returncode == _NOT_INSTALLED:
            pytest.skip(errors.strip() or "gst-rtsp-server is not installed")
        pytest.fail(f"the RTSP server did not start: {errors}")


class SilentListener:
    """A port that takes connections and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    """How long it takes until ``condition()`` holds; fails the test after ``limit``."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit, f"did not happen within {limit} s"
        time.sleep(0.01)
    return time.monotonic() - began
