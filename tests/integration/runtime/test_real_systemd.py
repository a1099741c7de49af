"""The shipped unit under a real systemd: watchdog, restart, reload, stop.

A user manager of its own runs in a private mount namespace, since a test machine is rarely
booted with systemd. It cannot change users or build sandboxes, so those settings of the
unit are left out here (``systemd-analyze`` judges them in the unit tests).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from support.service import configuration

from edgecount.runtime.service import plan

pytestmark = pytest.mark.integration
SYSTEMD = Path("/lib/systemd/systemd")
KEPT = ("Type", "NotifyAccess", "ExecReload", "Restart", "Timeout", "KillMode", "Watchdog")

# edgecount whose counting thread hangs after some frames, the first time it is started.
HANG_ONCE = """
import pathlib, sys, threading
from edgecount.cli.main import main
from edgecount.runtime import core, pipeline

core._STAGE_LIMIT_S = 1.0
marker = pathlib.Path({marker!r})
first = not marker.exists()
marker.touch()
count = pipeline.Lane.count
seen = []

def hang(lane, tracked):
    seen.append(tracked)
    if first and len(seen) > 50:
        threading.Event().wait()
    return count(lane, tracked)

pipeline.Lane.count = hang
sys.argv = ["edgecount", "run", "-c", {config!r}]
main()
"""


class Systemd:
    """A systemd user manager with one unit."""

    def __init__(self, folder: Path) -> None:
        self.environ = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder),
            "SYSTEMD_UNIT_PATH": f"{folder / 'units'}:",
        }
        script = (
            "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && "
            f"mkdir -p /run/systemd/system && exec {SYSTEMD} --user --log-target=null"
        )
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], env=self.environ, stderr=subprocess.PIPE
        )
        self.socket = folder / "systemd" / "private"

    def answers(self) -> bool:
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            if self.socket.exists() and self.ask("show", "-p", "Version").returncode == 0:
                return True
            time.sleep(0.1)
        return False

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["systemctl", "--user", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def show(self) -> dict:
        text = self.ask("show", "edgecount.service").stdout
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def wait_until(self, seconds: float = 30.0, **wanted: str) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = self.show()
            if all(state.get(key) == value for key, value in wanted.items()):
                return
            time.sleep(0.1)
        pytest.fail(f"wanted {wanted}, got { {k: state.get(k) for k in wanted} }")

    def close(self) -> None:
        self.ask("kill", "--signal=KILL", "edgecount.service")
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def systemd(clip, onnx):
    if not SYSTEMD.exists() or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs systemd, unshare and root")
    folder = Path(tempfile.mkdtemp(prefix="sd"))  # short: socket paths are limited
    settings = configuration(str(clip), onnx, ledger={"path": str(folder / "ledger.db")})
    settings["cameras"][0]["capture"] = {"loop": True, "realtime": True, "fps": 50}
    config = folder / "edgecount.yaml"
    config.write_text(yaml.safe_dump(settings))
    program = folder / "hang_once.py"
    program.write_text(HANG_ONCE.format(marker=str(folder / "hung"), config=str(config)))
    (folder / "units").mkdir()
    (folder / "units" / "edgecount.service").write_text(unit(program))
    manager = Systemd(folder)
    if not manager.answers():
        manager.process.kill()
        pytest.skip(f"no systemd manager can be run here: {manager.process.stderr.read()}")
    yield manager
    manager.close()
    shutil.rmtree(folder)


def unit(program: Path) -> str:
    """The shipped unit's behaviour, with a short watchdog period and the program under test."""
    shipped = plan(Path("/opt/edgecount/bin/edgecount")).files
    text = shipped[Path("/etc/systemd/system/edgecount.service")]
    kept = [line for line in text.splitlines() if line.startswith(KEPT)]
    assert len(kept) >= 9
    return "\n".join(
        [
            "[Service]",
            *kept,
            f"ExecStart={sys.executable} {program}",
            f"WorkingDirectory={Path(__file__).resolve().parents[3]}",
            f"Environment=PYTHONPATH={Path(__file__).resolve().parents[3]}",
            "WatchdogSec=2",
            "RestartSec=200ms",
            "",
        ]
    )


def test_a_hung_service_is_killed_by_the_watchdog_and_comes_back(systemd):
    started = systemd.ask("start", "edgecount.service")
    assert started.returncode == 0, started.stderr
    assert systemd.show()["StatusText"] == "counting on 1 camera(s)"
    systemd.wait_until(NRestarts="1", ActiveState="active")
    time.sleep(3.0)  # longer than the period: it beats again
    assert systemd.show()["NRestarts"] == "1"

    before = systemd.show()["MainPID"]
    assert systemd.ask("reload", "edgecount.service").returncode == 0
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        assert systemd.show()["SubState"] in ("running", "reload", "reload-notify")
        time.sleep(0.1)
    systemd.wait_until(SubState="running", MainPID=before, NRestarts="1")

    begun = time.monotonic()
    assert systemd.ask("stop", "edgecount.service").returncode == 0
    assert time.monotonic() - begun < 3.0
    state = systemd.show()
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
