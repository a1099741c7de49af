"""Where the pictures of a calibration set may come from: folders, clips and cameras."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional

import cv2

from edgecount.capture import open_source
from edgecount.capture.base import Source
from edgecount.errors import DatasetError, SourceError
from edgecount.records import Frame, UInt8Array
from edgecount.toolchain.yolo_files import SUFFIXES

# A camera's neighbouring frames say the same.
_LIVE_FPS = 2.0
_LEAST_RETRY_S = 1.0

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A picture that may be chosen.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        origin: Its path within the folder, or the number of the frame.
        path: Its file; None for a frame of a clip or camera.
    """

    image: UInt8Array
    origin: str
    path: Optional[Path]


def folder_candidates(folder: Path, notice: Notice) -> Iterator[Candidate]:
    """All pictures below a folder; those that cannot be decoded are told and left out.

    Raises:
        DatasetError: There is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DatasetError(
            f"{folder} holds no pictures ({', '.join(SUFFIXES)}): give a folder of pictures, a "
            "video file or a camera's URL"
        )
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            notice(f"{path} cannot be read as a picture and is left out")
        else:
            yield Candidate(image, str(path.relative_to(folder)), path)  # type: ignore[arg-type]


def stream_candidates(
    source: str, fps: Optional[float], seconds: float, notice: Notice
) -> Iterator[Candidate]:
    """The frames of a clip, or of a camera for a while.

    Args:
        source: As in the configuration.
        fps: Frames per second at most; where None all of a clip, and 2 of a camera.
        seconds: How long a camera is watched; it is connected again where it goes away.
        notice: Told when a camera went away.

    Raises:
        ConfigError: No kind of source fits.
        SourceError: The source cannot be opened.
    """
    opened = open_source("calibration", source, max_fps=fps)
    if opened.live and fps is None:
        opened = open_source("calibration", source, max_fps=_LIVE_FPS)
    opened.open()
    try:
        frames = _watch(opened, seconds, notice) if opened.live else _all(opened)
        for frame in frames:
            yield Candidate(frame.image, f"frame {frame.info.index}", None)
    finally:
        opened.close()


def _all(source: Source) -> Iterator[Frame]:
    frame = source.read()
    while frame is not None:
        yield frame
        frame = source.read()


def _watch(source: Source, seconds: float, notice: Notice) -> Iterator[Frame]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            frame = source.read()
        except SourceError as error:
            if not error.retry:
                raise
            notice(f"{error}; connecting again")
            _open_again(source, end)
            continue
        if frame is not None:
            yield frame


def _open_again(source: Source, end: float) -> None:
    """Connect until it succeeds or the time is up. Raises SourceError if it never can."""
    wait = _LEAST_RETRY_S
    while time.monotonic() + wait < end:
        time.sleep(wait)
        source.close()
        try:
            source.open()
        except SourceError as error:
            if not error.retry:
                raise
            wait = max(_LEAST_RETRY_S, error.retry_after)
        else:
            return
    time.sleep(max(0.0, end - time.monotonic()))
