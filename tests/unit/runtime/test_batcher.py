"""The batcher against a scripted backend: order, losses, deaths, and knowing when all is done."""

import threading
import time
from collections import deque
from typing import Deque, List, Optional, Sequence

import numpy as np
import pytest

from edgecount.errors import EngineError
from edgecount.records import Detections, Frame, FrameInfo, Tracked, Tracks
from edgecount.runtime.batcher import Batcher


def frame(index: int) -> Frame:
    info = FrameInfo("door", index, 0.0, index / 10, 4, 4)
    return Frame(info, np.zeros((4, 4, 3), np.uint8))


class Frames:
    """Hands out the given frames, then nothing."""

    def __init__(self, count: int) -> None:
        self._left = deque(frame(i) for i in range(count))
        self.taken = 0

    def take_batch(self, most: int, timeout: float, wait: float) -> List[Frame]:
        if not self._left:
            time.sleep(min(timeout, 0.01))
            return []
        self.taken += 1
        return [self._left.popleft()]


class ScriptedBackend:
    """Fails the batches whose index is in ``bad``; raises anything else that ``bug`` is."""

    name, precision, depth, max_batch = "scripted", "fp32", 2, 1

    def __init__(self, bad: Sequence[int] = (), bug: Optional[Exception] = None) -> None:
        self._bad = set(bad)
        self._bug = bug
        self._batches: Deque[List[Frame]] = deque()
        self._room = threading.Semaphore(self.depth)

    def submit(self, batch: Sequence[Frame]) -> None:
        self._room.acquire(timeout=0.5)
        self._batches.append(list(batch))

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        if self._bug:
            raise self._bug
        if not self._batches:
            time.sleep(min(timeout, 0.005))
            return None
        batch = self._batches.popleft()
        self._room.release()
        if batch[0].info.index in self._bad:
            raise EngineError("scripted")
        return [Tracked(f.info, Tracks.empty(), Detections.empty()) for f in batch]

    def reset(self, camera: str) -> None:
        pass

    def close(self) -> None:
        pass


class Hooks:
    def __init__(self) -> None:
        self.seen: List[int] = []
        self.done: List[int] = []
        self.lost_frames = 0
        self.death: Optional[BaseException] = None

    def submitted(self, frame: Frame) -> None:
        self.seen.append(frame.info.index)

    def tracked(self, result: Tracked, latency_s: float) -> None:
        assert latency_s >= 0
        self.done.append(result.info.index)

    def lost(self, frames: int, error: EngineError) -> None:
        self.lost_frames += frames

    def died(self, error: BaseException) -> None:
        self.death = error


def run(frames: Frames, backend: ScriptedBackend, hooks: Hooks) -> Batcher:
    beats = []
    batcher = Batcher(
        frames,
        backend,
        hooks,
        dispatch_beat=lambda: beats.append("dispatch"),
        collect_beat=lambda: beats.append("collect"),
    )
    batcher.start()
    deadline = time.monotonic() + 5
    while (frames._left or batcher.in_flight()) and hooks.death is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert batcher.stop(2.0)
    assert {"dispatch", "collect"} <= set(beats)
    return batcher


def test_results_come_in_order_and_none_is_missing():
    hooks = Hooks()
    batcher = run(Frames(50), ScriptedBackend(), hooks)
    assert hooks.seen == hooks.done == list(range(50))
    assert batcher.in_flight() == 0


def test_a_failed_batch_is_lost_alone():
    hooks = Hooks()
    run(Frames(20), ScriptedBackend(bad=[3, 11]), hooks)
    assert hooks.done == [i for i in range(20) if i not in (3, 11)]
    assert hooks.lost_frames == 2
    assert hooks.death is None


def test_a_backend_that_only_fails_is_dead():
    hooks = Hooks()
    run(Frames(20), ScriptedBackend(bad=range(20)), hooks)
    assert isinstance(hooks.death, EngineError)


@pytest.mark.parametrize("bug", [ValueError("bug"), MemoryError()])
def test_a_defect_in_a_stage_is_told_and_not_swallowed(bug):
    hooks = Hooks()
    run(Frames(5), ScriptedBackend(bug=bug), hooks)
    assert hooks.death is bug
