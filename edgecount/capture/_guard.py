"""Give up on calls into OpenCV that hang."""

import queue
import threading
from typing import Callable, Optional, Tuple

import cv2
import numpy as np
from numpy.typing import NDArray

_RELEASE_S = 1.0


class GuardedCapture:
    """A ``cv2.VideoCapture`` that lives in a thread of its own, and is left behind if it hangs.

    OpenCV's GStreamer backend blocks for half a minute when a stream freezes, and has no
    time-out that could be set in all versions. Here ``open`` and ``grab`` return false
    after their time. A capture that was left behind is released when its call returns.

    Args:
        connect: Opens the capture; called in that thread.
        open_s: How long opening may take, seconds.
        grab_s: How long a frame may stay away, seconds.
    """

    def __init__(
        self, connect: Callable[[], cv2.VideoCapture], *, open_s: float, grab_s: float
    ) -> None:
        self._connect = connect
        self._grab_s = grab_s
        self._capture: Optional[cv2.VideoCapture] = None
        self._jobs: queue.Queue[Optional[Callable[[], bool]]] = queue.Queue()
        self._results: queue.Queue[bool] = queue.Queue()
        self._hangs = False
        self._thread = threading.Thread(target=self._run, name="capture-gstreamer", daemon=True)
        self._thread.start()
        self._opened = self._call(self._open, open_s)

    def isOpened(self) -> bool:  # noqa: N802  as cv2.VideoCapture calls it
        """Whether it was opened in time."""
        return self._opened

    def get(self, prop: int) -> float:
        """A property of the opened capture."""
        assert self._capture is not None
        return self._capture.get(prop)

    def grab(self) -> bool:
        """Wait for the next frame; false when there is none, or none in time."""
        return self._opened and not self._hangs and self._call(self._grab, self._grab_s)

    def retrieve(self) -> Tuple[bool, NDArray[np.uint8]]:
        """The frame that was grabbed last."""
        assert self._capture is not None
        return self._capture.retrieve()  # type: ignore[return-value]

    def release(self) -> None:
        """Let go of the capture, in its thread; does not wait for one that hangs."""
        self._jobs.put(None)
        self._thread.join(0.0 if self._hangs else _RELEASE_S)

    def _call(self, job: Callable[[], bool], timeout: float) -> bool:
        self._jobs.put(job)
        try:
            return self._results.get(timeout=timeout)
        except queue.Empty:
            self._hangs = True
            return False

    def _open(self) -> bool:
        self._capture = self._connect()
        return self._capture.isOpened()

    def _grab(self) -> bool:
        assert self._capture is not None
        return self._capture.grab()

    def _run(self) -> None:
        for job in iter(self._jobs.get, None):
            self._results.put(job())
        if self._capture is not None:
            self._capture.release()
