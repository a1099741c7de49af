import time

import cv2
import numpy as np
import pytest

from edgecount.config import CameraSettings
from edgecount.errors import SourceError
from edgecount.records import Frame, FrameInfo
from edgecount.runtime.sight import Sight
from edgecount.toolchain.doctor import cameras

FRAME = Frame(FrameInfo("door", 0, 0.0, 0.0, 640, 480), np.zeros((480, 640, 3), np.uint8))


class FakeSource:
    label = "rtsp://viewer:***@10.0.0.5/1"

    def __init__(self, fps=200.0, live=True, frames=10**6, error=None):
        self.live = live
        self.fps = fps
        self.left = frames
        self.error = error
        self.closed = False

    def open(self):
        if self.error:
            raise self.error

    def read(self):
        if not self.left:
            return None
        self.left -= 1
        time.sleep(1 / self.fps)
        return FRAME

    def close(self):
        self.closed = True


@pytest.fixture
def looked(monkeypatch):
    monkeypatch.setattr(cameras, "_LOOK_S", 0.2)

    def look(source, sight=None, **settings):
        monkeypatch.setattr(cameras, "open_source", lambda *_: source)
        return cameras.look(CameraSettings(name="door", source="gst:fake", **settings), sight)

    return look


def test_a_camera_that_delivers(looked):
    source = FakeSource()
    finding = looked(source, fps=50)
    assert finding.state == "ok"
    assert "640×480" in finding.detail
    assert source.closed


def test_a_camera_that_is_slower_than_wanted(looked):
    finding = looked(FakeSource(fps=10), fps=25)
    assert finding.state == "warn"
    assert "25 are wanted" in finding.detail
    assert finding.remedy


def test_a_lower_limit_is_what_is_wanted(looked):
    assert looked(FakeSource(fps=40), fps=25, max_fps=8).state == "ok"


def test_a_file_has_no_rate_to_hold(looked):
    assert looked(FakeSource(fps=15, live=False), fps=25).state == "ok"


@pytest.mark.parametrize(("head", "state"), [(20, "ok"), (10, "warn"), (None, "ok")])
def test_heads_are_judged_by_the_size_that_the_camera_sends(looked, head, state):
    sight = Sight("head-n", (416, 416), 12.0, 32)
    finding = looked(FakeSource(), sight, fps=25, head_px=head)
    assert finding.state == state
    assert ("6.5 px" in finding.detail) == (state == "warn")  # 10 × 416 / 640


def test_small_heads_do_not_hide_that_a_camera_is_slow(looked):
    sight = Sight("head-n", (416, 416), 12.0, 32)
    finding = looked(FakeSource(fps=10), sight, fps=25, head_px=10)
    assert "25 are wanted" in finding.detail
    assert "6.5 px" in finding.detail


def test_errors_and_silence_fail(looked):
    gone = looked(FakeSource(error=SourceError("rtsp://viewer:***@10.0.0.5/1: nothing listens")))
    assert gone.state == "fail"
    assert "nothing listens" in gone.detail
    assert looked(FakeSource(frames=0)).state == "fail"


def test_a_camera_that_hangs_is_named_and_the_others_are_seen(monkeypatch):
    monkeypatch.setattr(cameras, "_LIMIT_S", 0.3)
    monkeypatch.setattr(cameras, "_LOOK_S", 0.05)

    def opened(name, *_):
        return FakeSource(fps=1e-2 if name == "hung" else 100)

    monkeypatch.setattr(cameras, "open_source", opened)
    settings = [CameraSettings(name=n, source="gst:x", fps=5) for n in ("hung", "fine")]
    assert [f.state for f in cameras.examine(settings)] == ["fail", "ok"]


def test_a_file_tells_its_codec(tmp_path):
    clip = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert cameras._codec(clip) == " MJPG"
    assert cameras._codec("gst:videotestsrc") == ""
