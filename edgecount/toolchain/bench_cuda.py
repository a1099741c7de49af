"""Measures the CUDA pipeline: overlap, latency, host time, and what the streams did when.

Pipeline and bare network run in turns on the same device, with the same executor and
graphs; the overlap is the median of the ratios of neighbouring turns.
"""

import itertools
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgecount.capture._select import open_source
from edgecount.config import ModelSettings
from edgecount.errors import EdgecountError, SourceError
from edgecount.infer import recipe as recipes
from edgecount.infer.base import BackendSpec, CameraSpec
from edgecount.infer.cuda import backend as backends
from edgecount.infer.cuda.backend import CudaBackend
from edgecount.infer.cuda.driver import Device, PinnedBuffer
from edgecount.infer.cuda.pictures import Layout, Picture
from edgecount.infer.cuda.pipeline import Finished, Times
from edgecount.records import FrameInfo, UInt8Array
from edgecount.runtime.plan import tracker_options
from edgecount.toolchain import timeline
from edgecount.toolchain.timeline import Batch, busy, stage_times

_COLLECT_S = 1.0
_FPS = 25.0
_FRAMES = 32
_TRACED = 64

# Batches of pictures, for ever.
Feed = Callable[[], Iterator[Sequence[Picture]]]


@dataclass(frozen=True)
class Run:
    """One turn of the pipeline.

    Attributes:
        pictures: Pictures whose results came back.
        seconds: From the first submission to the last result.
        host_us: Processor time of both threads per picture, microseconds.
        batches: Every batch's stations on the device, where they were traced.
    """

    pictures: int
    seconds: float
    host_us: float
    batches: Tuple[Batch, ...]

    @property
    def fps(self) -> float:
        """Pictures per second."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class CudaBench:
    """What is measured for one batch size. Times of the device are of a whole batch.

    Attributes:
        batch: Pictures of a batch.
        fps: Pictures per second through the pipeline, median of the turns.
        network_fps: The same through the network alone.
        overlap: ``fps / network_fps``, median over neighbouring turns.
        network_ms: Time of one run of the network.
        latency_ms: From the hand-over of a batch to its results, one batch at a time: median.
        added_p50_ms: That, less the network's own time.
        added_p99_ms: The same for the 99th percentile.
        host_us: Processor time on the host per picture, microseconds.
        stages_ms: Median time of each part on the device.
        busy: Share of the time in which each stream worked.
    """

    batch: int
    fps: float
    network_fps: float
    overlap: float
    network_ms: float
    latency_ms: float
    added_p50_ms: float
    added_p99_ms: float
    host_us: float
    stages_ms: Dict[str, float]
    busy: Dict[str, float]

    def as_dict(self) -> Dict[str, object]:
        """For JSON."""
        return asdict(self)


def cameras_spec(
    count: int,
    settings: ModelSettings,
    *,
    size: Optional[Tuple[int, int]] = None,
    timer: Callable[[str, float], None] = lambda _stage, _seconds: None,
) -> BackendSpec:
    """A backend's specification for ``count`` cameras named ``camera0`` and so on."""
    path, recipe = recipes.find(settings.name, settings.path)
    if recipe is None:
        raise EdgecountError(f"{path} has no recipe; write one beside it")
    kind, options = tracker_options({}, recipe, "bench")
    cameras = [CameraSpec(f"camera{n}", kind, options, ()) for n in range(count)]
    side = size or settings.input_size or (recipe.input.width, recipe.input.height)
    return BackendSpec(settings, path, recipe, side, cameras, timer)


def pinned_pictures(device: Device, images: Sequence[UInt8Array], layout: Layout) -> List[Picture]:
    """Pictures in pinned memory, as a capture that writes there leaves them.

    Args:
        device: The device.
        images: (height, width, 3) BGR, or (height · 3 / 2, width) NV12.
        layout: Which of both.
    """
    made = []
    for image in images:
        rows, width = image.shape[:2]
        height = rows * 2 // 3 if layout == "nv12" else rows
        memory: PinnedBuffer = device.pinned(image.nbytes, mapped=device.properties.integrated)
        memory.array[:] = image.reshape(-1)
        info = FrameInfo("", 0, 0.0, 0.0, width, height)
        pitch = image.strides[0]
        pointer = memory.device_pointer or memory.pointer
        made.append(Picture(info, 0, 0.0, layout, pitch, "pinned", pointer, owner=memory))
    return made


def feed(templates: Sequence[Picture], cameras: int, batch: int) -> Feed:
    """Pictures of ``cameras`` cameras in turn, each at 25 frames a second of stream time."""

    def batches() -> Iterator[Sequence[Picture]]:
        shown = itertools.cycle(templates)
        for index in itertools.count():
            for first in range(0, cameras, batch):
                yield [
                    _next_picture(next(shown), camera, index)
                    for camera in range(first, min(first + batch, cameras))
                ]

    return batches


def run(
    backend: CudaBackend,
    batches: Iterator[Sequence[Picture]],
    count: int,
    *,
    traced: bool = False,
) -> Run:
    """Push ``count`` batches through as fast as they go; their stations only where ``traced``.

    Raises:
        EdgecountError: The device failed.
    """
    spent: List[float] = []
    failures: List[BaseException] = []

    def submit() -> None:
        began = time.thread_time()
        try:
            for job in itertools.islice(batches, count):
                backend.submit_pictures(job)
        except EdgecountError as error:
            failures.append(error)
        spent.append(time.thread_time() - began)

    finishes: List[Finished] = []
    backend.pipeline.traced = traced
    backend.watch = finishes.append
    submitting = threading.Thread(target=submit, name="submit")
    began, cpu = time.perf_counter(), time.thread_time()
    submitting.start()
    while len(finishes) < count and not failures:
        backend.collect(_COLLECT_S)
    seconds, cpu = time.perf_counter() - began, time.thread_time() - cpu
    submitting.join()
    backend.watch = lambda _finished: None
    if failures:
        raise failures[0]
    pictures = sum(len(f.job) for f in finishes)
    stations = tuple(_batch(f, f.times) for f in finishes if f.times is not None)
    return Run(pictures, seconds, 1e6 * (cpu + spent[0]) / pictures, stations)


def latencies(
    backend: CudaBackend, batches: Iterator[Sequence[Picture]], count: int
) -> Tuple[List[float], List[float]]:
    """Seconds from hand-over to results, and of the network in it, one batch at a time."""
    network: List[float] = []
    backend.pipeline.traced = False
    backend.watch = lambda finished: network.append(finished.durations.infer)
    found = []
    for job in itertools.islice(batches, count):
        began = time.perf_counter()
        backend.submit_pictures(job)
        backend.collect(_COLLECT_S)
        found.append(time.perf_counter() - began)
    backend.watch = lambda _finished: None
    return found, network


def bench(
    backend: CudaBackend, batches: Feed, batch: int, *, seconds: float = 2.0, turns: int = 5
) -> Tuple[CudaBench, Tuple[Batch, ...]]:
    """Measure one batch size.

    Args:
        backend: With at least ``batch`` cameras.
        batches: Batches of ``batch`` pictures.
        batch: Pictures of a batch.
        seconds: Time of one turn.
        turns: Turns of pipeline and network.

    Returns:
        What was measured, and the last turn's batches.
    """
    stream = batches()
    run(backend, stream, 50)  # clocks rise, caches fill
    network_s = backend.pipeline.time_network(batch, 200) / 200
    count = max(50, int(seconds / network_s))
    rates, alone, host = [], [], []
    for _ in range(turns):
        turn = run(backend, stream, count)
        rates.append(turn.fps)
        host.append(turn.host_us)
        alone.append(batch * count / backend.pipeline.time_network(batch, count))
    traced = run(backend, stream, 64, traced=True).batches
    took, network = latencies(backend, stream, max(200, min(2000, count)))
    inference = statistics.median(network)
    added = 1e3 * (np.asarray(took) - inference)
    result = CudaBench(
        batch=batch,
        fps=statistics.median(rates),
        network_fps=statistics.median(alone),
        overlap=statistics.median(r / a for r, a in zip(rates, alone)),
        network_ms=1e3 * inference,
        latency_ms=1e3 * statistics.median(took),
        added_p50_ms=float(np.percentile(added, 50)),
        added_p99_ms=float(np.percentile(added, 99)),
        host_us=statistics.median(host),
        stages_ms=stage_times(traced),
        busy=busy(traced),
    )
    return result, traced


def bench_clip(
    source: str,
    settings: ModelSettings,
    *,
    batches: Sequence[int] = (1, 8),
    seconds: float = 2.0,
    turns: int = 5,
    out: Optional[Path] = None,
) -> Dict[str, object]:
    """Measure batches of so many cameras that all show a clip, from pinned memory.

    Args:
        source: A video file; its first frames are used.
        settings: The model.
        batches: Batch sizes.
        seconds: Time of one turn.
        turns: Turns of pipeline and network.
        out: Folder for the timelines, as Chrome traces and pictures; None writes none.

    Returns:
        The device, and by batch size what :class:`CudaBench` holds; JSON values.

    Raises:
        EngineError: There is no usable device.
        SourceError: The clip cannot be read.
    """
    images = _first_frames(source)
    found: Dict[str, object] = {}
    for batch in batches:
        backend = backends.create(cameras_spec(batch, settings))
        try:
            pictures = pinned_pictures(backend.device, images, "bgr")
            shown = feed(pictures, batch, batch)
            result, done = bench(backend, shown, batch, seconds=seconds, turns=turns)
            found[f"batch {batch}"] = result.as_dict()
            found.setdefault("device", backend.device.properties.name)
            found.setdefault("model", f"{backend.name} {backend.precision}")
            if out is not None:
                title = f"batch {batch}, {backend.precision}, {backend.device.properties.name}"
                timeline.save(done[-_TRACED:], out, f"batch{batch}", title)
        finally:
            backend.close()
    return found


def _first_frames(source: str) -> List[UInt8Array]:
    reader = open_source("bench", source)
    reader.open()
    try:
        frames = [f.image for f in itertools.islice(iter(reader.read, None), _FRAMES) if f]
    finally:
        reader.close()
    if not frames:
        raise SourceError(f"{source} holds no frame", retry=False)
    return frames


def _next_picture(template: Picture, camera: int, index: int) -> Picture:
    info = FrameInfo(
        f"camera{camera}",
        index,
        index / _FPS,
        index / _FPS,
        template.info.width,
        template.info.height,
    )
    return Picture(
        info,
        camera,
        1.0 / _FPS if index else 0.0,
        template.layout,
        template.pitch,
        template.place,
        template.pointer,
        template.chroma,
        owner=template.owner,
    )


def _batch(finished: Finished, times: Times) -> Batch:
    return Batch(finished.slot, len(finished.job), times)
