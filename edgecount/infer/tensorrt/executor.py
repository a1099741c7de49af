"""A TensorRT engine as the network of the CUDA pipeline.

For each pair of stream and buffers there is an execution context of its own, whose work is
replayed as a CUDA graph from the third run on: the first run warms TensorRT up, as its
documentation asks before a capture, the second is captured. A graph belongs to the shapes
and addresses it was captured with and to the context's state, so a context that is needed
for other buffers gives its graph up. Where a capture fails, runs are enqueued one by one.
"""

import threading
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import structlog
from numpy.typing import DTypeLike

from edgecount.errors import DeviceLostError, EngineError, ModelError
from edgecount.infer.cuda.driver import Device, DeviceBuffer, Event, Graph, Stream
from edgecount.infer.cuda.network import bytes_of
from edgecount.infer.tensorrt import efficient_nms
from edgecount.infer.tensorrt.efficient_nms import Converter, RowsKernel
from edgecount.infer.tensorrt.flavours import Context, Range, Shape, TensorSpec
from edgecount.infer.tensorrt.loader import LoadedEngine

_Key = Tuple[int, int, int]  # batch, input, output
_log = structlog.get_logger(__name__)


@dataclass
class _Job:
    """A context and what it was last used for."""

    context: Context
    key: Optional[_Key] = None
    addresses: Dict[str, int] = field(default_factory=dict)
    warm: bool = False
    graph: Optional[Graph] = None

    def forget_graph(self) -> None:
        self.warm = False
        if self.graph is not None:
            self.graph.close()
            self.graph = None


@dataclass
class _Lane:
    """The contexts that run on one stream, least recently used first.

    They never run at the same time, so they share the memory they work in.
    """

    jobs: List[_Job] = field(default_factory=list)
    memory: Optional[DeviceBuffer] = None
    scratch: Dict[str, DeviceBuffer] = field(default_factory=dict)

    def close(self) -> None:
        for job in self.jobs:
            job.forget_graph()
        self.jobs.clear()
        for buffer in (*self.scratch.values(), *([self.memory] if self.memory else [])):
            buffer.close()


class TensorRTNetwork:
    """Runs an engine; implements ``DeviceNetwork``. Safe from one thread per stream.

    Attributes:
        name: Runtime and version, e.g. ``tensorrt 10.3``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        input_dtype: What the input buffer holds: float32 or float16.
        output_dtype: Likewise of the output buffer.
        max_batch: Most pictures of one run.
    """

    def __init__(
        self,
        device: Device,
        loaded: LoadedEngine,
        size: Tuple[int, int],
        *,
        expected: Optional[Sequence[int]] = None,
        precision: Optional[str] = None,
        graphs: bool = True,
        contexts: Optional[int] = None,
        convert: Callable[[Device, int], Converter] = RowsKernel,
    ) -> None:
        """Check the engine's inputs and outputs, and make a first context.

        Args:
            device: Where it runs.
            loaded: The engine.
            size: Width and height of the input, pixels.
            expected: Shape of one picture's output as the head decodes it (-1 fits any):
                which of several outputs is taken. The first where None.
            precision: From the engine's manifest; else what file and input say.
            graphs: Whether runs are replayed as CUDA graphs of the network's own. Off where
                the caller records ``enqueue`` into a graph.
            contexts: Most contexts per stream; one for each pair of buffers and batch size
                where None.
            convert: Makes what turns the outputs of EfficientNMS into rows.

        Raises:
            ModelError: The engine is no detector, or not for this size.
            EngineError: TensorRT cannot run it.
        """
        self._device = device
        self._loaded: Optional[LoadedEngine] = loaded
        self._path = loaded.path
        self._input = only_input(loaded)
        self._shape = (3, size[1], size[0])
        self.max_batch = _checked_batch(loaded, self._input, size)
        self._outputs = [t for t in loaded.api.tensors if not t.is_input]
        self.name = loaded.label
        self.input_dtype: DTypeLike = self._input.dtype
        self.precision = precision or loaded.precision or _precision(self._input)
        self._graphs = graphs
        self._most = contexts
        self._lock = threading.Lock()
        self._lanes: Dict[int, _Lane] = {}
        self._contexts = 1
        self._spare: Optional[Context] = loaded.api.context(0, 0)
        self._shapes = self._all_shapes(self._spare)
        self._nms = efficient_nms.find(self._outputs)
        self._convert = None if self._nms is None else convert(device, self._nms.most)
        self._output = self._choose_output(expected)
        self.output_dtype: DTypeLike = self._output.dtype

    @property
    def _engine(self) -> LoadedEngine:
        if self._loaded is None:
            raise EngineError(f"the engine {self._path} is closed")
        return self._loaded

    def output_shape(self, batch: int) -> Shape:
        """Shape of the output buffer for ``batch`` pictures."""
        if batch not in self._shapes:
            raise EngineError(
                f"the engine {self._path} takes 1 to {self.max_batch} picture(s), not {batch}"
            )
        if self._nms is not None:
            return batch, self._nms.most, efficient_nms.COLUMNS
        return self._shapes[batch][self._output.name]

    def recordable(self, combinations: int) -> bool:
        """Whether the caller may record so many pairs of buffers and batch sizes into graphs.

        Each needs a context that no other run changes, and an engine with open shapes has one
        context per optimisation profile before TensorRT 10.
        """
        most = self._engine.api.most_contexts
        limits = [n for n in (most, self._most) if n is not None]
        return combinations <= min(limits, default=combinations)

    def enqueue(
        self,
        stream: Stream,
        batch: int,
        input: int,  # noqa: A002
        output: int,
        consumed: Optional[Event],
    ) -> None:
        """Enqueue a run.

        Args:
            stream: Where.
            batch: Pictures.
            input: Device address of (batch, 3, height, width) ``input_dtype``.
            output: Device address of ``output_shape(batch)`` ``output_dtype``, written.
            consumed: Recorded as soon as the input may be written to again.

        Raises:
            DeviceLostError: The device is gone.
            EngineError: TensorRT refuses; the message is its own.
        """
        job = self._job(stream, (batch, input, output))
        if job.graph is None and self._graphs and job.warm:
            self._capture(job, stream)
        if job.graph is not None:
            job.graph.launch(stream)
            if consumed is not None:
                stream.record(consumed)
            return
        self._run(job, stream, consumed)
        job.warm = True

    def close(self) -> None:
        """Free graphs, contexts and memory. Nothing may be under way. May be called twice."""
        with self._lock:
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()
            self._spare = None
            self._loaded = None

    def _job(self, stream: Stream, key: _Key) -> _Job:
        """The context that runs ``key``, ready to run; the most recently used is last."""
        with self._lock:
            lane = self._lanes.setdefault(stream.handle, _Lane())
            job = next((j for j in lane.jobs if j.key == key), None)
            if job is not None:
                lane.jobs.remove(job)
            else:
                job = self._free_job(lane, stream)
                self._prepare(job, lane, key, stream)
            lane.jobs.append(job)
        return job

    def _free_job(self, lane: _Lane, stream: Stream) -> _Job:
        context = self._new_context(lane, stream)
        if context is not None:
            return _Job(context)
        if not lane.jobs:
            raise EngineError(
                f"the engine {self._path} cannot run on more than {self._contexts} stream(s): it "
                "has one optimisation profile for each, and this TensorRT shares none"
            )
        job = lane.jobs.pop(0)
        if job.graph is not None:
            stream.synchronize()  # the context's state must not change under a running graph
        job.forget_graph()
        return job

    def _new_context(self, lane: _Lane, stream: Stream) -> Optional[Context]:
        """One more context, unless there are as many as may be."""
        api = self._engine.api
        context, self._spare = self._spare, None
        if context is None:
            possible = api.most_contexts is None or self._contexts < api.most_contexts
            if not possible or (self._most is not None and len(lane.jobs) >= self._most):
                return None
            context = api.context(self._contexts, stream.handle)
            self._contexts += 1
        if api.memory_bytes:
            if lane.memory is None:
                lane.memory = self._device.allocate(api.memory_bytes)
            context.set_memory(lane.memory.pointer)
        return context

    def _prepare(self, job: _Job, lane: _Lane, key: _Key, stream: Stream) -> None:
        batch, source, target = key
        shape = (batch, *self._shape)
        if not job.context.set_shape(self._input.name, shape):
            raise self._failure(f"it does not take an input of {list(shape)}", stream)
        job.addresses = {self._input.name: source}
        for spec in self._outputs:
            direct = spec is self._output and self._nms is None
            job.addresses[spec.name] = target if direct else self._scratch(lane, spec)
        job.key = key
        job.warm = False

    def _scratch(self, lane: _Lane, spec: TensorSpec) -> int:
        """Where an output is written to that is converted, or that nobody reads."""
        if spec.name not in lane.scratch:
            shape = self._shapes[self.max_batch][spec.name]
            lane.scratch[spec.name] = self._device.allocate(bytes_of(shape, spec.dtype))
        return lane.scratch[spec.name].pointer

    def _run(self, job: _Job, stream: Stream, consumed: Optional[Event]) -> None:
        event = None if consumed is None else consumed.handle
        if not job.context.enqueue(stream.handle, job.addresses, event):
            raise self._failure("a run failed", stream)
        self._to_rows(job, stream)

    def _to_rows(self, job: _Job, stream: Stream) -> None:
        if self._nms is None or self._convert is None or job.key is None:
            return
        batch, _, target = job.key
        sources = [job.addresses[name] for name in self._nms.names]
        self._convert.launch(stream, batch, sources, target)

    def _capture(self, job: _Job, stream: Stream) -> None:
        if not job.context.capturable(stream.handle):
            return
        try:
            # Events inside a graph are the graph's own: the caller's is recorded after it.
            job.graph = self._device.graph(stream, lambda: self._enqueue_captured(job, stream))
        except DeviceLostError:
            raise
        except EngineError as error:
            self._graphs = False
            _log.warning("cuda_graph_unavailable", engine=str(self._path), reason=str(error))

    def _enqueue_captured(self, job: _Job, stream: Stream) -> None:
        if not job.context.enqueue(stream.handle, job.addresses, None):
            raise EngineError(self._engine.messages.take())
        self._to_rows(job, stream)

    def _failure(self, what: str, stream: Stream) -> EngineError:
        reason = self._engine.messages.take()
        stream.synchronize()  # raises DeviceLostError where that is the true reason
        return EngineError(f"{self.name} cannot run the engine {self._path}: {what}: {reason}")

    def _all_shapes(self, context: Context) -> Dict[int, Dict[str, Shape]]:
        return {batch: self._ask(context, batch) for batch in range(1, self.max_batch + 1)}

    def _ask(self, context: Context, batch: int) -> Dict[str, Shape]:
        """Shapes of all outputs for a batch."""
        shape = (batch, *self._shape)
        if not context.set_shape(self._input.name, shape):
            raise EngineError(
                f"{self.name} cannot run the engine {self._path}: it does not take an input of "
                f"{list(shape)}: {self._engine.messages.take()}"
            )
        shapes = {t.name: context.shape(t.name) for t in self._outputs}
        for name, found in shapes.items():
            if any(axis < 0 for axis in found):
                raise ModelError(
                    f"the engine {self._path} does not tell the size of its output {name!r} "
                    f"({list(found)}): build it without NMS, or with EfficientNMS"
                )
        return shapes

    def _choose_output(self, expected: Optional[Sequence[int]]) -> TensorSpec:
        """The output that the head decodes.

        Raises:
            ModelError: None of them is; the message names all shapes.
        """
        shapes = self._shapes[1]
        if self._nms is not None:
            rows = (self._nms.most, efficient_nms.COLUMNS)
            if expected is None or _fits(rows, expected):
                return next(t for t in self._outputs if t.name == self._nms.boxes)
        fits = [t for t in self._outputs if expected is None or _fits(shapes[t.name][1:], expected)]
        if not fits:
            found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ModelError(
                f"the engine {self._path} has the output(s) {found}, but its recipe's head expects "
                f"{list(expected or ())} per picture: correct head, classes, strides or input in "
                "the recipe, or build the engine from the recipe's ONNX file"
            )
        if fits[0].dtype not in _FLOATS:
            raise ModelError(f"the engine {self._path} gives {fits[0].dtype}, not float32 or 16")
        return fits[0]


_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def only_input(loaded: LoadedEngine) -> TensorSpec:
    """The engine's input. Raises ModelError where it is none for pictures."""
    inputs = [t for t in loaded.api.tensors if t.is_input]
    if len(inputs) != 1:
        raise ModelError(f"the engine {loaded.path} has {len(inputs)} inputs; a detector has one")
    spec = inputs[0]
    if spec.dtype not in _FLOATS:
        raise ModelError(f"the engine {loaded.path} takes {spec.dtype}; edgecount feeds floats")
    if len(spec.shape) != 4 or spec.shape[1] not in (3, -1):
        raise ModelError(
            f"the engine {loaded.path} has the input {list(spec.shape)}; edgecount feeds pictures, "
            "[batch, 3, height, width]"
        )
    return spec


def _checked_batch(loaded: LoadedEngine, spec: TensorSpec, size: Tuple[int, int]) -> int:
    """Most pictures of a run, where single pictures of this size go, too.

    Raises:
        ModelError: They do not; the message tells what does.
    """
    allowed = loaded.api.range_of(spec.name) or Range(spec.shape, spec.shape, spec.shape)
    wanted = (1, 3, size[1], size[0])
    if not allowed.holds(wanted):
        least, most = list(allowed.least), list(allowed.most)
        takes = str(least) if least == most else f"{least} to {most}"
        raise ModelError(
            f"the engine {loaded.path} takes inputs of {takes}, but {list(wanted)} is needed: "
            "build it for this size and from one picture on ('edgecount build --min 1x3x…')"
        )
    return allowed.most[0]


def _precision(spec: TensorSpec) -> str:
    return "fp16" if spec.dtype == np.float16 else "fp32"


def _fits(shape: Shape, expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        want < 1 or have == want for have, want in zip(shape, expected)
    )
