"""Measures a network alone on the device: what trtexec prints, and what a device must keep to.

Copies in, network and copies out run in three streams over a ring of buffers, as fast as
they can; times on the device come from CUDA events, so that they hold no queueing. As
trtexec does it, what is called latency is copy in, compute and copy out of one batch.
"""

import re
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import structlog

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.cuda.driver import Device, Event, Graph, Stream
from edgecount.infer.cuda.memory import DEFAULT_SHARE
from edgecount.infer.cuda.network import DeviceNetwork, bytes_of
from edgecount.observe.telemetry.base import Reading

_SLOTS = 3
_WARM_UP_S = 0.2
_LEAST_RUNS = 10
_WINDOW_S = 1.0
_POWER_EVERY_S = 0.25
_PERCENTILES = (90, 95, 99)
# Rails that feed the whole board; where there is none, rails add up.
_WHOLE = re.compile(r"^(VDD_IN|POM_5V_IN|VIN|VIN_SYS.*|total|gpu)$", re.IGNORECASE)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Spread:
    """How a time is spread, milliseconds."""

    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Spread":
        """The spread of times in seconds."""
        ms = 1e3 * np.asarray(seconds, np.float64)
        tail = (float(np.percentile(ms, p)) for p in _PERCENTILES)
        return Spread(
            float(ms.min()), float(ms.max()), float(ms.mean()), float(np.median(ms)), *tail
        )


@dataclass(frozen=True)
class Memory:
    """Device memory, bytes.

    Attributes:
        total: The device's; the board's on a Jetson.
        network: What came to be used from before the network was opened to after its runs.
        used_ratio: Part of the device's memory in use while it ran, by whomever.
        limit_ratio: Part that should not be exceeded.
        within_limit: Whether it is not.
    """

    total: int
    network: int
    used_ratio: float
    limit_ratio: float
    within_limit: bool


@dataclass(frozen=True)
class Power:
    """What was drawn while it ran; empty and None where the device does not tell.

    Attributes:
        mode: Chosen power mode, e.g. ``MAXN``.
        watts: Mean by rail.
        whole_watts: Mean of the rail that feeds all, or of all rails together.
        joules_per_frame: ``whole_watts`` over pictures per second.
        throttled: Whether heat or the supply held clocks down at any moment.
    """

    mode: Optional[str]
    watts: Mapping[str, float]
    whole_watts: Optional[float]
    joules_per_frame: Optional[float]
    throttled: Optional[bool]


@dataclass(frozen=True)
class EngineBench:
    """What ``edgecount bench ENGINE`` prints.

    Attributes:
        gpu_compute: From the network's begin to its end on the device.
        enqueue: Host time to enqueue it: above ``gpu_compute`` the host is the bottleneck.
        h2d: Copy of the input to the device.
        d2h: Copy of the output from the device.
        latency: Copy in, compute and copy out of one batch.
        throughput: Batches per second.
        fps: Pictures per second.
        fps_cv: Coefficient of variation of ``fps`` over windows of one second; None in
            runs of less than three.
        graph: Whether the network ran as a CUDA graph.
        runs: Batches measured.
    """

    network: str
    precision: str
    device: str
    batch: int
    input: Tuple[int, ...]
    gpu_compute: Spread
    enqueue: Spread
    h2d: Spread
    d2h: Spread
    latency: Spread
    throughput: float
    fps: float
    fps_cv: Optional[float]
    graph: bool
    runs: int
    memory: Memory
    power: Power

    def as_dict(self) -> Dict[str, object]:
        """For JSON, rounded to what is meant."""
        rounded = _rounded(asdict(self))
        assert isinstance(rounded, dict)
        return rounded


@dataclass(frozen=True)
class _Run:
    """One batch, in seconds; ``finished`` is host time."""

    h2d: float
    compute: float
    d2h: float
    enqueue: float
    finished: float


OpenNetwork = Callable[[Device, Stream], DeviceNetwork]
ReadPower = Callable[[], Reading]


def measure(
    device: Device,
    open_network: OpenNetwork,
    size: Tuple[int, int],
    *,
    batch: int = 1,
    seconds: float = 10.0,
    graph: bool = True,
    read_power: Optional[ReadPower] = None,
) -> EngineBench:
    """Open a network and run it for a while.

    Args:
        device: The device.
        open_network: Opens it, for the stream that it will run on.
        size: Width and height of its input, pixels.
        batch: Pictures per run.
        seconds: How long to measure.
        graph: Whether to replay a CUDA graph where the network can be recorded.
        read_power: Asks telemetry; called a few times a second in a thread of its own.

    Raises:
        EngineError: The network cannot be opened or run.
    """
    before = device.free_bytes()
    streams = _Streams(device)
    network = open_network(device, streams.compute)
    try:
        rig = _Rig(device, streams, network, batch, size, graph)
        rig.run(_WARM_UP_S)
        with _watching(read_power) as readings:
            begun = time.perf_counter()
            runs = rig.run(seconds)
        free = device.free_bytes()
        rate = len(runs) / (runs[-1].finished - begun)
        return EngineBench(
            network=network.name,
            precision=network.precision,
            device=device.properties.name,
            batch=batch,
            input=rig.input_shape,
            gpu_compute=Spread.of([r.compute for r in runs]),
            enqueue=Spread.of([r.enqueue for r in runs]),
            h2d=Spread.of([r.h2d for r in runs]),
            d2h=Spread.of([r.d2h for r in runs]),
            latency=Spread.of([r.h2d + r.compute + r.d2h for r in runs]),
            throughput=rate,
            fps=rate * batch,
            fps_cv=fluctuation([r.finished for r in runs]),
            graph=rig.graph,
            runs=len(runs),
            memory=_memory(device.properties.memory_bytes, before, free),
            power=power(readings, rate * batch),
        )
    finally:
        streams.synchronize()
        network.close()


def fluctuation(finished: Sequence[float]) -> Optional[float]:
    """Coefficient of variation of the rate over windows of one second; None for less than three.

    Args:
        finished: Moments at which runs ended, seconds, rising.
    """
    edges = np.arange(finished[0], finished[-1], _WINDOW_S)
    if len(edges) < 4:
        return None
    # Between runs at the windows' edges: whole runs per window would add rounding noise.
    at = np.searchsorted(finished, edges)
    rates = np.diff(at) / np.diff(np.asarray(finished)[at])
    return float(np.std(rates) / np.mean(rates))


def power(readings: Sequence[Reading], fps: float) -> Power:
    """Means over what telemetry told."""
    rails: Dict[str, List[float]] = {}
    for reading in readings:
        for rail, watts in reading.power_watts.items():
            rails.setdefault(rail, []).append(watts)
    means = {rail: float(np.mean(watts)) for rail, watts in rails.items()}
    whole = [watts for rail, watts in means.items() if _WHOLE.match(rail)] or list(means.values())
    total = sum(whole) if whole else None
    throttled = [r.throttled for r in readings if r.throttled is not None]
    return Power(
        mode=next((r.power_mode for r in readings if r.power_mode), None),
        watts=means,
        whole_watts=total,
        joules_per_frame=None if total is None or fps <= 0.0 else total / fps,
        throttled=any(throttled) if throttled else None,
    )


class _Streams:
    def __init__(self, device: Device) -> None:
        self.copy_in, self.compute, self.copy_out = (device.stream() for _ in range(3))

    def synchronize(self) -> None:
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.synchronize()


class _Slot:
    """Buffers and events of one batch under way."""

    def __init__(self, device: Device, given: int, made: int) -> None:
        self.source, self.target = device.pinned(given), device.pinned(made)
        self.input, self.output = device.allocate(given), device.allocate(made)
        self.begun, self.uploaded, self.started, self.computed, self.copying, self.finished = (
            device.event(timing=True) for _ in range(6)
        )
        self.enqueue_s = 0.0
        self.busy = False
        self.graph: Optional[Graph] = None

    def result(self) -> _Run:
        """Wait for the batch; when it was done, and how long its parts took."""
        self.finished.synchronize()
        finished = time.perf_counter()
        self.busy = False
        return _Run(
            self.uploaded.since(self.begun),
            self.computed.since(self.started),
            self.finished.since(self.copying),
            self.enqueue_s,
            finished,
        )


class _Rig:
    """A ring of slots around one network."""

    def __init__(
        self,
        device: Device,
        streams: _Streams,
        network: DeviceNetwork,
        batch: int,
        size: Tuple[int, int],
        graph: bool,
    ) -> None:
        self._device, self._streams, self._network, self._batch = device, streams, network, batch
        self.input_shape = (batch, 3, size[1], size[0])
        given = bytes_of(self.input_shape, network.input_dtype)
        made = bytes_of(network.output_shape(batch), network.output_dtype)
        self._slots = [_Slot(device, given, made) for _ in range(_SLOTS)]
        picture = np.random.default_rng(0).uniform(0, 255, self.input_shape)
        for slot in self._slots:
            slot.source.array[...] = picture.astype(network.input_dtype).view(np.uint8).reshape(-1)
        self.graph = graph
        self._warm_up()

    def run(self, seconds: float) -> List[_Run]:
        """Run for so long, and at least a few times; waits until all is done."""
        found: List[_Run] = []
        deadline = time.perf_counter() + seconds
        count = 0
        while count < _LEAST_RUNS or time.perf_counter() < deadline:
            slot = self._slots[count % _SLOTS]
            if slot.busy:
                found.append(slot.result())
            self._submit(slot)
            count += 1
        rest = (self._slots[n % _SLOTS] for n in range(count, count + _SLOTS))
        return found + [slot.result() for slot in rest if slot.busy]

    def _warm_up(self) -> None:
        for slot in self._slots:
            self._enqueue(slot)
        self._streams.synchronize()
        if self.graph:
            self._record()

    def _record(self) -> None:
        try:
            for slot in self._slots:
                slot.graph = self._device.graph(self._streams.compute, self._work(slot))
        except DeviceLostError:
            raise
        except EngineError as error:
            _log.warning("cuda_graph_unavailable", engine=self._network.name, reason=str(error))
            self.graph = False
            for slot in self._slots:
                slot.graph = None

    def _submit(self, slot: _Slot) -> None:
        streams = self._streams
        streams.copy_in.record(slot.begun)
        streams.copy_in.upload(slot.input.pointer, slot.source.pointer, slot.input.size)
        streams.copy_in.record(slot.uploaded)
        _after(streams.compute, slot.uploaded, slot.started)
        began = time.perf_counter()
        if slot.graph is not None:
            slot.graph.launch(streams.compute)
        else:
            self._enqueue(slot)
        slot.enqueue_s = time.perf_counter() - began
        streams.compute.record(slot.computed)
        _after(streams.copy_out, slot.computed, slot.copying)
        streams.copy_out.download(slot.target.pointer, slot.output.pointer, slot.output.size)
        streams.copy_out.record(slot.finished)
        slot.busy = True

    def _work(self, slot: _Slot) -> Callable[[], None]:
        return lambda: self._enqueue(slot)

    def _enqueue(self, slot: _Slot) -> None:
        stream, pointers = self._streams.compute, (slot.input.pointer, slot.output.pointer)
        self._network.enqueue(stream, self._batch, *pointers, None)


def _after(stream: Stream, event: Event, begins: Event) -> None:
    """``stream`` waits for ``event`` and then records ``begins``."""
    stream.wait(event)
    stream.record(begins)


@contextmanager
def _watching(read: Optional[ReadPower]) -> Iterator[List[Reading]]:
    """Readings taken in a thread while the body runs."""
    readings: List[Reading] = []
    if read is None:
        yield readings
        return
    stop = threading.Event()

    def watch() -> None:
        readings.append(read())
        while not stop.wait(_POWER_EVERY_S):
            readings.append(read())

    thread = threading.Thread(target=watch, name="power", daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()


def _memory(total: int, free_before: int, free: int) -> Memory:
    ratio = 1.0 - free / total
    return Memory(total, free_before - free, ratio, DEFAULT_SHARE, ratio <= DEFAULT_SHARE)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
