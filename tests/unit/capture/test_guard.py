import threading
import time
from typing import List

from edgecount.capture._guard import GuardedCapture


class Capture:
    """A capture whose grabs wait for ``go``."""

    def __init__(self, opened: bool = True) -> None:
        self.go = threading.Event()
        self.released_in: List[str] = []
        self._opened = opened

    def isOpened(self) -> bool:  # noqa: N802
        return self._opened

    def get(self, prop: int) -> float:
        return 25.0

    def grab(self) -> bool:
        return self.go.wait(10.0)

    def retrieve(self) -> "tuple[bool, str]":
        return True, "image"

    def release(self) -> None:
        self.released_in.append(threading.current_thread().name)


def guard(capture: Capture, grab_s: float = 5.0) -> GuardedCapture:
    return GuardedCapture(lambda: capture, open_s=5.0, grab_s=grab_s)  # type: ignore[arg-type,return-value]


def test_it_passes_on() -> None:
    capture = Capture()
    capture.go.set()
    guarded = guard(capture)
    assert guarded.isOpened()
    assert guarded.grab()
    assert guarded.retrieve() == (True, "image")
    assert guarded.get(5) == 25.0
    guarded.release()
    assert capture.released_in == ["capture-gstreamer"]


def test_a_grab_that_hangs_is_given_up_and_released_when_it_returns() -> None:
    capture = Capture()
    guarded = guard(capture, grab_s=0.05)
    began = time.monotonic()
    assert not guarded.grab()
    assert not guarded.grab()
    guarded.release()
    assert time.monotonic() - began < 2.0
    assert capture.released_in == []
    capture.go.set()
    guarded._thread.join(5.0)
    assert capture.released_in == ["capture-gstreamer"]


def test_what_does_not_open() -> None:
    guarded = guard(Capture(opened=False))
    assert not guarded.isOpened()
    assert not guarded.grab()
    guarded.release()


def test_an_open_that_hangs() -> None:
    go = threading.Event()

    def connect() -> Capture:
        go.wait(10.0)
        return Capture()

    guarded = GuardedCapture(connect, open_s=0.05, grab_s=1.0)  # type: ignore[arg-type]
    assert not guarded.isOpened()
    guarded.release()
    go.set()
    guarded._thread.join(5.0)
    assert not guarded._thread.is_alive()
