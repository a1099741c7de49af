"""The GPU tracker with buffers of its own, on a device or the emulator, beside the CPU's."""

from typing import Any, List, Optional, Sequence

import numpy as np
from support.scenes import head

from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.postprocess import DetectionBuffers
from edgecount.infer.cuda.tracker import STEP, GpuTracker, Load, TrackResults
from edgecount.records import Detections, Tracks
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

FIELDS = ("ids", "boxes", "scores", "classes", "confirmed", "ended")
MOST = 1024


class TrackerRun:
    """A tracker, and room for a picture of each of its cameras."""

    def __init__(
        self,
        device: Any,
        stream: Any,
        cameras: Sequence[Options] = (Options(),),
        load: Load = compiler.load,
    ) -> None:
        self.stream, self.cameras = stream, cameras
        most = len(cameras)
        self.tracker = GpuTracker(device, stream, cameras, max_batch=most, load=load)
        sizes = DetectionBuffers.bytes_for(most, MOST), STEP.itemsize * most
        self._found, self._steps = (device.allocate(size) for size in sizes)
        self._found_host, self._steps_host = (device.pinned(size) for size in sizes)
        self._out = device.allocate(GpuTracker.result_bytes(most))
        self._out_host = device.pinned(GpuTracker.result_bytes(most))
        self._read = TrackResults(self._out_host.array).read

    def put(
        self,
        frames: Sequence[Detections],
        dts: Sequence[float],
        cameras: Optional[Sequence[int]] = None,
    ) -> None:
        """Bring a batch to the device; of cameras 0, 1, 2 … where none are named."""
        count = len(frames)
        at, memory = DetectionBuffers.at(0, count, MOST), self._found_host.array
        boxes = memory[: at.scores].view(np.float32).reshape(count, MOST, 4)
        scores = memory[at.scores : at.classes].view(np.float32).reshape(count, MOST)
        classes = memory[at.classes : at.count].view(np.int32).reshape(count, MOST)
        counts = memory[at.count : at.count + 4 * count].view(np.int32)
        for i, seen in enumerate(frames):
            boxes[i, : len(seen)], scores[i, : len(seen)] = seen.boxes, seen.scores
            classes[i, : len(seen)], counts[i] = seen.classes, len(seen)
        steps = self._steps_host.array.view(STEP)
        for i, (camera, dt) in enumerate(zip(cameras or range(count), dts)):
            self.tracker.step(steps, i, camera, dt)
        size = DetectionBuffers.bytes_for(count, MOST)
        self.stream.upload(self._found.pointer, self._found_host.pointer, size)
        self.stream.upload(self._steps.pointer, self._steps_host.pointer, STEP.itemsize * count)

    def launch(self, batch: int) -> None:
        """Enqueue one step on what was put."""
        found = DetectionBuffers.at(self._found.pointer, batch, MOST)
        self.tracker.launch(self.stream, found, self._steps.pointer, batch, self._out.pointer)

    def results(self, batch: int) -> List[Tracks]:
        """Bring the results back."""
        size = GpuTracker.result_bytes(batch)
        self.stream.download(self._out_host.pointer, self._out.pointer, size)
        self.stream.synchronize()
        return self._read(batch)

    def update(
        self,
        frames: Sequence[Detections],
        dts: Sequence[float],
        cameras: Optional[Sequence[int]] = None,
    ) -> List[Tracks]:
        """Track one picture of each camera."""
        self.put(frames, dts, cameras)
        self.launch(len(frames))
        return self.results(len(frames))

    def close(self) -> None:
        """Free everything."""
        self.tracker.close()
        for buffer in (
            *(self._found, self._steps, self._out),
            *(self._found_host, self._steps_host, self._out_host),
        ):
            buffer.close()


def assert_same(got: Tracks, expected: Tracks, where: str) -> None:
    """Every field alike, bit for bit."""
    for name in FIELDS:
        mine, right = getattr(got, name), getattr(expected, name)
        assert mine.dtype == right.dtype, f"{where}: {name} is {mine.dtype}, not {right.dtype}"
        assert mine.shape == right.shape, f"{where}: {name} {mine.tolist()} != {right.tolist()}"
        assert mine.tobytes() == right.tobytes(), f"{where}: {name} {mine} != {right}"


def compare(run: TrackerRun, frames: Sequence[Detections], dts: Sequence[float]) -> List[Tracks]:
    """Run frames through camera 0 and a CPU tracker; they must agree on every one."""
    reference = two_stage.create(run.cameras[0])
    outs = []
    for number, (seen, dt) in enumerate(zip(frames, dts)):
        expected = reference.update(seen, dt)
        assert_same(run.update([seen], [dt])[0], expected, f"frame {number}")
        outs.append(expected)
    return outs


def crowd(
    frames: int,
    people: int,
    seed: int,
    *,
    area: float = 800.0,
    false: int = 3,
    dt: float = 0.04,
    recall: float = 0.9,
    lowest: float = 0.05,
) -> List[Detections]:
    """People who walk at random, some of them unseen, with noise, weak and false boxes."""
    random = np.random.default_rng(seed)
    at, size = random.random((people, 2)) * area, random.uniform(15, 45, people)
    speed = random.normal(0, 60, (people, 2))
    scene = []
    for _ in range(frames):
        at = at + speed * dt
        seen = random.random(people) < recall
        noisy = at[seen] + random.normal(0, 1.5, (int(seen.sum()), 2)) + random.normal(0, 2, 2)
        extra = random.random((random.integers(0, false + 1), 2)) * area
        sizes = np.concatenate((size[seen], np.full(len(extra), 30.0)))
        boxes = [head(x, y, s) for (x, y), s in zip(np.vstack((noisy, extra)), sizes)]
        scores = np.sort(random.uniform(lowest, 1, len(boxes)))[::-1]
        scene.append(
            Detections(
                np.array(boxes, np.float32).reshape(-1, 4),
                scores.astype(np.float32),
                random.integers(0, 3, len(boxes)).astype(np.int32),
            )
        )
    return scene
