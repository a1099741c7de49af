"""Three streams and a ring of slots: frame n+1 is prepared while n infers and n−1 is tracked.

Each slot has buffers of its own, so the only dependencies are those within a batch: infer
waits for prepare, post for infer, both by events on the device. The host enqueues a batch
and waits for its result when it is the oldest. A slot goes back into the ring after that
wait; nothing of it can be under way then.

The parts of a batch that are the same every time (network; NMS, tracker and the copy out)
are recorded into CUDA graphs at the start, for each slot and batch size.
"""

import contextlib
import queue
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import AbstractSet, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import structlog
from typing_extensions import Protocol

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.cuda.driver import Device, Event, Graph, Stream
from edgecount.infer.cuda.pictures import Found, Picture
from edgecount.records import Float32Array

SLOTS = 3
# What is the same every time.
PARTS = frozenset({"infer", "post"})
_WARM_UPS = 2
# What follows the network may be watched for without sleeping if it takes no longer, seconds.
_WATCHED_S = 150e-6
_WAITED_FOR = ("inferred", "finished")  # by the host, of a slot's events
# Prepare and post are short, and infer waits for one and latency for the other.
_FIRST = -1

_log = structlog.get_logger(__name__)


class Streams:
    """The three streams."""

    def __init__(self, device: Device) -> None:
        self.prepare = device.stream(_FIRST)
        self.infer = device.stream()
        self.post = device.stream(_FIRST)

    def synchronize(self) -> None:
        """Wait for all work; only at the start, at the end and after an error."""
        for stream in (self.prepare, self.infer, self.post):
            stream.synchronize()


class SlotWork(Protocol):
    """What is done in one slot, with its own buffers. Enqueues only; never waits.

    ``infer`` and ``post`` must enqueue the same for the same ``batch`` every time.
    """

    def pictures(self, job: Sequence[Picture]) -> int:
        """How many pictures a job is for the network: its batch."""
        ...

    def padded(self, batch: int) -> int:
        """The batch size that ``infer`` runs for ``batch`` of its pictures."""
        ...

    def upload(self, stream: Stream, job: Sequence[Picture]) -> None:
        """Bring the pictures and what belongs to them to the device."""
        ...

    def prepare(self, stream: Stream, batch: int) -> None:
        """Make the network's input."""
        ...

    def infer(self, stream: Stream, batch: int) -> None:
        """Run the network."""
        ...

    def post(self, stream: Stream, batch: int) -> None:
        """Make results of its output and bring them to the host."""
        ...

    def results(self, job: Sequence[Picture]) -> List[Found]:
        """Copy the results out of the slot; called when ``post`` is done."""
        ...

    def output(self, stream: Stream, batch: int) -> Float32Array:
        """The network's newest output, copied to the host; waits. Only at the start."""
        ...

    def rehearse(self, batch: int) -> Sequence[Picture]:
        """A job of which ``post`` keeps nothing, the same every time, for the warm-up."""
        ...


class Durations(NamedTuple):
    """How long a batch was in each stream, seconds on the device."""

    prepare: float
    infer: float
    post: float


class Times(NamedTuple):
    """When a batch reached its stations, seconds since the pipeline was made, on the device."""

    begun: float
    uploaded: float
    prepared: float
    infer_begun: float
    inferred: float
    post_begun: float
    finished: float


@dataclass(frozen=True)
class Finished:
    """A batch that is done.

    Attributes:
        job: As it was submitted.
        results: One per item of ``job``.
        durations: How long it was in each stream.
        times: Its stations on the device; None unless the pipeline is ``traced``.
        slot: Which slot it was in.
        submitted: ``perf_counter`` when ``submit`` was entered.
    """

    job: Sequence[Picture]
    results: List[Found]
    durations: Durations
    times: Optional[Times]
    slot: int
    submitted: float


class _Events:
    """A slot's events, in the order of :class:`Times`."""

    def __init__(self, device: Device, *, spin: bool) -> None:
        self.stations: List[Event] = [
            device.event(timing=True, blocking=name in _WAITED_FOR and not spin)
            for name in Times._fields
        ]
        (
            self.begun,
            self.uploaded,
            self.prepared,
            self.infer_begun,
            self.inferred,
            self.post_begun,
            self.finished,
        ) = self.stations

    def durations(self) -> Durations:
        return Durations(
            self.prepared.since(self.begun),
            self.inferred.since(self.infer_begun),
            self.finished.since(self.post_begun),
        )

    def times(self, origin: Event) -> Times:
        return Times(*(event.since(origin) for event in self.stations))


class _Slot:
    """A place in the ring: its work, events and recorded graphs."""

    def __init__(self, number: int, work: SlotWork, device: Device, *, spin: bool) -> None:
        self.number = number
        self.work = work
        self.events = _Events(device, spin=spin)
        self._device = device
        self._graphs: Dict[Tuple[str, int], Graph] = {}

    def prepare(self, stream: Stream, job: Sequence[Picture], batch: int, *, traced: bool) -> None:
        stream.record(self.events.begun)
        self.work.upload(stream, job)
        if traced:
            stream.record(self.events.uploaded)
        self._do("prepare", self.work.prepare, stream, batch)
        stream.record(self.events.prepared)

    def infer(self, stream: Stream, batch: int) -> None:
        stream.wait(self.events.prepared)
        stream.record(self.events.infer_begun)
        self.network(stream, batch)
        stream.record(self.events.inferred)

    def network(self, stream: Stream, batch: int) -> None:
        self._do("infer", self.work.infer, stream, batch)

    def post(self, stream: Stream, batch: int) -> None:
        stream.wait(self.events.inferred)
        stream.record(self.events.post_begun)
        self._do("post", self.work.post, stream, batch)
        stream.record(self.events.finished)

    def record_graph(self, part: str, stream: Stream, batch: int) -> None:
        """Record a fixed part. Raises EngineError where it cannot be recorded."""
        work = self.work.infer if part == "infer" else self.work.post
        key = self._key(part, batch)
        if key not in self._graphs:
            self._graphs[key] = self._device.graph(stream, lambda: work(stream, batch))

    def forget_graphs(self, part: str) -> None:
        for key in [key for key in self._graphs if key[0] == part]:
            self._graphs.pop(key).close()

    def _key(self, part: str, batch: int) -> Tuple[str, int]:
        return part, self.work.padded(batch) if part == "infer" else batch

    def _do(
        self, part: str, work: Callable[[Stream, int], None], stream: Stream, batch: int
    ) -> None:
        graph = self._graphs.get(self._key(part, batch))
        if graph is None:
            work(stream, batch)
        else:
            graph.launch(stream)


class _Flight(NamedTuple):
    """A batch under way."""

    slot: _Slot
    job: Sequence[Picture]
    began: float
    traced: bool


class Pipeline:
    """Batches in, results out, in order.

    Attributes:
        depth: Batches in flight at most.
        graphs: Parts that run as CUDA graphs.
        traced: Whether :attr:`Finished.times` are taken of batches submitted from now on.

    ``submit`` and ``collect`` may be called from two threads, each from one at a time.
    """

    def __init__(
        self,
        device: Device,
        streams: Streams,
        make_work: Callable[[int], SlotWork],
        *,
        batches: Sequence[int],
        slots: int = SLOTS,
        graphs: AbstractSet[str] = PARTS,
        spin: bool = False,
    ) -> None:
        """Make the slots, run every batch size once, and record the graphs.

        Args:
            device: The device.
            streams: Its streams; the network was made for ``streams.infer``.
            make_work: Makes the work of a slot, by its number; allocates its buffers.
            batches: Batch sizes that will come.
            slots: Batches in flight at most, three or more to keep all streams busy.
            graphs: Parts to record into CUDA graphs where that is possible.
            spin: Whether the wait for a result keeps a core busy, to end a little earlier.

        Raises:
            EngineError: Something does not run.
        """
        self.depth = slots
        self.graphs = frozenset(graphs)
        self.traced = False
        self._spin = spin
        self._post_s = float("inf")  # how long post took last
        self._device = device
        self._streams = streams
        self._threads = threading.local()
        self._origin = device.event(timing=True)
        self._slots = [_Slot(n, make_work(n), device, spin=spin) for n in range(slots)]
        self._free: queue.Queue[Optional[_Slot]] = queue.Queue()
        self._in_flight: queue.Queue[_Flight] = queue.Queue()
        self._closed = False
        self._start(batches)
        for slot in self._slots:
            self._free.put(slot)

    def submit(self, job: Sequence[Picture]) -> None:
        """Enqueue a batch; waits while all slots are in flight.

        Raises:
            DeviceLostError: The device is gone.
            EngineError: It could not be enqueued, or the pipeline is closed.
        """
        began = perf_counter()
        self._enter()
        slot = self._free.get()
        if slot is None:
            raise EngineError("the CUDA pipeline is closed")
        traced = self.traced
        try:
            self._enqueue(slot, job, traced=traced)
        except DeviceLostError:
            raise
        except EngineError:
            self._streams.synchronize()  # what was enqueued of it still uses the slot
            self._free.put(slot)
            raise
        self._in_flight.put(_Flight(slot, job, began, traced))

    def collect(self, timeout: float) -> Optional[Finished]:
        """The oldest batch, or None where none was submitted within ``timeout`` seconds.

        A batch that was submitted is waited for as long as it takes: a device that hangs is
        the watchdog's to notice.

        Raises:
            DeviceLostError: The device is gone.
            EngineError: The batch failed and is gone.
        """
        self._enter()
        try:
            flight = self._in_flight.get(timeout=timeout)
        except queue.Empty:
            return None
        slot = flight.slot
        try:
            self._wait(slot.events)
            results = slot.work.results(flight.job)
            durations = slot.events.durations()
            self._post_s = durations.post
            times = slot.events.times(self._origin) if flight.traced else None
        finally:
            self._free.put(slot)
        return Finished(flight.job, results, durations, times, slot.number, flight.began)

    def time_network(self, batch: int, runs: int) -> float:
        """Seconds of ``runs`` runs of the network alone, one after the other, on the device.

        For measuring: nothing else may be under way.
        """
        self._enter()
        start, end = self._slots[0].events.infer_begun, self._slots[0].events.inferred
        stream = self._streams.infer
        stream.record(start)
        for run in range(runs):
            self._slots[run % self.depth].network(stream, batch)
        stream.record(end)
        end.synchronize()
        return end.since(start)

    def close(self) -> None:
        """Let a ``submit`` that waits fail; the device frees the rest. May be called twice."""
        if not self._closed:
            self._closed = True
            self._free.put(None)

    def _enqueue(self, slot: _Slot, job: Sequence[Picture], *, traced: bool = False) -> None:
        batch = slot.work.pictures(job)
        slot.prepare(self._streams.prepare, job, batch, traced=traced)
        slot.infer(self._streams.infer, batch)
        slot.post(self._streams.post, batch)

    def _wait(self, events: _Events) -> None:
        """Sleep until a batch is done; of a lone one, only until its network is.

        To be woken takes about as long as NMS and tracker. A batch with others behind it has
        time, and the host has other things to do.
        """
        if self._in_flight.empty() and not self._spin and self._post_s < _WATCHED_S:
            events.inferred.synchronize()
            until = perf_counter() + _WATCHED_S
            while not events.finished.done() and perf_counter() < until:
                pass
        events.finished.synchronize()

    def _start(self, batches: Sequence[int]) -> None:
        self._streams.prepare.record(self._origin)
        plain = {key: self._rehearse(*key) for key in self._combinations(batches)}
        self._record("post", self._streams.post, batches)
        self._record("infer", self._streams.infer, batches)
        # After all of them: recording one must not have spoilt another.
        for key in self._combinations(batches):
            if "infer" in self.graphs and not _same(plain[key], self._rehearse(*key)):
                _log.warning("cuda_graphs_unusable", part="infer", reason="it gives other numbers")
                self._forget("infer")

    def _combinations(self, batches: Sequence[int]) -> List[Tuple[_Slot, int]]:
        return [(slot, batch) for slot in self._slots for batch in batches]

    def _rehearse(self, slot: _Slot, batch: int) -> Float32Array:
        """Run it all for once: libraries load, choose algorithms and take memory now.

        Returns:
            The network's output.
        """
        for _ in range(_WARM_UPS):
            self._enqueue(slot, slot.work.rehearse(batch))
            self._streams.synchronize()
        return slot.work.output(self._streams.infer, batch)

    def _record(self, part: str, stream: Stream, batches: Sequence[int]) -> None:
        if part not in self.graphs:
            return
        try:
            for slot, batch in self._combinations(batches):
                slot.record_graph(part, stream, batch)
        except DeviceLostError:
            raise
        except EngineError as error:
            _log.warning("cuda_graphs_unusable", part=part, reason=str(error))
            self._forget(part)
            # A library may report the error of the capture once more, as its next call's.
            with contextlib.suppress(EngineError):
                self._rehearse(slot, batch)

    def _forget(self, part: str) -> None:
        self.graphs -= {part}
        for slot in self._slots:
            slot.forget_graphs(part)

    def _enter(self) -> None:
        """Make the device this thread's, once."""
        if not getattr(self._threads, "entered", False):
            self._device.use()
            self._threads.entered = True


def _same(one: Float32Array, other: Float32Array) -> bool:
    """Whether two runs of a network on one input agree; libraries may sum in another order."""
    return bool(np.allclose(one, other, rtol=1e-2, atol=1e-2, equal_nan=True))
