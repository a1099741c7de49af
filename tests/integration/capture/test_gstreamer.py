"""GStreamer pipelines, run by an OpenCV that has GStreamer: the system's.

The wheels from PyPI have none, so each scenario runs in the system's Python, which borrows
the packages that it lacks (pydantic, structlog …) from this one. Both must be of the same
version of Python for that.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Dict, Iterator

import cv2
import pytest
from support.rtsp import SYSTEM_PYTHON, RtspServer, SilentListener

pytestmark = pytest.mark.integration

_TESTS = Path(__file__).parents[2]
_PREAMBLE = """
import json, os, sys, time
sys.path[:0] = sys.argv[1:3]
sys.path.append(sys.argv[3])  # after the system's own packages, whose cv2 has GStreamer
from edgecount.capture import Reader, SlotGroup, State, gstreamer, left_behind, open_source
from edgecount.errors import SourceError
from support.rtsp import RtspServer, seconds_until

SOFTWARE = {"kind": "gstreamer", "decoder": "software"}
seen = {}

def leave():
    print(json.dumps(seen), flush=True)
    os._exit(0)  # as the service does: a thread may be left behind in GStreamer

def error_of(source, options):
    try:
        open_source("door", source, options).open()
    except SourceError as error:
        return str(error)
"""


@pytest.fixture(scope="module")
def system_python() -> str:
    """A Python whose cv2 has GStreamer and that can use our packages, or a skip."""
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"there is no {SYSTEM_PYTHON}")
    question = (
        "import sys, cv2; print(*sys.version_info[:2]); "
        "print(cv2.CAP_GSTREAMER in cv2.videoio_registry.getBackends())"
    )
    asked = subprocess.run([SYSTEM_PYTHON, "-c", question], capture_output=True, text=True)
    if asked.returncode != 0 or "True" not in asked.stdout:
        pytest.skip(f"{SYSTEM_PYTHON} has no OpenCV with GStreamer (python3-opencv)")
    version = "{} {}".format(*sys.version_info[:2])
    if not asked.stdout.startswith(version):
        pytest.skip(f"{SYSTEM_PYTHON} is of another version than {version.replace(' ', '.')}")
    return SYSTEM_PYTHON


@pytest.fixture
def scenario(system_python: str) -> Any:
    """Run a scenario's lines; returns its ``seen``, with what it wrote to stderr."""

    def run(lines: str) -> Dict[str, Any]:
        done = subprocess.run(
            [
                system_python,
                "-c",
                f"{_PREAMBLE}\n{lines}\nleave()",
                str(_TESTS.parent),
                str(_TESTS),
                sysconfig.get_paths()["purelib"],
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=60.0,
        )
        assert done.returncode == 0, done.stderr
        seen: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**seen, "stderr": done.stderr + done.stdout}

    return run


@pytest.fixture
def server() -> Iterator[RtspServer]:
    started = RtspServer("--user", "viewer", "--password", 's3cret!"pw')
    yield started
    started.kill()


def test_any_pipeline(scenario: Any) -> None:
    seen = scenario("""
source = open_source("door", "gst:videotestsrc is-live=true pattern=red ! "
    "video/x-raw,width=320,height=240,framerate=25/1 ! videoconvert ! "
    "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false")
source.open()
frames = [source.read() for _ in range(26)]
seen["fps"] = source.fps
seen["shape"] = frames[0].image.shape
seen["red"] = [int(c) for c in frames[0].image[100, 100]]
seen["seconds"] = frames[-1].info.time - frames[0].info.time
source.close()
seen["left"] = left_behind()
""")
    assert seen["fps"] == 25.0
    assert seen["shape"] == [240, 320, 3]
    assert seen["red"][2] > 200 > 50 > seen["red"][0]
    assert seen["seconds"] == pytest.approx(1.0, abs=0.2)
    assert seen["left"] == []


def test_a_pipeline_that_ends_is_a_lost_stream(scenario: Any) -> None:
    seen = scenario("""
source = open_source("door", "gst:videotestsrc num-buffers=20 is-live=true ! videoconvert ! "
    "video/x-raw,format=BGR ! appsink")
source.open()
try:
    for _ in range(100):
        source.read()
except SourceError as error:
    seen["error"], seen["retry"] = str(error), error.retry
source.close()
""")
    assert "the pipeline ended" in seen["error"]
    assert seen["retry"]


def test_a_pipeline_that_cannot_start(scenario: Any) -> None:
    seen = scenario("""
seen["element"] = error_of("gst:nosuchelement ! appsink", {})
seen["jetson"] = error_of("usb:97", {"kind": "gstreamer"})
""")
    assert "GStreamer cannot start the pipeline" in seen["element"]
    assert "GStreamer cannot start the pipeline" in seen["jetson"]


def test_an_rtsp_camera_with_a_password_full_of_traps(scenario: Any, server: RtspServer) -> None:
    url = server.url(login='viewer:s3cret!"pw')
    seen = scenario(f"""
source = open_source("door", {url!r}, SOFTWARE)
source.open()
frames = [source.read() for _ in range(16)]
seen["shape"] = frames[0].image.shape
seen["seconds"] = frames[-1].info.time - frames[0].info.time
seen["label"] = source.label
source.close()
""")
    assert seen["shape"] == [240, 320, 3]
    assert seen["seconds"] == pytest.approx(1.0, abs=0.3)
    assert "s3cret" not in seen["label"] + seen["stderr"]


def test_refusals_name_the_reason_and_no_password(scenario: Any, server: RtspServer) -> None:
    wrong = server.url(login="viewer:wr0ng-pw")
    listener = SilentListener()
    seen = scenario(f"""
seen["password"] = error_of({wrong!r}, SOFTWARE)
seen["silent"] = error_of("rtsp://127.0.0.1:{listener.port}/x", SOFTWARE)
""")
    listener.close()
    assert "refused (401)" in seen["password"]
    assert "no answer" in seen["silent"]
    assert "wr0ng-pw" not in json.dumps(seen)


def test_frozen_and_resumed(scenario: Any, server: RtspServer) -> None:
    seen = scenario("""
server = RtspServer()
source = open_source("door", server.url(), SOFTWARE)
reader = Reader("door", source, SlotGroup().add())
reader.start()
seconds_until(lambda: reader.state is State.ONLINE, 20.0)
server.freeze()
seen["noticed"] = seconds_until(lambda: reader.state in (State.STALE, State.OFFLINE), 5.0)
time.sleep(3.0)
server.resume()
seen["back"] = seconds_until(lambda: reader.state is State.ONLINE, 5.0)
seen["stopped"] = reader.stop(1.0)
server.kill()
""")
    assert seen["noticed"] <= 5.0
    assert seen["back"] <= 5.0


def test_built_pipelines_are_understood_by_gstreamer(scenario: Any) -> None:
    seen = scenario("""
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
secret = 'rtsp://me:a"b\\\\c!d e@cam/x'
pipeline = gstreamer.rtsp_pipeline(secret, decoder="software")
camera = Gst.parse_launch(pipeline).get_by_name("rtspsrc0")
seen["same"] = camera.get_property("location") == secret
usb = Gst.parse_launch(gstreamer.usb_pipeline("/dev/video7", decoder="software", mjpeg=True,
    width=640, height=480, fps=30))
seen["device"] = usb.get_by_name("v4l2src0").get_property("device")
""")
    assert seen["same"]
    assert seen["device"] == "/dev/video7"


def test_this_opencv_says_when_it_has_no_gstreamer() -> None:
    from edgecount.capture import gstreamer

    backends = cv2.videoio_registry.getBackends()
    assert gstreamer.has_gstreamer() == (cv2.CAP_GSTREAMER in backends)
