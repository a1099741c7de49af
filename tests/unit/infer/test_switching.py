import threading
import time
from collections import deque

import numpy as np
import pytest

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.switching import SwitchingBackend
from edgecount.records import Detections, Frame, FrameInfo, Tracked, Tracks

CAMERAS = ("door", "hall")


def frame(index, camera="door"):
    info = FrameInfo(camera, index, float(index), index / 25, 64, 48)
    return Frame(info, np.zeros((48, 64, 3), np.uint8))


class Numbered:
    """A backend whose tracker sees one person per camera and calls her ``first``."""

    def __init__(self, name, first=1, depth=2, max_batch=2):
        self.name, self.precision, self.depth, self.max_batch = name, "fp32", depth, max_batch
        self.first = first
        self.fail_submit = self.fail_collect = None
        self.closed = 0
        self.resets = []
        self.held = deque()
        self.seen = []
        self._free = threading.Semaphore(depth)
        self._ready = threading.Condition()

    def submit(self, batch):
        if not self._free.acquire(timeout=5.0):
            raise AssertionError(f"{self.name} is stuck")
        if self.closed:
            raise EngineError(f"{self.name} is closed")
        if self.fail_submit:
            self._free.release()
            raise self.fail_submit
        with self._ready:
            self.held.append(batch)
            self._ready.notify()

    def collect(self, timeout):
        with self._ready:
            if not self.held:
                self._ready.wait(timeout)
            if not self.held:
                return None
            batch = self.held.popleft()
        self._free.release()
        if self.fail_collect:
            raise self.fail_collect
        self.seen += [f.info.index for f in batch]
        return [Tracked(f.info, self._tracks(f), Detections.empty()) for f in batch]

    def reset(self, camera):
        self.resets.append(camera)

    def close(self):
        self.closed += 1
        self._free.release()

    def _tracks(self, frame):
        one = np.ones(1, np.float32)
        box = np.array([[10, 10, 30, 30]], np.float32)
        ids = np.array([self.first], np.int64)
        return Tracks(ids, box, one, np.zeros(1, np.int32), np.ones(1, np.bool_), ids[:0])


def drain(backend, count):
    results = []
    while len(results) < count:
        batch = backend.collect(1.0)
        assert batch is not None, f"{count - len(results)} frames are lost"
        results += batch
    return results


def test_the_first_backend_is_passed_through():
    first = Numbered("cpu", first=7)
    backend = SwitchingBackend(first)
    assert (backend.name, backend.precision, backend.depth, backend.max_batch) == (
        "cpu",
        "fp32",
        2,
        2,
    )
    assert backend.collect(0.0) is None
    backend.submit([frame(0), frame(0, "hall")])
    assert [(r.info.camera, r.tracks.ids.tolist()) for r in drain(backend, 2)] == [
        ("door", [7]),
        ("hall", [7]),
    ]
    backend.reset("hall")
    backend.close()
    assert first.resets == ["hall"]
    assert first.closed == 1


def test_frames_under_way_come_out_of_the_old_backend_first_and_ids_stay():
    old, new = Numbered("cpu", first=7), Numbered("trt", first=1)
    backend = SwitchingBackend(old, probation=2)
    backend.submit([frame(0)])
    backend.submit([frame(1)])
    backend.offer(new)
    assert backend.name == "cpu"
    backend.submit([frame(2)])
    assert backend.name == "trt"
    results = drain(backend, 3)
    assert [r.info.index for r in results] == [0, 1, 2]
    assert [r.tracks.ids.tolist() for r in results] == [[7]] * 3
    assert (old.seen, new.seen) == ([0, 1], [2])
    assert old.closed == 0
    backend.submit([frame(3)])
    assert not backend.settled
    drain(backend, 1)
    assert backend.settled
    assert old.closed == 1


def test_a_new_backend_that_fails_to_collect_gives_its_frames_back():
    old, new = Numbered("cpu", first=7), Numbered("trt", first=1)
    backend = SwitchingBackend(old)
    backend.submit([frame(0)])
    drain(backend, 1)
    backend.offer(new)
    backend.submit([frame(1)])
    backend.submit([frame(2)])
    new.fail_collect = EngineError("the engine computes nonsense")
    results = drain(backend, 2)
    assert [r.info.index for r in results] == [1, 2]
    assert [r.tracks.ids.tolist() for r in results] == [[7]] * 2
    assert backend.name == "cpu"
    assert new.closed == 1
    assert backend.settled
    backend.submit([frame(3)])
    assert drain(backend, 1)[0].tracks.ids.tolist() == [7]


def test_a_new_backend_that_takes_nothing_is_left_at_once():
    old, new = Numbered("cpu"), Numbered("trt")
    backend = SwitchingBackend(old)
    backend.submit([frame(0)])
    backend.offer(new)
    new.fail_submit = EngineError("no memory")
    backend.submit([frame(1)])
    assert [r.info.index for r in drain(backend, 2)] == [0, 1]
    assert old.seen == [0, 1]


def test_more_stranded_frames_than_the_old_backend_takes_at_once_keep_their_order():
    old, new = Numbered("cpu", depth=1), Numbered("trt", depth=4)
    backend = SwitchingBackend(old)
    backend.offer(new)
    for index in range(4):
        backend.submit([frame(index)])
    new.fail_collect = EngineError("failed")
    first = drain(backend, 1)
    # This one waits behind those: it does not overtake them, and the camera is held back.
    waiting = threading.Thread(target=backend.submit, args=([frame(4)],), daemon=True)
    waiting.start()
    results = first + drain(backend, 4)
    waiting.join(5.0)
    assert not waiting.is_alive()
    assert [r.info.index for r in results] == [0, 1, 2, 3, 4]
    assert old.seen == [0, 1, 2, 3, 4]


def test_after_probation_a_failure_is_the_callers():
    old, new = Numbered("cpu"), Numbered("trt")
    backend = SwitchingBackend(old, probation=1)
    backend.offer(new)
    backend.submit([frame(0)])
    drain(backend, 1)
    assert old.closed == 1
    new.fail_collect = EngineError("failed")
    backend.submit([frame(1)])
    with pytest.raises(EngineError, match="failed"):
        backend.collect(1.0)
    assert backend.collect(0.0) is None
    new.fail_submit = EngineError("refused")
    with pytest.raises(EngineError, match="refused"):
        backend.submit([frame(2)])
    assert backend.collect(0.0) is None


def test_a_lost_device_is_not_hidden():
    backend = SwitchingBackend(Numbered("cpu"))
    new = Numbered("trt")
    backend.offer(new)
    new.fail_submit = DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        backend.submit([frame(0)])


def test_a_batch_that_is_too_large_for_the_new_backend_still_goes_to_the_old_one():
    old, new = Numbered("cpu", max_batch=2), Numbered("trt", max_batch=1)
    backend = SwitchingBackend(old)
    backend.offer(new)
    backend.submit([frame(0), frame(0, "hall")])
    assert backend.name == "cpu"
    backend.submit([frame(1)])
    assert backend.name == "trt"


def test_an_offer_replaces_one_that_nobody_took_yet_and_is_closed_with_the_rest():
    old, late, later = Numbered("cpu"), Numbered("a"), Numbered("b")
    backend = SwitchingBackend(old)
    backend.offer(late)
    backend.offer(later)
    assert late.closed == 1
    backend.close()
    assert (old.closed, later.closed) == (1, 1)
    after = Numbered("c")
    with pytest.raises(EngineError, match="closed"):
        backend.offer(after)
    assert after.closed == 1


@pytest.mark.parametrize("failing", [None, "submit", "collect"])
def test_no_frame_is_lost_or_turned_around_with_two_threads(failing):
    backend = SwitchingBackend(Numbered("cpu", first=7), probation=20)
    count, got = 300, []

    def collect():
        while len(got) < count:
            got.extend(backend.collect(0.5) or [])

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    for index in range(count):
        if index == 100:
            new = Numbered("trt", depth=3)
            backend.offer(new)
        if index == 110 and failing:
            setattr(new, f"fail_{failing}", EngineError("failed"))
        backend.submit([frame(index)])
        if index % 50 == 0:
            time.sleep(0.002)
    thread.join(10.0)
    assert [r.info.index for r in got] == list(range(count))
    assert {tuple(r.tracks.ids.tolist()) for r in got} == {(7,)}
    assert backend.name == ("cpu" if failing else "trt")
