"""The thread that keeps one camera's frames coming."""

import contextlib
import enum
import threading
from typing import Callable, Iterator, List, Optional

import structlog

from edgecount.capture._backoff import Backoff
from edgecount.capture._clock import Clock
from edgecount.capture._slot import Slot
from edgecount.capture.base import Source
from edgecount.errors import SourceError
from edgecount.records import Frame

_log = structlog.get_logger(__name__)

THREAD_PREFIX = "capture-"

# Waits are cut into slices of this length, seconds, and each slice beats.
_SLICE_S = 0.5
# A camera that delivered for this long, seconds, is well: its next failure is the first.
_WELL_S = 5.0


class State(enum.Enum):
    """How a camera is doing."""

    CONNECTING = "connecting"  # not one frame yet
    ONLINE = "online"
    STALE = "stale"  # connected, and no frame for stale_s
    OFFLINE = "offline"  # the connection is lost, and tried again
    ENDED = "ended"  # a file that was read to its end, or a reader that was stopped
    FAILED = "failed"  # an error that trying again cannot mend


class Reader:
    """Reads one source in a thread of its own: open, read, deliver, and again after a loss.

    A live source delivers into a slot of one frame, where the newest wins; a file waits
    for room, so that nothing is dropped. Everything but ``start`` and ``stop`` may be read
    from any thread at any time; no property blocks.

    Args:
        name: Name of the camera, for messages.
        source: The source; the reader's thread owns it from ``start`` on.
        slot: Where frames go: ``depth`` None for a live source, a number for a file.
        stale_s: A live camera without a frame for this long is stale, seconds.
        hang_s: A call into the source that lasts longer is reported by ``hung``, seconds.
        beat: Called in each turn of the loop, also while the camera is away, at least
            every half second unless a call into the source hangs.
        timer: Told how long each frame of a live camera took from its arrival until it
            was a picture, seconds.
        on_change: Called from the reader's thread when the camera's connection changes
            or ends; must be quick.
        backoff: Waits between attempts.
        clock: The clocks to live by.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        slot: Slot,
        *,
        stale_s: float = 3.0,
        hang_s: float = 20.0,
        beat: Callable[[], None] = lambda: None,
        timer: Callable[[float], None] = lambda _seconds: None,
        on_change: Callable[[], None] = lambda: None,
        backoff: Optional[Backoff] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        self._name = name
        self._source = source
        self._slot = slot
        self._stale_s = stale_s
        self._hang_s = hang_s
        self._beat = beat
        self._timer = timer
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._clock = clock or Clock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_PREFIX + name, daemon=True)
        self._state = State.CONNECTING
        self._error = ""
        self._opens = 0
        self._captured = 0
        self._last_frame: Optional[float] = None
        self._well_since: Optional[float] = None
        self._in_call_since: Optional[float] = None

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting; ``stop`` must follow."""
        self._stopping.set()
        self._source.interrupt()
        self._slot.clear()  # wakes a reader that waits for room

    def stop(self, timeout: float = 1.0) -> bool:
        """Stop reading, and wait at most ``timeout`` seconds for it.

        Returns whether the thread ended. One that hangs in the driver is left behind: it
        is a daemon, delivers nothing more, and closes its source should it ever wake.
        """
        self.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("camera_hung", camera=self._name)
            return False
        return True

    @property
    def name(self) -> str:
        """Name of the camera."""
        return self._name

    @property
    def source(self) -> Source:
        """The source: ``live``, ``fps`` and ``label`` may be read."""
        return self._source

    @property
    def state(self) -> State:
        """How the camera is doing now; grows stale by itself even while a read hangs."""
        state = self._state
        last = self._last_frame
        if state is State.ONLINE and self._source.live and last is not None:
            return State.STALE if self._clock.monotonic() - last > self._stale_s else state
        return state

    @property
    def finished(self) -> bool:
        """Whether no frame will come any more and all that came were taken."""
        return self._state in (State.ENDED, State.FAILED) and not len(self._slot)

    @property
    def error(self) -> str:
        """The last error's text, without passwords; empty while all is well."""
        return self._error

    @property
    def captured(self) -> int:
        """Frames read from the source."""
        return self._captured

    @property
    def skipped(self) -> int:
        """Frames that ``max_fps`` left out."""
        return self._source.skipped

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before anyone took them."""
        return self._slot.dropped

    @property
    def reconnects(self) -> int:
        """How often the source was opened again after it had been open."""
        return max(0, self._opens - 1)

    @property
    def last_frame(self) -> Optional[float]:
        """When the newest frame came, monotonic seconds; None before the first."""
        return self._last_frame

    @property
    def hung(self) -> bool:
        """Whether a call into the source has lasted longer than ``hang_s``."""
        since = self._in_call_since
        return since is not None and self._clock.monotonic() - since > self._hang_s

    def _run(self) -> None:
        outcome = State.FAILED
        try:
            outcome = self._read_to_the_end()
        except Exception as error:
            self._error = f"unexpected {type(error).__name__}; see the log"
            raise
        finally:
            self._close()
            self._change(outcome)

    def _read_to_the_end(self) -> State:
        """Open and read, again and again, until there is no more to come; the last state."""
        while not self._stopping.is_set():
            self._beat()
            try:
                self._open()
                if self._stream():
                    break
            except SourceError as error:
                self._note_error(error)
                if not error.retry:
                    return State.FAILED
                self._wait_out(error)
        return State.ENDED

    def _open(self) -> None:
        with self._calling():
            self._source.open()
        self._opens += 1
        self._well_since = None

    def _close(self) -> None:
        with self._calling():
            self._source.close()

    def _stream(self) -> bool:
        """Deliver frames until the end (true) or until the reader is stopped (false)."""
        while not self._stopping.is_set():
            self._beat()
            with self._calling():
                frame = self._source.read()
            if self._stopping.is_set():
                return False
            if frame is None:
                return True
            self._note_frame()
            if self._source.live:  # how long a file's read takes is a matter of its pace
                self._timer(max(0.0, self._clock.monotonic() - frame.info.time))
            self._deliver(frame)
        return False

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Around every call into the source that may hang."""
        self._in_call_since = self._clock.monotonic()
        try:
            yield
        finally:
            self._in_call_since = None

    def _note_frame(self) -> None:
        now = self._clock.monotonic()
        self._last_frame = now
        self._captured += 1
        if self._state is not State.ONLINE:
            self._error = ""
            _log.info("camera_online", camera=self._name, reconnects=self.reconnects)
            self._change(State.ONLINE)
        if self._well_since is None:
            self._well_since = now
        elif now - self._well_since > _WELL_S:
            self._backoff.reset()

    def _deliver(self, frame: Frame) -> None:
        while not self._slot.put(frame, _SLICE_S) and not self._stopping.is_set():
            self._beat()

    def _wait_out(self, error: SourceError) -> None:
        """Let go of a source that is away, and wait before the next attempt."""
        self._close()
        if self._state is State.ONLINE:
            self._change(State.OFFLINE)
        self._pause(max(self._backoff.next(), error.retry_after))

    def _note_error(self, error: SourceError) -> None:
        text = str(error)
        if text != self._error:
            # Said once, and not with every attempt through a night without the camera.
            _log.warning("camera_away", camera=self._name, error=text, retry=error.retry)
        self._error = text

    def _pause(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        left = seconds
        while left > 0.0 and not self._clock.wait(self._stopping, min(left, _SLICE_S)):
            self._beat()
            left = end - self._clock.monotonic()

    def _change(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._on_change()


def left_behind() -> List[str]:
    """Names of capture threads that are still alive, once all readers were stopped.

    They hang inside OpenCV. When the interpreter shuts down under them, their C++ frames
    abort the process; so end a process that has some with ``os._exit``.
    """
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)]
