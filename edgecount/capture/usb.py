"""USB and other V4L2 cameras."""

import re
from pathlib import Path
from typing import List, Optional

import cv2
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Annotated

from edgecount.capture._clock import Clock
from edgecount.capture._environment import prepare_opencv
from edgecount.capture._live import LiveCapture
from edgecount.config import Strict
from edgecount.errors import ConfigError, SourceError

_PREFIX = "usb:"


class Options(Strict):
    """Options of a USB source. What the camera cannot do it replaces by the nearest it can."""

    width: Optional[Annotated[int, Field(ge=16, le=16384)]] = Field(
        None, description="Width of the picture, pixels; the camera's choice where not given."
    )
    height: Optional[Annotated[int, Field(ge=16, le=16384)]] = Field(
        None, description="Height of the picture, pixels."
    )
    fps: Optional[Annotated[float, Field(gt=0.0, le=1000.0)]] = Field(
        None, description="Frames per second."
    )
    fourcc: Optional[str] = Field(
        None,
        description="Pixel format, e.g. MJPG (most rates need it over USB 2), YUYV.",
    )

    @field_validator("fourcc")
    @classmethod
    def _four_characters(cls, fourcc: Optional[str]) -> Optional[str]:
        if fourcc is not None and not re.fullmatch(r"[A-Za-z0-9 ]{4}", fourcc):
            raise PydanticCustomError("fourcc", "a pixel format has four characters, e.g. MJPG")
        return fourcc

    @model_validator(mode="after")
    def _width_with_height(self) -> "Options":
        if (self.width is None) != (self.height is None):
            raise PydanticCustomError("size", "give 'width' and 'height' together, or neither")
        return self


def claims(source: str) -> bool:
    """``usb:0``, ``usb:/dev/v4l/by-id/…`` and ``/dev/video0``."""
    return source.startswith((_PREFIX, "/dev/video", "/dev/v4l/"))


def create(
    camera: str,
    source: str,
    options: Options,
    *,
    clock: Clock,
    max_fps: Optional[float] = None,
) -> LiveCapture:
    """A source that reads the V4L2 camera named ``source``."""
    device = device_of(source)

    def connect() -> cv2.VideoCapture:
        return _connect(device, options)

    lost = (
        f"the camera gives no more pictures: was it unplugged? {device} is opened again "
        "as soon as it is there"
    )
    return LiveCapture(camera, source, connect, lost, clock=clock, max_fps=max_fps)


def device_of(source: str) -> Path:
    """The device file that a source string names. Raises ConfigError."""
    name = source[len(_PREFIX) :] if source.startswith(_PREFIX) else source
    if re.fullmatch(r"\d{1,3}", name):
        return Path(f"/dev/video{int(name)}")
    if name.startswith("/dev/"):
        return Path(name)
    raise ConfigError(
        f"{source!r} names no camera: write usb:0, usb:/dev/v4l/by-id/… or /dev/video0 "
        "(v4l2-ctl --list-devices shows what is there)"
    )


def _connect(device: Path, options: Options) -> cv2.VideoCapture:
    """The opened camera. Raises SourceError."""
    prepare_opencv()
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2, _parameters(options))
    if not capture.isOpened():
        raise SourceError(f"cannot open {device}: {_why_not(device)}")
    return capture


def _parameters(options: Options) -> List[int]:
    """The options as properties; the pixel format first, since sizes and rates depend on it."""
    parameters = []
    if options.fourcc is not None:
        parameters += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options.fourcc)]
    if options.width is not None and options.height is not None:
        parameters += [cv2.CAP_PROP_FRAME_WIDTH, options.width]
        parameters += [cv2.CAP_PROP_FRAME_HEIGHT, options.height]
    if options.fps is not None:
        parameters += [cv2.CAP_PROP_FPS, round(options.fps)]
    return parameters


def _why_not(device: Path) -> str:
    if not device.exists():
        return "there is no such device; is the camera plugged in? (v4l2-ctl --list-devices)"
    try:
        with device.open("rb", buffering=0):
            pass
    except PermissionError:
        return "this user may not use it; add it to the group 'video'"
    except OSError as error:
        return f"{error.strerror or error}; is another program using the camera?"
    return "it is no camera that delivers pictures, or it refuses the options (size, fourcc)"
