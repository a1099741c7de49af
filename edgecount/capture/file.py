"""Video files and folders of pictures: every frame, in order.

Decoding runs on one thread by default: the reader's thread already runs beside the
network, which can use every core that is left. More decoder threads cost as much CPU time
(1080p H.264: 8.3 ms a frame with 1 and with 2 threads, OpenCV 5.0.0, 2 x86-64 cores,
2026-11-24) and help only where decoding alone is the bottleneck.
"""

import glob
import re
import threading
from pathlib import Path
from typing import List, Optional, Tuple, Union

import cv2
import structlog
from pydantic import Field
from typing_extensions import Annotated, Protocol

from edgecount.capture._clock import Clock
from edgecount.capture._decimate import Decimator
from edgecount.capture._environment import prepare_opencv
from edgecount.capture._live import decoder_threads, plausible_fps
from edgecount.capture._playback import FILE_SCHEME, Playback, path_of
from edgecount.errors import SourceError
from edgecount.records import Frame, FrameInfo, UInt8Array

_log = structlog.get_logger(__name__)

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_OTHER_KINDS = ("usb:", "gst:", "/dev/video")
_FALLBACK_FPS = 25.0
# Containers count frames by duration × rate, which is off by a few; more missing is damage.
_MISSING_ALLOWED = 0.02


class Options(Playback):
    """Options of a file source."""

    start: Optional[float] = Field(
        None,
        description="Wall-clock time of the first frame, UTC seconds since 1970; else now.",
    )
    threads: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="Threads of the decoder; 0 leaves the choice to FFmpeg."
    )


def claims(source: str) -> bool:
    """Everything that is a path: no scheme but ``file://``, no other kind's prefix."""
    if source.startswith(FILE_SCHEME):
        return True
    return "://" not in source and not source.startswith(_OTHER_KINDS)


def create(
    camera: str,
    source: str,
    options: Options,
    *,
    clock: Clock,
    max_fps: Optional[float] = None,
) -> "FileSource":
    """A source that reads the clip, folder or glob pattern named ``source``."""
    return FileSource(camera, source, options, clock=clock, max_fps=max_fps)


class FileSource:
    """Reads a video file, a folder of pictures or a glob pattern of pictures.

    ``time`` of a frame is ``index / fps`` and its ``ts`` the wall-clock time at the first
    ``open`` (or ``start``) plus that, so that a clip counts alike at any speed.

    A clip that breaks off in the middle ends there, with a warning that says how many
    frames were read.
    """

    live = False

    def __init__(
        self,
        camera: str,
        source: str,
        options: Options,
        *,
        clock: Clock,
        max_fps: Optional[float] = None,
    ) -> None:
        self.label = source
        self.fps: Optional[float] = options.fps
        self._camera = camera
        self._path = path_of(source)
        self._options = options
        self._clock = clock
        self._decimator = Decimator(max_fps)
        self._interrupted = threading.Event()
        self._clip: Optional[_Clip] = None
        self._in_clip = 0
        self._index = 0
        self._start_ts = 0.0
        self._start_monotonic = 0.0

    @property
    def skipped(self) -> int:
        """Frames that ``max_fps`` left out so far."""
        return self._decimator.left_out

    def open(self) -> None:
        """Open the clip at its beginning. Raises SourceError (never to be retried)."""
        self.close()
        self._interrupted.clear()
        prepare_opencv()
        self._clip = _open_clip(self._path, self._options.threads)
        self.fps = self._options.fps or self._clip.fps or _FALLBACK_FPS
        self._in_clip = 0
        self._index = 0
        self._decimator.reset()
        start = self._options.start
        self._start_ts = self._clock.wall() if start is None else start
        self._start_monotonic = self._clock.monotonic()

    def read(self) -> Optional[Frame]:
        """The next frame, or None at the end and after ``interrupt``.

        Raises:
            SourceError: The source is not open, or a picture of a folder is damaged.
        """
        clip = self._opened()
        time = self._grab(clip)
        if time is None:
            return None
        if self._options.realtime and not self._wait_until(time):
            return None
        image = clip.retrieve()
        height, width = image.shape[:2]
        info = FrameInfo(self._camera, self._index - 1, self._start_ts + time, time, width, height)
        return Frame(info, image)

    def interrupt(self) -> None:
        """End a wait for the next frame's time."""
        self._interrupted.set()

    def close(self) -> None:
        """Close the file."""
        if self._clip is not None:
            self._clip.close()
            self._clip = None

    def _opened(self) -> "_Clip":
        if self._clip is None:
            raise SourceError(f"{self.label} is not open: call open() before read()", retry=False)
        return self._clip

    def _grab(self, clip: "_Clip") -> Optional[float]:
        """Step to the next frame to deliver; its time, or None at the end."""
        assert self.fps is not None
        while clip.grab() or self._again(clip):
            time = self._index / self.fps
            self._index += 1
            self._in_clip += 1
            if self._decimator.keep(time):
                return time
            if self._interrupted.is_set():
                return None
        return None

    def _again(self, clip: "_Clip") -> bool:
        """At the end of the clip: whether it was started anew and has a frame."""
        if self._in_clip == 0:
            raise SourceError(
                f"{self.label}: not one picture of it can be decoded; the file is damaged or "
                "its codec is unknown: play it elsewhere, or convert it to H.264",
                retry=False,
            )
        self._warn_if_short(clip.length)
        if not self._options.loop or self._interrupted.is_set():
            return False
        clip.rewind()
        self._in_clip = 0
        return clip.grab()

    def _warn_if_short(self, length: int) -> None:
        if self._in_clip < length * (1.0 - _MISSING_ALLOWED) - 1:
            _log.warning(
                "clip_truncated",
                camera=self._camera,
                source=self.label,
                frames_read=self._in_clip,
                frames_expected=length,
            )

    def _wait_until(self, time: float) -> bool:
        """Wait until the frame of stream time ``time`` is due; false when interrupted."""
        delay = self._start_monotonic + time - self._clock.monotonic()
        return delay <= 0.0 or not self._clock.wait(self._interrupted, delay)


class _Clip(Protocol):
    """Pictures in a row. ``length`` is how many it says it has, 0 where it does not say."""

    fps: Optional[float]
    length: int

    def grab(self) -> bool: ...

    def retrieve(self) -> UInt8Array: ...

    def rewind(self) -> None: ...

    def close(self) -> None: ...


class _Video:
    """A video file, decoded by FFmpeg."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._capture = self._open()
        self.fps = plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.length = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def grab(self) -> bool:
        return self._capture.grab()

    def retrieve(self) -> UInt8Array:
        ok, image = self._capture.retrieve()
        if not ok:
            raise SourceError(f"{self._path}: a picture of it cannot be converted", retry=False)
        return image  # type: ignore[return-value]

    def rewind(self) -> None:
        # Seeking to 0 is inexact or impossible in some containers; opening again always works.
        self._capture.release()
        self._capture = self._open()

    def close(self) -> None:
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        parameters = decoder_threads(self._threads)
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, parameters)
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} is not a video that FFmpeg can read: it is damaged, cut off "
                "before its index, or no video at all; play it elsewhere, or convert it to H.264",
                retry=False,
            )
        return capture


class _Pictures:
    """Picture files, one frame each."""

    fps: Optional[float] = None

    def __init__(self, paths: List[Path]) -> None:
        self._paths = paths
        self._next = 0
        self.length = len(paths)

    def grab(self) -> bool:
        self._next += 1
        return self._next <= self.length

    def retrieve(self) -> UInt8Array:
        path = self._paths[self._next - 1]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(
                f"{path} is not a picture that can be decoded; remove or replace it", retry=False
            )
        return image  # type: ignore[return-value]

    def rewind(self) -> None:
        self._next = 0

    def close(self) -> None:
        pass


def _open_clip(name: str, threads: int) -> _Clip:
    """Open what ``name`` stands for. Raises SourceError."""
    path = Path(name)
    try:
        if path.is_dir():
            return _Pictures(_pictures(list(path.iterdir()), f"the folder {name}"))
        if any(c in name for c in "*?[") and not path.exists():
            matches = glob.glob(name)  # noqa: PTH207  Path.glob takes no absolute pattern
            return _Pictures(_pictures([Path(p) for p in matches], f"the pattern {name}"))
        _check_file(path)
    except OSError as error:
        raise SourceError(f"cannot read {name}: {error.strerror or error}", retry=False) from error
    return _Video(path, threads)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceError(
            f"there is no file {path}; check the path, and that this user may see it", retry=False
        )
    if not path.is_file():
        raise SourceError(f"{path} is neither a file nor a folder of pictures", retry=False)
    with path.open("rb") as file:
        if not file.read(1):
            raise SourceError(f"{path} is empty", retry=False)


def _pictures(paths: List[Path], where: str) -> List[Path]:
    found = sorted((p for p in paths if p.suffix.lower() in _PICTURES), key=_natural)
    if not found:
        raise SourceError(f"{where} holds no pictures ({', '.join(_PICTURES)})", retry=False)
    return found


def _natural(path: Path) -> Tuple[List[Union[int, str]], str]:
    """Sort key: frame 2 comes before frame 10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(p) if i % 2 else p for i, p in enumerate(parts)], path.name
