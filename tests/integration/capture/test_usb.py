"""USB cameras through the real OpenCV and V4L2 code, against a camera at the ioctl boundary.

``tests/support/fake_v4l2.c`` is preloaded into a Python of its own, which runs a scenario
and prints what it saw.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.integration

_TESTS = Path(__file__).parents[2]
_DEVICE = "/dev/video42"
_PREAMBLE = """
import json, sys, time
from pathlib import Path
from edgecount.capture import Reader, SlotGroup, State, open_source
from edgecount.errors import SourceError
from support.rtsp import seconds_until

state = Path(sys.argv[1])
seen = {}
changes = []

def reader_of(source, **options):
    reader = Reader(
        "door", open_source("door", source, options), SlotGroup().add(),
        on_change=lambda: changes.append([reader.state.value, reader.error]),
    )
    reader.start()
    seconds_until(lambda: reader.state is State.ONLINE, 20.0)
    return reader

def error_of(source):
    try:
        source.open()
    except SourceError as error:
        return [str(error), error.retry]
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake camera with")
    if not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("linux/videodev2.h is not installed")
    built = tmp_path_factory.mktemp("v4l2") / "fake_v4l2.so"
    source = _TESTS / "support" / "fake_v4l2.c"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"], check=True
    )
    return built


@pytest.fixture
def scenario(library: Path, tmp_path: Path) -> Any:
    """Run a scenario's lines; returns its ``seen``."""
    state = tmp_path / "state"
    state.write_text("on")
    recording = tmp_path / "recording.jpg"
    cv2.imwrite(str(recording), np.full((240, 320, 3), (200, 100, 50), np.uint8))

    def run(lines: str, device: str = _DEVICE) -> Dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", f"{_PREAMBLE}\n{lines}\nprint(json.dumps(seen))", str(state)],
            env={
                **os.environ,
                "PYTHONPATH": f"{_TESTS.parent}:{_TESTS}",
                "LD_PRELOAD": str(library),
                "FAKE_V4L2_DEVICE": device,
                "FAKE_V4L2_STATE": str(state),
                "FAKE_V4L2_JPEG": str(recording),
            },
            capture_output=True,
            text=True,
            timeout=60.0,
        )
        assert done.returncode == 0, done.stderr
        seen: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return seen

    return run


def test_what_the_camera_delivers_by_itself(scenario: Any) -> None:
    seen = scenario("""
source = open_source("door", "usb:42")
source.open()
frames = [source.read() for _ in range(31)]
seen["fps"] = source.fps
seen["shape"] = frames[0].image.shape
seen["seconds"] = frames[-1].info.time - frames[0].info.time
seen["brighter"] = bool(frames[10].image.mean() > frames[5].image.mean())
source.close()
""")
    assert seen["fps"] == 30.0
    assert seen["shape"] == [480, 640, 3]
    assert seen["seconds"] == pytest.approx(1.0, abs=0.15)
    assert seen["brighter"]


def test_options_reach_the_camera(scenario: Any) -> None:
    seen = scenario("""
options = {"fourcc": "MJPG", "width": 320, "height": 240, "fps": 30}
source = open_source("door", "/dev/video42", options)
source.open()
image = source.read().image
seen["shape"] = image.shape
seen["colour"] = [int(c) for c in image[100, 100]]
source.close()
""")
    assert seen["shape"] == [240, 320, 3]
    assert seen["colour"] == pytest.approx([200, 100, 50], abs=6)


def test_unplugged_and_plugged_in_again(scenario: Any) -> None:
    seen = scenario("""
reader = reader_of("usb:42")
state.write_text("gone")
seen["noticed"] = seconds_until(lambda: reader.state is State.OFFLINE, 5.0)
seconds_until(lambda: "no such device" in reader.error, 20.0)
state.write_text("on")
seen["back"] = seconds_until(lambda: reader.state is State.ONLINE, 5.0)
seen["changes"] = list(changes)
seen["reconnects"] = reader.reconnects
seen["stopped"] = reader.stop(1.0)
""")
    assert seen["noticed"] < 1.0
    assert [state for state, _ in seen["changes"]] == ["online", "offline", "online"]
    assert "unplugged" in seen["changes"][1][1]
    assert seen["back"] < 5.0
    assert seen["reconnects"] == 1
    assert seen["stopped"]


def test_silent_and_back(scenario: Any) -> None:
    seen = scenario("""
reader = reader_of("usb:42")
state.write_text("silent")
degraded = (State.STALE, State.OFFLINE)
seen["noticed"] = seconds_until(lambda: reader.state in degraded, 5.0)
seconds_until(lambda: "no more pictures" in reader.error, 20.0)
state.write_text("on")
seen["back"] = seconds_until(lambda: reader.state is State.ONLINE, 5.0)
seen["stopped"] = reader.stop(1.0)
""")
    assert seen["stopped"]


def test_used_by_another_program(scenario: Any, tmp_path: Path) -> None:
    device = Path(f"/dev/shm/edgecount-test-{os.getpid()}")
    device.touch()
    try:
        seen = scenario(
            f"""
first, second = (open_source("door", "usb:{device}") for _ in range(2))
first.open()
seen["error"] = error_of(second)
first.close()
seen["then"] = error_of(second)
""",
            device=str(device),
        )
    finally:
        device.unlink()
    assert "another program" in seen["error"][0]
    assert seen["error"][1]
    assert seen["then"] is None
