"""The GPU tracker beside the CPU's, frame by frame, on a device or the emulator."""

from typing import Any, Callable, List, Optional, Sequence

import numpy as np

from edgecount.infer.cuda.tracker import STEP, Capacity, GpuTracker, TrackerResult
from edgecount.records import Detections, Tracks
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

FIELDS = ("ids", "boxes", "scores", "classes", "confirmed", "ended")


class Bench:
    """A tracker with buffers for a batch of all its cameras.

    Args:
        device: With ``allocate`` and ``pinned``.
        stream: Work goes here.
        cameras: Options of each.
        capacity: Of the tracker.
        module: The compiled kernel, or None.
        threads: Of a block.
    """

    def __init__(
        self,
        device: Any,
        stream: Any,
        cameras: Sequence[Options],
        capacity: Optional[Capacity] = None,
        module: Optional[Any] = None,
        threads: int = 512,
    ) -> None:
        self.capacity = capacity or Capacity()
        self.stream, self.cameras, self.batch = stream, cameras, len(cameras)
        self.tracker = GpuTracker(
            device,
            stream,
            cameras,
            batch=self.batch,
            capacity=self.capacity,
            module=module,
            threads=threads,
        )
        room = self.batch * self.capacity.detections
        sizes = (16 * room, 4 * room, 4 * room, *(4 * self.batch,) * 2, STEP.itemsize * self.batch)
        self._host = [device.pinned(size) for size in sizes]
        self._device = [device.allocate(size) for size in sizes]
        self._out_host = device.pinned(self.batch * self.capacity.output_bytes)
        self._out = device.allocate(self.batch * self.capacity.output_bytes)

    def put(
        self, frames: Sequence[Detections], dts: Sequence[float], cameras: Sequence[int]
    ) -> None:
        """Bring a batch to the device."""
        columns = [b.array for b in self._host]
        boxes, scores, classes = (c.view(np.float32) for c in columns[:3])
        classes = classes.view(np.int32)
        for at, seen in enumerate(frames):
            start, count = at * self.capacity.detections, len(seen)
            boxes[4 * start : 4 * (start + count)] = seen.boxes.ravel()
            scores[start : start + count] = seen.scores
            classes[start : start + count] = seen.classes
        n = len(frames)
        columns[3].view(np.int32)[:n] = [len(seen) for seen in frames]
        columns[4].view(np.int32)[:n] = cameras
        options = [self.cameras[max(c, 0)] for c in cameras]
        columns[5].view(STEP)[:n] = self.tracker.steps(dts, options)
        for host, device in zip(self._host, self._device):
            self.stream.upload(device.pointer, host.pointer, host.size)

    def launch(self, batch: int) -> None:
        """Enqueue the kernel on what was put."""
        pointers = [b.pointer for b in self._device]
        self.tracker.launch(self.stream, *pointers, batch, self._out.pointer)

    def results(self, batch: int) -> List[TrackerResult]:
        """Bring the results back and read them."""
        size = self.capacity.output_bytes
        self.stream.download(self._out_host.pointer, self._out.pointer, batch * size)
        self.stream.synchronize()
        return [
            self.tracker.read(self._out_host.array[i * size : (i + 1) * size]) for i in range(batch)
        ]

    def update(
        self,
        frames: Sequence[Detections],
        dts: Sequence[float],
        cameras: Optional[Sequence[int]] = None,
    ) -> List[TrackerResult]:
        """Track a frame of each camera."""
        self.put(frames, dts, range(len(frames)) if cameras is None else cameras)
        self.launch(len(frames))
        return self.results(len(frames))


def assert_same(got: Tracks, expected: Tracks, where: str) -> None:
    """Every field alike, bit for bit."""
    for name in FIELDS:
        mine, right = getattr(got, name), getattr(expected, name)
        assert mine.dtype == right.dtype, f"{where}: {name} is {mine.dtype}, not {right.dtype}"
        assert mine.shape == right.shape, f"{where}: {name} {mine.tolist()} != {right.tolist()}"
        assert mine.tobytes() == right.tobytes(), f"{where}: {name} {mine} != {right}"


def compare(
    bench: Bench,
    frames: Sequence[Detections],
    dts: Sequence[float],
    before: Callable[[int], None] = lambda _: None,
) -> List[Tracks]:
    """Run frames through camera 0 and a CPU tracker; they must agree on every one.

    ``before`` is called before each frame with its number.
    """
    reference = two_stage.create(bench.cameras[0])
    outs = []
    for number, (seen, dt) in enumerate(zip(frames, dts)):
        before(number)
        expected = reference.update(seen, dt)
        result = bench.update([seen], [dt])[0]
        assert result.dropped == 0
        assert_same(result.tracks, expected, f"frame {number}")
        outs.append(expected)
    return outs
