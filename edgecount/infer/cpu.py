"""The CPU backend: network, NMS and tracker on the processor's cores.

Pictures are detected side by side, one worker thread each (the network's runtime and OpenCV
work without the interpreter's lock); so are the tiles of a frame. The tracker of each
camera runs in ``collect``, in the order of submission.
"""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from time import perf_counter
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

import cv2

from edgecount.config import TileSettings
from edgecount.errors import EngineError
from edgecount.infer.base import TileDetector
from edgecount.infer.heads.base import Candidates
from edgecount.infer.tiles import cut
from edgecount.records import Detections, Frame, FrameInfo, StageTimer, Tracked
from edgecount.track.base import Tracker

DetectionFilter = Callable[[FrameInfo, Detections], Detections]


class _Pending(NamedTuple):
    """A frame under way: whole, or in tiles that are seen side by side."""

    info: FrameInfo
    whole: Optional["Future[Detections]"]
    tiles: Sequence["Future[Candidates]"] = ()

    def futures(self) -> List["Future[Any]"]:
        return [*self.tiles] if self.whole is None else [self.whole]


class CpuBackend:
    """Detector and one tracker per camera; see :class:`~.base.Backend`."""

    max_batch = 1  # pictures run side by side, each on its own core

    def __init__(
        self,
        detector: TileDetector,
        trackers: Dict[str, Tracker],
        *,
        workers: int,
        precision: str = "fp32",
        runtime: str = "onnxruntime",
        ignore: Optional[DetectionFilter] = None,
        tiles: Optional[Mapping[str, TileSettings]] = None,
        timer: Optional[StageTimer] = None,
    ) -> None:
        """Start the workers.

        Args:
            detector: Shared by all workers.
            trackers: One per camera, by name.
            workers: Pictures detected at the same time.
            precision: Of the detector's network.
            runtime: What runs it.
            ignore: Drops detections that must not be tracked (ignore masks).
            tiles: How the frames of cameras that are tiled are cut, by the camera's name.
            timer: Called with stage name and seconds.
        """
        self.name = f"{runtime}-cpu"
        self._tiles = tiles or {}
        self.precision = precision
        self._detector = detector
        self._trackers = trackers
        self._ignore = ignore or (lambda _info, detections: detections)
        self._timer = timer or (lambda _stage, _seconds: None)
        self._last_time: Dict[str, float] = {}
        # Process-wide, and meant so: pictures are processed side by side, and OpenCV's own
        # threads would only take the cores from the other workers.
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        # One in waiting, so that no worker idles; more would only age in a live camera's queue.
        self.depth = workers + 1
        self._free = threading.Semaphore(self.depth)
        # No SimpleQueue: Python 3.8's may wait for ever when the time of a get runs out.
        self._in_flight: queue.Queue[List[_Pending]] = queue.Queue()
        self._oldest: Optional[List[_Pending]] = None
        self._closed = False

    def submit(self, batch: Sequence[Frame]) -> None:
        self._free.acquire()
        try:
            pending = [self._begin(f) for f in batch]
        except RuntimeError as error:  # the pool takes no more
            self._free.release()
            raise EngineError("the CPU backend is closed") from error
        self._in_flight.put(pending)

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        deadline = perf_counter() + timeout
        batch = self._next_batch(timeout)
        if batch is None:
            return None
        futures = [future for pending in batch for future in pending.futures()]
        if wait(futures, max(0.0, deadline - perf_counter())).not_done:
            return None
        self._oldest = None
        self._free.release()
        found = [self._found(pending) for pending in batch]
        return [self._track(pending.info, d) for pending, d in zip(batch, found)]

    def reset(self, camera: str) -> None:
        self._trackers[camera].reset()
        self._last_time.pop(camera, None)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        if not self._closed:
            self._closed = True
            self._free.release()  # a submit that waits finds the pool closed

    def _next_batch(self, timeout: float) -> Optional[List[_Pending]]:
        # A batch whose results were not ready in time is kept for the next call.
        if self._oldest is None:
            try:
                self._oldest = self._in_flight.get(timeout=timeout)
            except queue.Empty:
                return None
        return self._oldest

    def _begin(self, frame: Frame) -> _Pending:
        info, settings = frame.info, self._tiles.get(frame.info.camera)
        if settings is None:
            return _Pending(info, self._pool.submit(self._detect, frame))
        image = frame.image  # once: a frame on a device is copied at every call
        tiles = cut(info.width, info.height, settings)
        return _Pending(
            info, None, [self._pool.submit(self._detector.look, image, t) for t in tiles]
        )

    def _found(self, pending: _Pending) -> Detections:
        if pending.whole is not None:
            return pending.whole.result()
        info, parts = pending.info, [future.result() for future in pending.tiles]
        started = perf_counter()
        merged = self._detector.merge(info.width, info.height, parts)
        self._timer("post", perf_counter() - started)
        return merged

    def _detect(self, frame: Frame) -> Detections:
        return self._detector.detect([frame.image])[0]

    def _track(self, info: FrameInfo, detections: Detections) -> Tracked:
        started = perf_counter()
        kept = self._ignore(info, detections)
        dt = info.time - self._last_time.get(info.camera, info.time)
        self._last_time[info.camera] = info.time
        tracks = self._trackers[info.camera].update(kept, max(dt, 0.0))
        self._timer("track", perf_counter() - started)
        return Tracked(info, tracks, kept)
