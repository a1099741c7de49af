"""The one place where capture touches state of the whole process: environment variables.

OpenCV takes FFmpeg's options from a variable that it reads while it opens a stream, and
has no other way. So the variable is set around an ``open`` only.
"""

import contextlib
import ctypes
import os
import threading
from typing import Iterator, Optional

import cv2

# From malloc.h. 8 MiB hold some frames; with 64 the service grew by 25 MB more, for nothing.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_FROM_HEAP = 8 * 1024 * 1024
_KEPT_BYTES = 8 * 1024 * 1024


class SharedVariable:
    """An environment variable that several threads need at the same time.

    Threads that want the same value hold it together, so that one camera that takes long
    to answer delays no other; a thread that wants another value waits for them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._holders = 0
        self._value: Optional[str] = None
        self._before: Optional[str] = None

    @contextlib.contextmanager
    def holding(self, value: str) -> Iterator[None]:
        """Have the variable set to ``value`` meanwhile; afterwards it is as it was."""
        self._acquire(value)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, value: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._holders == 0 or self._value == value)
            if self._holders == 0:
                self._before = os.environ.get(self._name)
                self._value = value
                os.environ[self._name] = value
            self._holders += 1

    def _release(self) -> None:
        with self._changed:
            self._holders -= 1
            if self._holders == 0:
                self._restore()
                self._changed.notify_all()

    def _restore(self) -> None:
        if self._before is None:
            os.environ.pop(self._name, None)
        else:
            os.environ[self._name] = self._before


FFMPEG_OPTIONS = SharedVariable("OPENCV_FFMPEG_CAPTURE_OPTIONS")


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed frames for the next ones.

    By default glibc gives it back to the system after each frame and gets it anew, page
    by page: reading 768×576 frames in one thread and dropping them in another costs 1.1 ms
    of a core per frame so, and 0.7 ms with this (x86-64, glibc 2.36, 2026-11-24). At most
    ``_KEPT_BYTES`` per heap stay with the process. Does nothing where the C library is another one,
    or where the user has set ``MALLOC_TRIM_THRESHOLD_``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def prepare_opencv() -> None:
    """Set what OpenCV has no other way to set; call it before opening any stream.

    FFmpeg and OpenCV keep from writing to stderr, between the lines of our own log: what
    they say of a failure is in our errors. A V4L2 camera that is silent is given up after
    3 s instead of 10. A user who has set the variables wins.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "3")
    keep_freed_memory()
    logging = getattr(cv2.utils, "logging", None)  # OpenCV before 4.7 has no such module
    if logging is not None and "OPENCV_LOG_LEVEL" not in os.environ:
        logging.setLogLevel(logging.LOG_LEVEL_ERROR)
