"""Measures how fast the whole pipeline is, and how much of that is the network's own time.

Pipeline and bare inference run in turns on the same machine, so that a busy neighbour
slows both alike; the efficiency is the median of the ratios of neighbouring turns.
"""

import statistics
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import DefaultDict, Dict, List, Optional, Tuple

import numpy as np
import psutil

from edgecount.capture._select import open_source
from edgecount.errors import EdgecountError, SourceError
from edgecount.infer.runtimes import workers as workers_of
from edgecount.observe.health import Health
from edgecount.observe.metrics import Metrics
from edgecount.records import CountEvent, Frame, Stage, Tracked, UInt8Array
from edgecount.runtime.core import Core
from edgecount.runtime.pipeline import Lane
from edgecount.runtime.plan import Model, Plan, default_settings, prepare

_POLL_S = 0.05
_SHORTEST_TURN_S = 0.5


@dataclass(frozen=True)
class BenchResult:
    """What ``edgecount bench`` prints. Times are milliseconds unless named otherwise.

    Attributes:
        fps: Frames per second through the whole pipeline, median of the turns.
        fps_cv: Coefficient of variation of the frame rate over windows of one second
            (ten-second windows where the run is long enough).
        p50_ms: Median time from the hand-over of a decoded frame to its counts.
        p99_ms: 99th percentile of the same.
        infer_only_fps: Pictures per second through the network alone, same workers.
        efficiency: ``fps / infer_only_fps``, median over neighbouring turns; with a paced
            source it says nothing and is None.
        cpu_cores: Cores kept busy by the process while the pipeline ran.
        rss_mb: Resident memory at the end, MB.
        frames: Frames counted.
        dropped: Frames that a newer one replaced.
        stage_ms: Mean time per frame by stage, on the thread that does it.
        core_ms_per_frame: Processor time per frame: ``total`` as the kernel counts it,
            ``network`` and ``decode`` from the same calls measured alone, and ``rest``.
        runtime: What ran the network, and ``precision`` in which precision.
        rss_growth_mb: How much memory grew from the end of the first turn to the last.
    """

    fps: float
    fps_cv: float
    p50_ms: float
    p99_ms: float
    infer_only_fps: float
    efficiency: Optional[float]
    cpu_cores: float
    rss_mb: float
    frames: int
    dropped: int
    stage_ms: Dict[str, float]
    core_ms_per_frame: Dict[str, float]
    rss_growth_mb: float
    model: str
    source: str
    workers: int
    runtime: str
    precision: str

    def as_dict(self) -> Dict[str, object]:
        """For JSON, rounded to what is meant."""
        return {k: _rounded(v) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class _Turn:
    seconds: float
    cpu_s: float
    latencies: Tuple[float, ...]
    arrivals: Tuple[float, ...]
    dropped: int

    @property
    def fps(self) -> float:
        return len(self.arrivals) / self.seconds


class StageTimes:
    """Sums of seconds by stage. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: DefaultDict[str, float] = defaultdict(float)
        self._counts: DefaultDict[str, int] = defaultdict(int)

    def __call__(self, stage: Stage, seconds: float) -> None:
        with self._lock:
            self._sums[stage] += seconds
            self._counts[stage] += 1

    def clear(self) -> None:
        """Start anew."""
        with self._lock:
            self._sums.clear()
            self._counts.clear()

    def mean_ms(self) -> Dict[str, float]:
        """Mean milliseconds by stage."""
        with self._lock:
            return {s: 1e3 * t / self._counts[s] for s, t in sorted(self._sums.items())}


class _Recorder:
    """Notes when each frame was counted, and how long that took."""

    def __init__(self) -> None:
        self.latencies: List[float] = []
        self.arrivals: List[float] = []

    def submitted(self, frame: Frame) -> None:
        """Nothing to note."""

    def counted(self, tracked: Tracked, latency_s: float, lane: Lane) -> None:  # noqa: ARG002
        self.arrivals.append(time.perf_counter())
        self.latencies.append(latency_s)


def bench(
    source: str,
    model: Optional[str],
    *,
    seconds: float = 20.0,
    turns: int = 4,
    fps: Optional[float] = None,
    threads: Optional[int] = None,
) -> BenchResult:
    """Measure the pipeline on a clip that is played again and again.

    Args:
        source: A video file.
        model: ONNX file, model folder or shipped model; the default model where None.
        seconds: Time for the pipeline, in all turns together.
        turns: Turns of pipeline and bare inference.
        fps: Pace the source to this rate; as fast as possible where None.
        threads: Workers of the network; all cores where None.

    Raises:
        SourceError: The clip cannot be read.
        EdgecountError: Nothing was counted in a turn.
    """
    times = StageTimes()
    plan = _plan(source, model, fps, threads, times, None)
    decode_ms = _decode_core_ms(source)
    image = _first_frame(source)
    turn_s = max(seconds / turns, _SHORTEST_TURN_S)
    infer_s = min(turn_s, 2.0) if fps else turn_s
    workers = workers_of(plan.settings.model)
    _run_turn(plan, times, min(1.0, turn_s))  # warm-up: caches, thread pools, arenas
    times.clear()
    pipeline: List[_Turn] = []
    alone: List[Tuple[float, float]] = []
    rss: List[float] = []
    for _ in range(turns):
        plan = _plan(source, model, fps, threads, times, plan.model)
        pipeline.append(_run_turn(plan, times, turn_s))
        rss.append(psutil.Process().memory_info().rss / 1e6)
        alone.append(_infer_only(plan.model, image, workers, infer_s))
    return _result(plan, source, workers, pipeline, alone, rss, times, decode_ms, paced=bool(fps))


class PipelineTurns:
    """The pipeline alone, turn by turn, for benches that run it beside something else."""

    def __init__(self, source: str, model: Optional[str]) -> None:
        """Load the model. Raises as :func:`bench`."""
        self._source = source
        self._model = model
        self._times = StageTimes()
        self._loaded = _plan(source, model, None, None, self._times, None).model

    def turn(self, seconds: float) -> float:
        """Frames per second over one turn."""
        plan = _plan(self._source, self._model, None, None, self._times, self._loaded)
        return _run_turn(plan, self._times, seconds).fps


def _plan(
    source: str,
    model: Optional[str],
    fps: Optional[float],
    threads: Optional[int],
    times: StageTimes,
    loaded: Optional[Model],
) -> Plan:
    settings = default_settings(source, model=model, threads=threads)
    camera = settings.cameras[0]
    capture = {"loop": True, **({"realtime": True, "fps": fps} if fps else {})}
    camera = camera.model_copy(update={"capture": capture})
    return prepare(settings.model_copy(update={"cameras": [camera]}), times, loaded)


def _run_turn(plan: Plan, times: StageTimes, seconds: float) -> _Turn:
    recorder = _Recorder()
    core = Core(plan, Metrics(), Health(), time.monotonic, _ignore, [recorder], times)
    cpu, started = time.process_time(), time.perf_counter()
    core.start()
    while time.perf_counter() - started < seconds and not core.finished():
        time.sleep(_POLL_S)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    arrivals, latencies = tuple(recorder.arrivals), tuple(recorder.latencies)
    dropped = sum(u.reader.dropped for u in core.units.values())
    failure = core.error or next((u.reader.error for u in core.units.values()), "")
    core.stop()
    if len(arrivals) < 2:
        raise EdgecountError(f"nothing was counted in {elapsed:.1f} s: {failure or 'too slow'}")
    # From the first result on: opening the clip and filling the pipe are no steady state.
    steady = elapsed - (arrivals[0] - started)
    return _Turn(steady, cpu, latencies[1:], arrivals[1:], dropped)


def _ignore(_events: List[CountEvent]) -> None:
    """Events are not published in a bench."""


def _infer_only(
    model: Model, image: UInt8Array, workers: int, seconds: float
) -> Tuple[float, float]:
    """Pictures per second, and processor milliseconds per picture, of the network alone."""
    inputs = [model.detector.network_input(image) for _ in range(workers)]
    counts = [0] * workers
    deadline = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < deadline:
            model.detector.network.run(inputs[number])
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    cpu, started = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return sum(counts) / elapsed, 1e3 * cpu / sum(counts)


def _decode_core_ms(source: str, frames: int = 150) -> float:
    """Processor milliseconds to decode one frame, on one thread, alone."""
    reader = open_source("bench", source, {"loop": True})
    reader.open()
    try:
        cpu = time.process_time()
        for _ in range(frames):
            reader.read()
        return 1e3 * (time.process_time() - cpu) / frames
    finally:
        reader.close()


def _first_frame(source: str) -> UInt8Array:
    reader = open_source("bench", source)
    reader.open()
    try:
        frame = reader.read()
    finally:
        reader.close()
    if frame is None:
        raise SourceError(f"{source} holds no frame", retry=False)
    return frame.image


def _result(
    plan: Plan,
    source: str,
    workers: int,
    pipeline: List[_Turn],
    alone: List[Tuple[float, float]],
    rss: List[float],
    times: StageTimes,
    decode_ms: float,
    *,
    paced: bool,
) -> BenchResult:
    latencies = np.array([x for turn in pipeline for x in turn.latencies]) * 1e3
    frames = sum(len(t.arrivals) for t in pipeline)
    total_ms = 1e3 * sum(t.cpu_s for t in pipeline) / frames
    network_ms = statistics.median(ms for _, ms in alone)
    rates = [turn.fps for turn in pipeline]
    return BenchResult(
        fps=statistics.median(rates),
        fps_cv=_fluctuation(pipeline),
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        infer_only_fps=statistics.median(fps for fps, _ in alone),
        efficiency=None
        if paced
        else statistics.median(turn.fps / fps for turn, (fps, _) in zip(pipeline, alone)),
        cpu_cores=sum(t.cpu_s for t in pipeline) / sum(t.seconds for t in pipeline),
        rss_mb=rss[-1],
        frames=frames,
        dropped=sum(t.dropped for t in pipeline),
        stage_ms=times.mean_ms(),
        core_ms_per_frame={
            "total": total_ms,
            "network": network_ms,
            "decode": decode_ms,
            "rest": total_ms - network_ms - decode_ms,
        },
        rss_growth_mb=rss[-1] - rss[0],
        model=plan.model.recipe.name,
        source=source,
        workers=workers,
        runtime=plan.model.runtime,
        precision=plan.model.precision,
    )


def _fluctuation(pipeline: List[_Turn]) -> float:
    """Coefficient of variation of frames per window: ten seconds each, or one in short turns."""
    counts: List[float] = []
    for turn in pipeline:
        window = 10.0 if turn.seconds >= 30.0 else 1.0
        edges = np.arange(turn.arrivals[0], turn.arrivals[-1], window)
        if len(edges) > 2:
            # Rates between frames at the window's edges: whole frames per window would
            # add up to one frame of rounding noise.
            at = np.searchsorted(turn.arrivals, edges)
            moments = np.asarray(turn.arrivals)[at]
            counts += (np.diff(at) / np.diff(moments)).tolist()
    return float(np.std(counts) / np.mean(counts)) if counts else 0.0


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
