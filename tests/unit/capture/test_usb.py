from pathlib import Path
from typing import Any

import cv2
import pytest

from edgecount.capture import open_source, usb
from edgecount.errors import ConfigError, SourceError


@pytest.mark.parametrize(
    ("source", "device"),
    [
        ("usb:0", "/dev/video0"),
        ("usb:12", "/dev/video12"),
        ("usb:/dev/v4l/by-id/usb-Logi", "/dev/v4l/by-id/usb-Logi"),
        ("/dev/video3", "/dev/video3"),
    ],
)
def test_device(source: str, device: str) -> None:
    assert usb.claims(source)
    assert usb.device_of(source) == Path(device)


@pytest.mark.parametrize("source", ["usb:", "usb:front", "usb:-1"])
def test_what_names_no_camera(source: str) -> None:
    with pytest.raises(ConfigError, match="usb:0"):
        open_source("door", source)


def test_a_camera_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(SourceError, match="no such device") as caught:
        open_source("door", "usb:97").open()
    assert caught.value.retry


def test_what_is_no_camera() -> None:
    with pytest.raises(SourceError, match="no camera that delivers pictures"):
        open_source("door", "/dev/null", {"kind": "usb"}).open()


def test_the_pixel_format_comes_before_the_size() -> None:
    options = usb.Options(width=640, height=480, fps=30, fourcc="MJPG")
    parameters = usb._parameters(options)
    assert parameters[::2] == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
    ]
    assert parameters[3::2] == [640, 480, 30]


@pytest.mark.parametrize("options", [{"width": 640}, {"fourcc": "JPEG2000"}, {"width": 0}])
def test_wrong_options(options: "dict[str, Any]") -> None:
    with pytest.raises(ConfigError, match="camera 'door': capture"):
        open_source("door", "usb:0", options)
