"""Many cameras, one backend: one thread hands frames over, one takes results back."""

import threading
from collections import deque
from time import monotonic
from typing import Callable, Deque, List, Tuple

import structlog
from typing_extensions import Protocol

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.base import Backend
from edgecount.records import Frame, Tracked

_TURN_S = 0.25
# A single broken batch is lost and said; a device that fails this often in a row is gone.
_FAILURES_IN_A_ROW = 8

_log = structlog.get_logger(__name__)


class FrameGroup(Protocol):
    """What the batcher needs of :class:`~edgecount.capture._slot.SlotGroup`."""

    @property
    def taken(self) -> int: ...

    def take_batch(self, most: int, timeout: float, wait: float) -> List[Frame]: ...


class BatcherHooks(Protocol):
    """What happens to frames and results. Called from the batcher's two threads."""

    def submitted(self, frame: Frame) -> None:
        """A frame goes to the backend (dispatching thread)."""
        ...

    def tracked(self, result: Tracked, latency_s: float) -> None:
        """A frame's tracks are there (collecting thread)."""
        ...

    def lost(self, frames: int, error: EngineError) -> None:
        """A batch failed (either thread)."""
        ...

    def died(self, error: BaseException) -> None:
        """The backend is gone, or a stage has a bug: nothing will be counted any more."""
        ...


class Batcher:
    """Moves frames from the cameras' slots through the backend."""

    def __init__(
        self,
        frames: FrameGroup,
        backend: Backend,
        hooks: BatcherHooks,
        *,
        dispatch_beat: Callable[[], None],
        collect_beat: Callable[[], None],
        max_wait_s: float = 0.0,
    ) -> None:
        """Prepare the threads; ``start`` starts them.

        Args:
            frames: Where frames wait.
            backend: What turns them into tracks; not owned.
            hooks: Told what happens.
            dispatch_beat: Called at every turn of the dispatching loop.
            collect_beat: Likewise of the collecting loop.
            max_wait_s: Longest that a frame waits for others to share a batch with.
        """
        self._frames = frames
        self._backend = backend
        self._hooks = hooks
        self._max_wait_s = max_wait_s
        self._beats = (dispatch_beat, collect_beat)
        self._stop = threading.Event()
        self._submitted: Deque[Tuple[float, int]] = deque()
        self._failures = 0
        self._done = 0
        self._threads = [
            threading.Thread(target=self._guard, args=(self._dispatch,), name="dispatch"),
            threading.Thread(target=self._guard, args=(self._collect,), name="collect"),
        ]
        for thread in self._threads:
            thread.daemon = True

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> bool:
        """Stop both threads; results under way are dropped. False when one hangs."""
        self._stop.set()
        deadline = monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))
        return not any(t.is_alive() for t in self._threads)

    def in_flight(self) -> int:
        """Frames that were taken from the slots and are not counted or lost yet."""
        return self._frames.taken - self._done

    def _guard(self, loop: Callable[[], None]) -> None:
        # A thread that dies silently would leave a service that looks alive and counts nothing.
        try:
            loop()
        except Exception as error:
            _log.exception("stage_died", stage=threading.current_thread().name)
            self._hooks.died(error)

    def _dispatch(self) -> None:
        while not self._stop.is_set():
            self._beats[0]()
            most = self._backend.max_batch
            wait = self._max_wait_s if most > 1 else 0.0
            batch = self._frames.take_batch(most, _TURN_S, wait)
            if batch:
                self._submit(batch)

    def _submit(self, batch: List[Frame]) -> None:
        for frame in batch:
            self._hooks.submitted(frame)
        self._submitted.append((monotonic(), len(batch)))
        try:
            self._backend.submit(batch)
        except EngineError as error:
            self._failed(self._submitted.pop()[1], error)

    def _collect(self) -> None:
        while not self._stop.is_set():
            self._beats[1]()
            try:
                results = self._backend.collect(_TURN_S)
            except EngineError as error:
                self._failed(self._submitted.popleft()[1], error)
                continue
            if results is not None:
                self._deliver(results)

    def _deliver(self, results: List[Tracked]) -> None:
        self._failures = 0
        latency = monotonic() - self._submitted[0][0]
        for result in results:
            self._hooks.tracked(result, latency)
        # Last, so that "nothing in flight" means that all of it has been counted.
        self._done += self._submitted.popleft()[1]

    def _failed(self, frames: int, error: EngineError) -> None:
        self._done += frames
        if self._stop.is_set():
            return  # the backend was closed under a frame that nobody waits for any more
        self._failures += 1
        self._hooks.lost(frames, error)
        if isinstance(error, DeviceLostError) or self._failures >= _FAILURES_IN_A_ROW:
            self._stop.set()
            self._hooks.died(error)
