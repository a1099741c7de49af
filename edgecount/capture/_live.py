"""What USB, RTSP and GStreamer cameras have in common: a live ``cv2.VideoCapture``."""

import contextlib
import math
from typing import Any, Callable, Iterator, List, Optional, Tuple

import cv2
from typing_extensions import Protocol

from edgecount.capture._clock import Clock
from edgecount.capture._decimate import Decimator
from edgecount.errors import SourceError
from edgecount.records import Frame, FrameInfo
from edgecount.redact import mask_url

# While draining, a frame that had to be waited for at least this part of the frame
# interval was not waiting for us: it is live.
_WAITED = 0.4
_DRAIN_S = 2.0
_USUAL_FPS = 25.0


class Capture(Protocol):
    """What of ``cv2.VideoCapture`` is used here."""

    def get(self, prop: int, /) -> float: ...

    def grab(self) -> bool: ...

    def retrieve(self) -> Tuple[bool, Any]: ...

    def release(self) -> None: ...


class LiveCapture:
    """A camera behind ``cv2.VideoCapture``.

    Frames bear the time at which they arrived. Frames that had been waiting in buffers
    when the camera was opened are dropped; so are those above ``max_fps``, which costs
    their decoding but not their conversion to BGR.

    Args:
        camera: Name of the camera.
        label: The source as it may be shown.
        connect: Opens the camera, or raises SourceError.
        lost: What to tell when no more pictures come: what happened and what to do.
        silence_s: A picture that comes after this time, seconds, is none: when FFmpeg's
            time-out strikes it first hands out the picture that was left in the decoder.
        clock: The clocks to live by.
        max_fps: Frames per second that ``read`` returns at most; None for all.
    """

    live = True

    def __init__(
        self,
        camera: str,
        label: str,
        connect: Callable[[], Capture],
        lost: str,
        *,
        silence_s: float = math.inf,
        clock: Clock,
        max_fps: Optional[float] = None,
    ) -> None:
        self.label = label
        self.fps: Optional[float] = None
        self._camera = camera
        self._connect = connect
        self._lost = lost
        self._silence_s = silence_s
        self._clock = clock
        self._decimator = Decimator(max_fps)
        self._capture: Optional[Capture] = None
        self._grabbed = False
        self._index = 0

    @property
    def skipped(self) -> int:
        """Frames that ``max_fps`` left out so far."""
        return self._decimator.left_out

    def open(self) -> None:
        """Connect, and drop what is stale. Raises SourceError."""
        self.close()
        with self._translating():
            self._capture = capture = self._connect()
            self.fps = plausible_fps(capture.get(cv2.CAP_PROP_FPS))
            self._decimator.reset()
            self._drain(capture)

    def read(self) -> Optional[Frame]:
        """The next frame; never None. Raises SourceError when the camera is lost."""
        capture = self._capture
        if capture is None:
            raise SourceError(f"{self.label} is not open: call open() before read()")
        with self._translating():
            while True:
                time = self._grab(capture)
                index = self._index
                self._index += 1
                if self._decimator.keep(time):
                    return self._retrieve(capture, index, time)

    def interrupt(self) -> None:
        """Has no effect: OpenCV's calls cannot be interrupted, only time out."""

    def close(self) -> None:
        """Let go of the camera."""
        capture, self._capture = self._capture, None
        self._grabbed = False
        if capture is not None:
            capture.release()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """OpenCV's own exceptions become ours."""
        try:
            yield
        except cv2.error as error:
            raise SourceError(f"{self.label}: OpenCV failed: {mask_url(str(error))}") from error

    def _drain(self, capture: Capture) -> None:
        """Grab until a frame had to be waited for; that one is the first to be read."""
        patience = _WAITED / (self.fps or _USUAL_FPS)
        began = before = self._clock.monotonic()
        while before - began < _DRAIN_S:
            now = self._grab(capture)
            if now - before >= patience:
                break
            before = now
        self._grabbed = True

    def _grab(self, capture: Capture) -> float:
        """Wait for the next frame; when it arrived, monotonic seconds."""
        began = self._clock.monotonic()
        if self._grabbed:
            self._grabbed = False
            return began
        grabbed = capture.grab()
        now = self._clock.monotonic()
        if not grabbed or now - began >= self._silence_s:
            raise SourceError(f"{self.label}: {self._lost}")
        return now

    def _retrieve(self, capture: Capture, index: int, time: float) -> Frame:
        ts = self._clock.wall()
        ok, image = capture.retrieve()
        if not ok:
            raise SourceError(f"{self.label}: {self._lost}")
        height, width = image.shape[:2]
        info = FrameInfo(self._camera, index, ts, time, width, height)
        return Frame(info, image)


def plausible_fps(fps: float) -> Optional[float]:
    """A frame rate as a container or camera gives it, or None where it is nonsense."""
    return fps if 0.5 <= fps <= 1000.0 else None


def decoder_threads(threads: int) -> List[int]:
    """Parameters of ``cv2.VideoCapture`` that limit FFmpeg's threads; 0 leaves it to FFmpeg.

    OpenCV before 4.7 (JetPack 5, Debian 12) has no such property, and refuses unknown ones.
    """
    prop = getattr(cv2, "CAP_PROP_N_THREADS", None)
    return [prop, threads] if prop is not None and threads else []
