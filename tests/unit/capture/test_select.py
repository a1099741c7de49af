import pytest

from edgecount.capture import kinds, open_source, resolve
from edgecount.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("clips/door.mp4", "file"),
        ("file:///clips/door.mp4", "file"),
        ("frames/*.jpg", "file"),
        ("usb:0", "usb"),
        ("/dev/video0", "usb"),
        ("rtsp://cam/stream", "rtsp"),
        ("RTSPS://cam/stream", "rtsp"),
        ("gst:videotestsrc ! appsink", "gstreamer"),
    ],
)
def test_the_kind_follows_from_the_source(source: str, kind: str) -> None:
    assert resolve(source).__name__ == f"edgecount.capture.{kind}"


def test_a_kind_may_be_forced() -> None:
    assert resolve("rtsp://cam/stream", "gstreamer").__name__.endswith(".gstreamer")
    source = open_source("door", "rtsp://cam/x", {"kind": "gstreamer", "decoder": "software"})
    assert source.live


def test_an_unknown_kind_names_the_nearest_and_the_choices() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gstreamer'") as caught:
        open_source("door", "x", {"kind": "gstreamr"})
    assert all(kind in str(caught.value) for kind in kinds())


def test_an_unknown_scheme_names_the_choices_and_no_password() -> None:
    with pytest.raises(ConfigError, match="no kind of source can open") as caught:
        open_source("door", "ftp://me:hunter22@host/clip.mp4")
    assert "hunter22" not in str(caught.value)
    assert "rtsp://host/path" in str(caught.value)


def test_an_unknown_option_names_camera_key_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"camera 'door': capture.*'loops'.*did you mean 'loop'"):
        open_source("door", "clip.avi", {"loops": True})


def test_a_wrong_value_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"capture\.fps: should be a valid number"):
        open_source("door", "clip.avi", {"fps": "fast"})
