"""A service whose pipeline hangs is ended by its manager and comes back with its counts."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from support.service import configuration

pytestmark = pytest.mark.integration
PERIOD_S = 1.5

# The real command, with a stage limit of a second and a counting thread that hangs for ever
# after some frames when HANG_AFTER says so.
HANGING = """
import os, threading
from edgecount.cli.main import main
from edgecount.runtime import core, pipeline

core._STAGE_LIMIT_S = 1.0
after = int(os.environ["HANG_AFTER"])
count = pipeline.Lane.count
seen = []

def hang(lane, tracked):
    seen.append(tracked)
    if after and len(seen) > after:
        threading.Event().wait()
    return count(lane, tracked)

pipeline.Lane.count = hang
main()
"""


class Manager:
    """What systemd does with Type=notify, WatchdogSec and Restart=on-failure."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self.config = config
        self.messages = []
        self.log = folder / "service.log"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))

    def start(self, hang_after: int) -> None:
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": str(int(PERIOD_S * 1e6)),
            "HANG_AFTER": str(hang_after),
        }
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HANGING, "run", "-c", str(self.config)],
                env=environ,
                stdout=log,
                stderr=log,
            )

    def wait_for(self, word: str, seconds: float = 20.0) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                message = self.socket.recv(4096).decode()
            except socket.timeout:
                break
            self.messages.append(message)
            if word in message:
                return message
        pytest.fail(f"no {word}; got {self.messages}\n{self.log.read_text()}")

    def wait_for_silence(self, seconds: float = 20.0) -> None:
        """Return when a watchdog period passes without a beat."""
        end = time.monotonic() + seconds
        last_beat = time.monotonic()
        self.socket.settimeout(0.1)
        while time.monotonic() < end:
            try:
                if "WATCHDOG=1" in self.socket.recv(4096).decode():
                    last_beat = time.monotonic()
            except socket.timeout:
                pass
            if time.monotonic() - last_beat > PERIOD_S:
                return
        pytest.fail(f"the beats go on\n{self.log.read_text()}")

    def events(self, name: str):
        lines = [json.loads(x) for x in self.log.read_text().splitlines() if x.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def get(self, path: str):
        port = self.events("started")[-1]["http"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def crossings(self) -> int:
        return self.get("/api/state")[1]["cameras"]["door"]["lines"]["middle"]["in"]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.socket.close()


@pytest.fixture
def manager(tmp_path, clip, onnx):
    settings = configuration(
        str(clip), onnx, ledger={"path": str(tmp_path / "ledger.db"), "commit_ms": 20}
    )
    settings["cameras"][0]["capture"] = {"loop": True, "realtime": True, "fps": 50}
    config = tmp_path / "edgecount.yaml"
    config.write_text(yaml.safe_dump(settings))
    running = Manager(tmp_path, config)
    yield running
    running.close()


def test_a_hung_pipeline_is_ended_and_comes_back_with_its_counts(manager):
    manager.start(hang_after=150)
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1")
    manager.wait_for_silence()
    (withheld,) = manager.events("watchdog_withheld")
    assert any("stage collect" in reason for reason in withheld["reasons"])
    status, alive = manager.get("/healthz")
    assert (status, alive["alive"]) == (503, False)
    counted = manager.crossings()
    assert counted >= 1

    manager.process.kill()
    manager.process.wait()
    manager.start(hang_after=0)
    manager.wait_for("READY=1")
    assert manager.crossings() >= counted
    for _ in range(4):
        manager.wait_for("WATCHDOG=1", PERIOD_S)
    assert manager.get("/healthz")[0] == 200

    manager.process.terminate()
    manager.wait_for("STOPPING=1")
    assert manager.process.wait(5) == 0


def test_a_healthy_pipeline_is_left_alone(manager):
    manager.start(hang_after=0)
    manager.wait_for("READY=1")
    end = time.monotonic() + 2 * PERIOD_S
    while time.monotonic() < end:
        manager.wait_for("WATCHDOG=1", PERIOD_S)
    assert manager.events("watchdog_withheld") == []
