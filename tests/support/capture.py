"""Stand-ins for clocks, cameras and OpenCV in tests of capture, and drawn clips."""

import os
import threading
from pathlib import Path
from typing import Callable, List, Optional, Tuple, Union

import cv2
import numpy as np

from edgecount.capture import Clock
from edgecount.errors import SourceError
from edgecount.records import Frame, FrameInfo, UInt8Array

VTEST = os.environ.get("EDGECOUNT_VTEST")


class FakeClock(Clock):
    """A clock that moves when somebody waits on it, and says by how much."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: List[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1.7e9

    def wait(self, event: threading.Event, timeout: float) -> bool:
        self.waits.append(timeout)
        self.now += timeout
        return event.is_set()


def frame(index: int = 0, camera: str = "door", time: float = 0.0) -> Frame:
    """A small frame whose pixels tell its index."""
    image = np.full((8, 8, 3), index % 256, np.uint8)
    return Frame(FrameInfo(camera, index, 1.7e9 + time, time, 8, 8), image)


Step = Union[Frame, None, BaseException, Callable[[], None]]


class ScriptedSource:
    """A source that plays a script: frames, None for the end, errors; callables run first.

    Each ``open`` that fails is an error in ``opens``, from left to right.
    """

    label = "scripted"
    skipped = 0
    fps: Optional[float] = 10.0

    def __init__(
        self, script: List[Step], opens: Optional[List[BaseException]] = None, live: bool = True
    ) -> None:
        self.live = live
        self.script = list(script)
        self.opens = list(opens or [])
        self.opened = 0
        self.closed = 0
        self.interrupted = threading.Event()

    def open(self) -> None:
        self.opened += 1
        if self.opens:
            raise self.opens.pop(0)

    def read(self) -> Optional[Frame]:
        while self.script and callable(self.script[0]):
            self.script.pop(0)()  # type: ignore[operator,misc]
        if not self.script:
            self.interrupted.wait()
            raise SourceError("the script is at its end")
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step  # type: ignore[return-value]

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


class FakeCapture:
    """As much of ``cv2.VideoCapture`` as capture uses: each grab takes the given seconds.

    A grab time of None fails. A test checks it against the real class's signatures.
    """

    def __init__(self, clock: FakeClock, grabs: List[Optional[float]], fps: float = 10.0) -> None:
        self._clock = clock
        self._grabs = list(grabs)
        self._fps = fps
        self.grabbed = 0
        self.retrieved: List[int] = []
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return not self.released

    def get(self, prop: int) -> float:
        return self._fps if prop == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        duration = self._grabs.pop(0) if self._grabs else None
        if duration is None:
            return False
        self._clock.now += duration
        self.grabbed += 1
        return True

    def retrieve(self) -> Tuple[bool, UInt8Array]:
        self.retrieved.append(self.grabbed)
        return True, np.full((4, 6, 3), self.grabbed % 256, np.uint8)

    def release(self) -> None:
        self.released = True


def drawn_clip(path: Path, frames: int = 30, fps: float = 10.0, fourcc: str = "MJPG") -> Path:
    """Write a clip of 64×48 pictures; each shows its number as a grey level, 8 apart."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), (index * 8) % 256, np.uint8))
    writer.release()
    return path
