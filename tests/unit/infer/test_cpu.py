import threading
import time
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from edgecount.config import TileSettings
from edgecount.errors import EngineError
from edgecount.infer.cpu import CpuBackend
from edgecount.infer.heads.base import Candidates
from edgecount.infer.tiles import Tile, cut, merge
from edgecount.records import Detections, Frame, FrameInfo, Tracked, Tracks

WAIT = 10.0


def frame(index: int, camera: str = "door", at: Optional[float] = None) -> Frame:
    """Its first pixel is its index, so that a fake detector knows it."""
    image = np.full((4, 4, 3), index, np.uint8)
    stream_time = index / 10 if at is None else at
    return Frame(FrameInfo(camera, index, 1000.0 + stream_time, stream_time, 4, 4), image)


def detections(mark: float) -> Detections:
    return Detections(
        np.array([[0, 0, mark, 1]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    )


class FakeDetector:
    """Marks its detections with the frame's index; sleeps, fails or waits as told."""

    def __init__(self, sleeps: Sequence[float] = (), fails: Sequence[int] = ()) -> None:
        self._sleeps = dict(enumerate(sleeps))
        self._fails = fails
        self.finished: List[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def detect(self, images: Sequence[np.ndarray]) -> List[Detections]:
        index = int(images[0][0, 0, 0])
        time.sleep(self._sleeps.get(index, 0.0))
        assert self.gate.wait(WAIT)
        self.finished.append(index)
        if index in self._fails:
            raise EngineError(f"frame {index} failed")
        return [detections(float(index))]


class TileDetector(FakeDetector):
    """One candidate for each tile, marked with its place; remembers threads and merged sizes."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        super().__init__(fails=fails)
        self.merged: List[Tuple[int, int]] = []
        self.together = threading.Barrier(4)
        self.alone = False

    def look(self, image: np.ndarray, tile: Tile) -> Candidates:
        if not self.alone:
            self.together.wait(WAIT)  # passes only if four tiles are looked at at once
        if int(image[0, 0, 0]) in self._fails and tile.x and tile.y:
            raise EngineError("a tile failed")
        corner = np.array([[tile.x, tile.y, tile.x + 1, tile.y + 1]], np.float32)
        return Candidates(corner, np.ones(1, np.float32), np.zeros(1, np.int32))

    def merge(self, width: int, height: int, parts: Sequence[Candidates]) -> Detections:
        self.merged.append((width, height))
        return Detections(*merge(parts))


class FakeTracker:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: List[Tuple[Optional[int], float]] = []
        self.resets = 0

    def update(self, found: Detections, dt: float) -> Tracks:
        self.seen.append((int(found.boxes[0, 2]) if len(found) else None, dt))
        return Tracks.empty()

    def reset(self) -> None:
        self.resets += 1


def backend(
    detector: FakeDetector,
    trackers: Optional[Dict[str, FakeTracker]] = None,
    workers: int = 2,
    **more,
) -> CpuBackend:
    return CpuBackend(detector, trackers or {"door": FakeTracker()}, workers=workers, **more)


def collect(of: CpuBackend) -> List[Tracked]:
    found = of.collect(WAIT)
    assert found is not None
    return found


def test_results_come_in_the_order_of_submission() -> None:
    detector, tracker = FakeDetector(sleeps=[0.1, 0.0, 0.05, 0.0]), FakeTracker()
    under_test = backend(detector, {"door": tracker}, workers=4)
    for i in range(4):
        under_test.submit([frame(i)])
    indices = [collect(under_test)[0].info.index for _ in range(4)]
    under_test.close()
    assert detector.finished != [0, 1, 2, 3]
    assert indices == [0, 1, 2, 3]
    assert [index for index, _ in tracker.seen] == [0, 1, 2, 3]


def test_a_batch_holds_the_frames_of_several_cameras() -> None:
    trackers = {"door": FakeTracker(), "gate": FakeTracker()}
    under_test = backend(FakeDetector(), trackers)
    under_test.submit([frame(1, "door"), frame(2, "gate")])
    results = collect(under_test)
    under_test.close()
    assert [(r.info.camera, r.detections.boxes[0, 2]) for r in results] == [
        ("door", 1),
        ("gate", 2),
    ]
    assert (trackers["door"].seen[0][0], trackers["gate"].seen[0][0]) == (1, 2)


@pytest.mark.parametrize("failing", [[0], [1], [0, 1]])
def test_a_failed_batch_is_gone_and_later_ones_are_not(failing: List[int]) -> None:
    trackers = {"door": FakeTracker(), "gate": FakeTracker()}
    under_test = backend(FakeDetector(fails=failing), trackers)
    under_test.submit([frame(0, "door"), frame(1, "gate")])
    under_test.submit([frame(2, "door")])
    with pytest.raises(EngineError, match="failed"):
        under_test.collect(WAIT)
    assert collect(under_test)[0].info.index == 2
    under_test.close()
    assert [index for index, _ in trackers["door"].seen] == [2]


def test_an_unforeseen_error_is_raised_once_only() -> None:
    class Broken(FakeDetector):
        def detect(self, images: Sequence[np.ndarray]) -> List[Detections]:
            if images[0][0, 0, 0] == 0:
                raise ZeroDivisionError
            return super().detect(images)

    under_test = backend(Broken())
    under_test.submit([frame(0)])
    under_test.submit([frame(1)])
    with pytest.raises(ZeroDivisionError):
        under_test.collect(WAIT)
    assert collect(under_test)[0].info.index == 1
    under_test.close()


def test_a_batch_that_is_late_is_kept() -> None:
    detector = FakeDetector()
    detector.gate.clear()
    under_test = backend(detector)
    under_test.submit([frame(0)])
    assert under_test.collect(0.01) is None
    assert under_test.collect(0.0) is None
    detector.gate.set()
    assert collect(under_test)[0].info.index == 0
    assert under_test.collect(0.01) is None
    under_test.close()


def test_an_empty_backend_waits_no_longer_than_told() -> None:
    under_test = backend(FakeDetector())
    started = time.perf_counter()
    assert under_test.collect(0.05) is None
    assert 0.04 <= time.perf_counter() - started < 2.0
    under_test.close()


def test_submit_waits_while_depth_batches_are_in_flight() -> None:
    detector = FakeDetector()
    under_test = backend(detector, workers=1)
    for i in range(under_test.depth):
        under_test.submit([frame(i)])
    last = threading.Thread(target=under_test.submit, args=([frame(under_test.depth)],))
    last.start()
    last.join(0.1)
    assert last.is_alive()
    collect(under_test)
    last.join(WAIT)
    assert not last.is_alive()
    under_test.close()


def test_close_ends_a_submit_that_waits() -> None:
    under_test = backend(FakeDetector(), workers=1)
    for i in range(under_test.depth):
        under_test.submit([frame(i)])
    caught: List[EngineError] = []

    def submit() -> None:
        try:
            under_test.submit([frame(9)])
        except EngineError as error:
            caught.append(error)

    last = threading.Thread(target=submit)
    last.start()
    time.sleep(0.05)
    under_test.close()
    last.join(WAIT)
    assert len(caught) == 1


def test_each_camera_has_its_own_time_dropped_frames_included() -> None:
    trackers = {"door": FakeTracker(), "gate": FakeTracker()}
    under_test = backend(FakeDetector(), trackers)
    times = {"door": [5.0, 5.1, 5.5], "gate": [100.0, 100.04, 100.04]}
    for i in range(3):
        under_test.submit([frame(i, camera, at[i]) for camera, at in times.items()])
        collect(under_test)
    under_test.close()
    assert [dt for _, dt in trackers["door"].seen] == pytest.approx([0.0, 0.1, 0.4])
    assert [dt for _, dt in trackers["gate"].seen] == pytest.approx([0.0, 0.04, 0.0])


def test_a_stream_that_starts_again_has_no_negative_time() -> None:
    tracker = FakeTracker()
    under_test = backend(FakeDetector(), {"door": tracker})
    for i, at in enumerate([7.0, 0.0, 0.1]):
        under_test.submit([frame(i, at=at)])
        collect(under_test)
    under_test.close()
    assert [dt for _, dt in tracker.seen] == pytest.approx([0.0, 0.0, 0.1])


def test_time_goes_on_after_a_lost_batch() -> None:
    tracker = FakeTracker()
    under_test = backend(FakeDetector(fails=[1]), {"door": tracker})
    for i in range(3):
        under_test.submit([frame(i)])
    collect(under_test)
    with pytest.raises(EngineError):
        under_test.collect(WAIT)
    collect(under_test)
    under_test.close()
    assert [dt for _, dt in tracker.seen] == pytest.approx([0.0, 0.2])


def test_reset_forgets_tracks_and_time_of_one_camera() -> None:
    trackers = {"door": FakeTracker(), "gate": FakeTracker()}
    under_test = backend(FakeDetector(), trackers)
    for i in range(2):
        under_test.submit([frame(i, "door"), frame(i, "gate")])
        collect(under_test)
    under_test.reset("door")
    under_test.submit([frame(9, "door"), frame(9, "gate")])
    collect(under_test)
    under_test.close()
    assert (trackers["door"].resets, trackers["gate"].resets) == (1, 0)
    assert trackers["door"].seen[-1] == (9, 0.0)
    assert trackers["gate"].seen[-1] == (9, pytest.approx(0.8))


def test_the_filter_decides_what_is_tracked() -> None:
    tracker = FakeTracker()
    under_test = backend(
        FakeDetector(), {"door": tracker}, ignore=lambda _info, _found: Detections.empty()
    )
    under_test.submit([frame(3)])
    result = collect(under_test)[0]
    under_test.close()
    assert tracker.seen[0][0] is None
    assert len(result.detections) == 0


class TestTiles:
    HOW = TileSettings(columns=2, rows=2)

    @staticmethod
    def large(index: int, camera: str = "door") -> Frame:
        return Frame(
            FrameInfo(camera, index, 1000.0, index / 10, 64, 48),
            np.full((48, 64, 3), index, np.uint8),
        )

    def test_the_tiles_of_a_frame_are_seen_side_by_side_and_merged_in_order(self) -> None:
        detector, tracker = TileDetector(), FakeTracker()
        under_test = backend(detector, {"door": tracker}, workers=4, tiles={"door": self.HOW})
        under_test.submit([self.large(5)])
        (result,) = collect(under_test)
        under_test.close()
        expected = [(t.x, t.y) for t in cut(64, 48, self.HOW)]
        assert len(set(expected)) == 4
        assert [tuple(box[:2]) for box in result.detections.boxes.tolist()] == expected
        assert detector.merged == [(64, 48)]
        assert len(tracker.seen) == 1

    def test_other_cameras_are_seen_whole(self) -> None:
        trackers = {"door": FakeTracker(), "gate": FakeTracker()}
        under_test = backend(TileDetector(), trackers, workers=4, tiles={"door": self.HOW})
        under_test.submit([self.large(1, "door"), self.large(2, "gate")])
        door, gate = collect(under_test)
        under_test.close()
        assert len(door.detections) == 4
        assert gate.detections.boxes[0, 2] == 2

    def test_ignore_masks_come_after_the_merge(self) -> None:
        seen: List[int] = []

        def count(_info: FrameInfo, found: Detections) -> Detections:
            seen.append(len(found))
            return found

        under_test = backend(TileDetector(), workers=4, tiles={"door": self.HOW}, ignore=count)
        under_test.submit([self.large(0)])
        collect(under_test)
        under_test.close()
        assert seen == [4]

    def test_one_failed_tile_is_a_lost_frame_and_no_more(self) -> None:
        detector, tracker = TileDetector(fails=[0]), FakeTracker()
        detector.alone = True
        under_test = backend(detector, {"door": tracker}, workers=1, tiles={"door": self.HOW})
        under_test.submit([self.large(0)])
        under_test.submit([self.large(1)])
        with pytest.raises(EngineError, match="a tile failed"):
            under_test.collect(WAIT)
        assert collect(under_test)[0].info.index == 1
        under_test.close()
        assert len(tracker.seen) == 1

    def test_merging_is_timed(self) -> None:
        timed: List[str] = []
        detector = TileDetector()
        detector.alone = True
        under_test = backend(
            detector, tiles={"door": self.HOW}, timer=lambda stage, _seconds: timed.append(stage)
        )
        under_test.submit([self.large(0)])
        collect(under_test)
        under_test.close()
        assert timed == ["post", "track"]


def test_tracking_is_timed() -> None:
    timed: List[str] = []
    under_test = backend(FakeDetector(), timer=lambda stage, _seconds: timed.append(stage))
    under_test.submit([frame(0)])
    collect(under_test)
    under_test.close()
    assert timed == ["track"]


def test_close_twice_then_submit_then_collect() -> None:
    under_test = backend(FakeDetector())
    under_test.submit([frame(0)])
    under_test.close()
    under_test.close()
    with pytest.raises(EngineError, match="closed"):
        under_test.submit([frame(1)])
    with pytest.raises(EngineError, match="closed"):
        under_test.submit([frame(1)])
    assert collect(under_test)[0].info.index == 0
    assert under_test.collect(0.0) is None


def test_collect_without_time_returns_at_once_every_time() -> None:
    under_test = backend(FakeDetector())
    for index in range(200):
        under_test.submit([frame(index)])
        assert collect(under_test)[0].info.index == index
        assert under_test.collect(0.0) is None
    under_test.close()
