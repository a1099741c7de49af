import inspect
from typing import List, Optional

import cv2
import pytest
from support.capture import FakeCapture, FakeClock

from edgecount.capture._live import LiveCapture, decoder_threads, plausible_fps
from edgecount.errors import SourceError


def make(
    grabs: List[Optional[float]], fps: float = 10.0, max_fps: Optional[float] = None
) -> "tuple[LiveCapture, FakeCapture, FakeClock]":
    clock = FakeClock()
    capture = FakeCapture(clock, grabs, fps)
    live = LiveCapture("door", "cam", lambda: capture, "lost", clock=clock, max_fps=max_fps)
    return live, capture, clock


def test_the_fake_is_like_the_real_capture() -> None:
    for name in ("isOpened", "get", "grab", "retrieve", "release"):
        assert callable(getattr(cv2.VideoCapture, name))
        inspect.getattr_static(FakeCapture, name)
    real = cv2.VideoCapture()
    ok, image = real.retrieve()
    assert (real.isOpened(), real.grab(), ok, image) == (False, False, False, None)
    assert real.get(cv2.CAP_PROP_FPS) <= 0.0


def test_frames_that_were_waiting_are_dropped() -> None:
    # Five come at once, the sixth after an interval: that one is live.
    live, capture, _ = make([0.001] * 5 + [0.1, 0.1])
    live.open()
    first = live.read()
    assert first is not None
    assert capture.retrieved == [6]
    assert first.info.index == 0


def test_a_camera_that_always_comes_at_once_is_not_drained_for_ever() -> None:
    live, _, clock = make([0.01] * 1000, fps=10.0)
    began = clock.now
    live.open()
    assert clock.now - began <= 2.1


def test_frames_bear_their_arrival() -> None:
    live, _, clock = make([0.1] * 4)
    live.open()
    began = clock.now
    frames = [live.read() for _ in range(3)]
    assert [f.info.time - began for f in frames if f] == pytest.approx([0.0, 0.1, 0.2])
    assert frames[0] is not None
    assert frames[0].info.ts == pytest.approx(began + 1.7e9)
    assert (frames[0].info.width, frames[0].info.height) == (6, 4)


def test_the_index_rises_over_a_reconnect() -> None:
    live, capture, _ = make([0.1, 0.1, None])
    live.open()
    seen = [live.read(), live.read()]
    with pytest.raises(SourceError, match="cam: lost"):
        live.read()
    capture._grabs = [0.1, 0.1]
    live.open()
    seen.append(live.read())
    indices = [f.info.index for f in seen if f]
    assert indices == sorted(set(indices))


def test_frames_above_max_fps_are_grabbed_and_not_retrieved() -> None:
    live, capture, _ = make([0.1] * 21, max_fps=5.0)
    live.open()
    frames = [live.read() for _ in range(10)]
    assert len(capture.retrieved) == 10
    assert capture.grabbed >= 19
    assert [f.info.index for f in frames if f] == list(range(0, 20, 2))


def test_a_loss_while_draining_is_an_error() -> None:
    live, _, _ = make([0.001, None])
    with pytest.raises(SourceError, match="lost") as caught:
        live.open()
    assert caught.value.retry


def test_a_picture_after_the_time_out_is_a_loss() -> None:
    clock = FakeClock()
    capture = FakeCapture(clock, [0.1, 0.1, 3.0])
    live = LiveCapture("door", "cam", lambda: capture, "lost", silence_s=2.9, clock=clock)
    live.open()
    live.read()
    live.read()
    with pytest.raises(SourceError, match="lost"):
        live.read()


def test_opencvs_exceptions_are_translated_without_passwords() -> None:
    def connect() -> FakeCapture:
        raise cv2.error("cannot open rtsp://me:hunter22@cam/x")

    live = LiveCapture("door", "cam", connect, "lost", clock=FakeClock())
    with pytest.raises(SourceError, match="OpenCV failed") as caught:
        live.open()
    assert "hunter22" not in str(caught.value)


def test_close_releases_and_may_come_twice() -> None:
    live, capture, _ = make([0.1])
    live.open()
    live.close()
    live.close()
    assert capture.released
    with pytest.raises(SourceError, match="not open"):
        live.read()


@pytest.mark.parametrize(("given", "taken"), [(25.0, 25.0), (0.0, None), (-1.0, None), (9e4, None)])
def test_nonsense_rates_are_unknown(given: float, taken: Optional[float]) -> None:
    assert plausible_fps(given) == taken


def test_decoder_threads_are_left_out_where_opencv_knows_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert decoder_threads(0) == []
    monkeypatch.delattr(cv2, "CAP_PROP_N_THREADS", raising=False)
    assert decoder_threads(4) == []
