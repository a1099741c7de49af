import shlex

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.capture import gstreamer, open_source
from edgecount.errors import ConfigError, SourceError

SINK = "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


def test_jetson_rtsp() -> None:
    assert gstreamer.rtsp_pipeline("rtsp://u:p@cam/x") == (
        'rtspsrc location="rtsp://u:p@cam/x" latency=100 protocols=tcp '
        "tcp-timeout=3000000 timeout=3000000 ! rtph264depay ! h264parse ! "
        "nvv4l2decoder enable-max-performance=1 ! nvvidconv ! video/x-raw,format=BGRx ! "
        "videoconvert ! " + SINK
    )


def test_jetson_rtsp_h265_over_udp() -> None:
    pipeline = gstreamer.rtsp_pipeline("rtsp://cam/x", codec="h265", transport="udp", latency_ms=50)
    assert "latency=50 protocols=udp" in pipeline
    assert "rtph265depay ! h265parse ! nvv4l2decoder" in pipeline


def test_software_rtsp() -> None:
    pipeline = gstreamer.rtsp_pipeline("rtsp://cam/x", decoder="software")
    assert "h264parse ! avdec_h264 ! videoconvert ! " + SINK in pipeline


def test_jetson_usb_mjpeg() -> None:
    pipeline = gstreamer.usb_pipeline("/dev/video0", mjpeg=True, width=1280, height=720, fps=30)
    assert pipeline == (
        'v4l2src device="/dev/video0" ! image/jpeg,width=1280,height=720,framerate=30/1 ! '
        "nvv4l2decoder enable-max-performance=1 mjpeg=1 ! nvvidconv ! "
        "video/x-raw,format=BGRx ! videoconvert ! " + SINK
    )


def test_usb_raw() -> None:
    pipeline = gstreamer.usb_pipeline("/dev/video0")
    assert pipeline == f'v4l2src device="/dev/video0" ! video/x-raw ! videoconvert ! {SINK}'


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_quoting_is_undone_by_a_parser_of_the_same_rules(value: str) -> None:
    # GStreamer's parser and POSIX shells agree on backslashes and quotes in double quotes,
    # but for $ and `, which are plain to GStreamer.
    if "$" in value or "`" in value:
        return
    assert shlex.split(gstreamer.quote(value)) == [value]


class TestPipelineFor:
    options = gstreamer.Options()

    def test_own_pipeline(self) -> None:
        source = "gst: videotestsrc ! videoconvert ! appsink name=a sync=false"
        assert gstreamer.pipeline_for(source, self.options) == source[5:]

    @pytest.mark.parametrize("source", ["gst:videotestsrc", "gst:", "gst:appsink ! fakesink"])
    def test_without_an_appsink_at_its_end(self, source: str) -> None:
        with pytest.raises(ConfigError, match="ends in an appsink"):
            gstreamer.pipeline_for(source, self.options)

    def test_built_for_a_camera(self) -> None:
        assert "rtspsrc" in gstreamer.pipeline_for("rtsp://cam/x", self.options)
        assert "/dev/video2" in gstreamer.pipeline_for("usb:2", self.options)

    def test_nothing_to_build_for(self) -> None:
        with pytest.raises(ConfigError, match="nothing to build"):
            gstreamer.pipeline_for("clip.avi", self.options)


def test_an_opencv_without_gstreamer_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "getBackends", lambda: [cv2.CAP_FFMPEG])
    source = open_source("door", "rtsp://u:hunter22@cam/x", {"kind": "gstreamer"})
    with pytest.raises(SourceError, match="without GStreamer") as caught:
        source.open()
    assert not caught.value.retry
    assert "hunter22" not in str(caught.value)
    assert "hunter22" not in source.label
