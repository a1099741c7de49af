"""TensorRT's Python API in four flavours, run by ONNX Runtime on host memory.

``module("8.2")``, ``"8.6"``, ``"10.3"``, ``"11.0"`` and ``"rtx"`` return an object that has
what that version's module has of what edgecount calls, and nothing else: a call that the
version lacks raises AttributeError. Names and parameters are compared with the real modules
by ``tests/unit/infer/tensorrt/test_signatures.py``. Addresses are host addresses.

A plan is an ONNX file behind a line of JSON; :func:`plan` makes one. The rules that a real
engine enforces are enforced here, too: shapes within the profile, every address set, one
context per profile before TensorRT 10, memory given to contexts that do not own theirs.
"""

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx
import onnxruntime

VERSIONS = {
    "8.2": "8.2.1.8",
    "8.6": "8.6.2.3",
    "10.3": "10.3.0.30",
    "11.0": "11.0.0.114",
    "rtx": "1.7.1.116",
}
_MAGIC = b"ftrt"
_NUMPY = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}
_NUMPY.update({onnx.TensorProto.INT32: "INT32", onnx.TensorProto.INT64: "INT64"})
_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64}

Shape = Tuple[int, ...]


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW16 = 4


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ErrorCodeTRT(enum.IntEnum):
    SUCCESS = 0
    UNSPECIFIED_ERROR = 1
    INTERNAL_ERROR = 2
    INVALID_ARGUMENT = 3


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


class IErrorRecorder:
    def __init__(self) -> None:
        self.ready = True


def plan(
    model: onnx.ModelProto,
    version: str,
    *,
    profiles: Sequence[Tuple[Shape, Shape, Shape]] = (),
    memory: int = 4096,
    layout: str = "LINEAR",
    **extra: Any,
) -> bytes:
    """An engine for ``module(version)``.

    Args:
        profiles: Least, usual and greatest input shape, each; none for a fixed input.
        memory: Bytes that a context works in.
        layout: Format of all tensors.
        extra: ``fail``: message of every run; ``implicit_batch``: as from a UFF file.
    """
    head = {"version": VERSIONS[version], "profiles": list(profiles), "memory": memory}
    text = json.dumps({**head, "layout": layout, **extra})
    return _MAGIC + text.encode() + b"\n" + model.SerializeToString()


def module(
    flavour: str, enqueue: Optional[Callable[[int, Callable[[], None]], None]] = None
) -> Any:
    """The module.

    Args:
        flavour: A key of :data:`VERSIONS`.
        enqueue: Takes work for a stream; done at once where None.
    """
    made = SimpleNamespace(
        __name__="tensorrt_rtx" if flavour == "rtx" else "tensorrt",
        __version__=VERSIONS[flavour],
        ILogger=ILogger,
        IErrorRecorder=IErrorRecorder,
        ErrorCodeTRT=ErrorCodeTRT,
        DataType=DataType,
        TensorFormat=TensorFormat,
        calls=[],
        consumed=[],
        enqueue=enqueue or (lambda _stream, work: work()),
    )
    by_index, both = flavour == "8.2", flavour == "8.6"
    if not by_index:
        made.TensorIOMode = TensorIOMode
    if not by_index and not both:
        made.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    if flavour != "rtx":
        made.init_libnvinfer_plugins = lambda logger, namespace: _plugins(made, logger)
    made.ICudaEngine = IndexEngine if by_index else LegacyNamedEngine if both else NamedEngine
    made.IExecutionContext = (
        IndexContext if by_index else LegacyNamedContext if both else NamedContext
    )
    if flavour == "rtx":
        made.IExecutionContext = RtxContext
    made.Runtime = lambda logger: Runtime(made, logger)
    return made


def _plugins(made: Any, logger: Any) -> bool:
    assert logger.ready
    made.calls.append(("init_libnvinfer_plugins",))
    return True


class Runtime:
    def __init__(self, trt: Any, logger: Any) -> None:
        assert logger.ready, "a derived logger must call ILogger.__init__"
        self._trt = trt
        self._logger = logger
        self.error_recorder: Any = None

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        data = bytes(serialized_engine)
        if not data.startswith(_MAGIC):
            return self._refuse("Magic tag does not match")
        head, _, model = data[len(_MAGIC) :].partition(b"\n")
        facts = json.loads(head)
        if facts["version"] != self._trt.__version__:
            return self._refuse(
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {self._trt.__version__} got {facts['version']}, please rebuild."
            )
        return self._trt.ICudaEngine(self._trt, facts, model)

    def _refuse(self, why: str) -> None:
        self._logger.log(Severity.ERROR, f"1: [runtime.cpp::parse::1] Error Code 1: {why}")
        self._logger.log(Severity.VERBOSE, "Trying to load shared library")
        if self._trt.__name__ == "tensorrt_rtx":
            raise RuntimeError(why)


class _Tensor:
    def __init__(self, value: onnx.ValueInfoProto, is_input: bool) -> None:
        self.name = value.name
        self.is_input = is_input
        kind = value.type.tensor_type
        self.dtype = DataType[_NUMPY[kind.elem_type]]
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)


class _Engine:
    """What every flavour has."""

    def __init__(self, trt: Any, facts: Dict[str, Any], model: bytes) -> None:
        self._trt = trt
        self._facts = facts
        graph = onnx.load_from_string(model).graph
        self._tensors = [_Tensor(v, True) for v in graph.input]
        self._tensors += [_Tensor(v, False) for v in graph.output]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options)
        self._profiles = [tuple(tuple(s) for s in p) for p in facts["profiles"]]
        self._taken: List[int] = []
        self.error_recorder: Any = None
        self.num_optimization_profiles = max(1, len(self._profiles))

    def _by_name(self, name: str) -> _Tensor:
        return next(t for t in self._tensors if t.name == name)

    def _report(self, why: str) -> bool:
        self.error_recorder.report_error(ErrorCodeTRT.INVALID_ARGUMENT, why)
        return False

    def _log(self, *call: Any) -> None:
        self._trt.calls.append(call)


class _Context:
    """What every flavour has; profiles, shapes and the run itself."""

    def __init__(self, engine: _Engine, own_profiles: bool) -> None:
        self._engine = engine
        self._own_profiles = own_profiles and bool(engine._profiles)
        self._shapes: Dict[str, Shape] = {
            t.name: t.shape for t in engine._tensors if t.is_input and -1 not in t.shape
        }
        self._profile: Optional[int] = None
        if not self._own_profiles or 0 not in engine._taken:
            self._profile = 0
            engine._taken.append(0)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        engine = self._engine
        engine._log("set_optimization_profile_async", profile_index)
        if profile_index >= engine.num_optimization_profiles or profile_index in engine._taken:
            return engine._report(f"profile {profile_index} is not there, or in use")
        engine._taken.append(profile_index)
        self._profile = profile_index
        return True

    def _set_shape(self, name: str, shape: Sequence[int]) -> bool:
        engine, wanted = self._engine, tuple(shape)
        if self._profile is None:
            return engine._report("no optimization profile is set")
        tensor = engine._by_name(name)
        if engine._profiles:
            low, _, high = engine._profiles[self._profile]
            fits = all(a <= x <= b for a, x, b in zip(low, wanted, high))
        else:
            fits = wanted == tensor.shape
        if not fits:
            return engine._report(f"Given static dimension at index 0 of {name} does not match")
        self._shapes[name] = wanted
        return True

    def _shape(self, name: str) -> Shape:
        tensor = self._engine._by_name(name)
        if tensor.is_input:
            return self._shapes.get(name, tensor.shape)
        if -1 not in tensor.shape or not self._shapes:
            return tensor.shape
        zeros = self._zeros()
        return tuple(self._engine._session.run([name], zeros)[0].shape)

    def _zeros(self) -> Dict[str, Any]:
        inputs = (t for t in self._engine._tensors if t.is_input)
        return {t.name: np.zeros(self._shapes[t.name], _TYPES[t.dtype.name]) for t in inputs}

    def _execute(self, stream: int, addresses: Dict[str, int]) -> bool:
        engine = self._engine
        if engine._facts.get("fail"):
            return engine._report(engine._facts["fail"])
        inputs = [t for t in engine._tensors if t.is_input]
        if any(t.name not in self._shapes for t in inputs):
            return engine._report("input shapes are not specified")
        missing = [t.name for t in engine._tensors if not addresses.get(t.name)]
        if missing:
            return engine._report(f"no address for {missing[0]}")
        # What a graph replays are the shapes and addresses of its capture.
        shapes, at = dict(self._shapes), dict(addresses)

        def work() -> None:
            feeds = {t.name: _view(at[t.name], shapes[t.name], t) for t in inputs}
            outputs = [t for t in engine._tensors if not t.is_input]
            for tensor, value in zip(outputs, engine._session.run(None, feeds)):
                _view(at[tensor.name], value.shape, tensor)[...] = value

        engine._trt.enqueue(stream, work)
        return True


def _view(address: int, shape: Shape, tensor: _Tensor) -> "np.ndarray[Any, Any]":
    dtype = np.dtype(_TYPES[tensor.dtype.name])
    size = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


class IndexContext(_Context):
    """TensorRT 8.2."""

    def __init__(self, engine: "IndexEngine") -> None:
        super().__init__(engine, own_profiles=True)

    def set_binding_shape(self, binding: int, shape: Sequence[int]) -> bool:
        self._engine._log("set_binding_shape", binding, tuple(shape))
        return self._set_shape(self._name(binding), shape)

    def get_binding_shape(self, binding: int) -> Shape:
        return self._shape(self._name(binding))

    def execute_async_v2(
        self, bindings: List[int], stream_handle: int, input_consumed: Any = None
    ) -> bool:
        assert len(bindings) == self._engine.num_bindings
        self._engine._log("execute_async_v2", tuple(bindings), stream_handle)
        first = (self._profile or 0) * len(self._engine._tensors)
        names = [t.name for t in self._engine._tensors]
        done = self._execute(stream_handle, dict(zip(names, bindings[first:])))
        if done and input_consumed is not None:
            self._engine._trt.consumed.append(_event_in(input_consumed))
        return done

    def _name(self, binding: int) -> str:
        count = len(self._engine._tensors)
        assert binding // count == self._profile, "a binding of another profile"
        return self._engine._tensors[binding % count].name


def _event_in(capsule: Any) -> int:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    event = ctypes.c_void_p.from_address(pointer(capsule, None)).value
    assert event is not None
    return event


class IndexEngine(_Engine):
    """TensorRT 8.2."""

    @property
    def num_bindings(self) -> int:
        return len(self._tensors) * self.num_optimization_profiles

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return bool(self._facts.get("implicit_batch"))

    def get_binding_name(self, index: int) -> str:
        profile, at = divmod(index, len(self._tensors))
        return self._tensors[at].name + (f" [profile {profile}]" if profile else "")

    def get_binding_index(self, name: str) -> int:
        return next((i for i in range(self.num_bindings) if self.get_binding_name(i) == name), -1)

    def binding_is_input(self, index: int) -> bool:
        return self._tensors[index % len(self._tensors)].is_input

    def get_binding_shape(self, index: Any) -> Shape:
        at = self.get_binding_index(index) if isinstance(index, str) else index
        return self._tensors[at % len(self._tensors)].shape

    def get_binding_dtype(self, index: int) -> DataType:
        return self._tensors[index % len(self._tensors)].dtype

    def get_binding_format(self, index: int) -> TensorFormat:
        return TensorFormat[self._facts["layout"]]

    def get_profile_shape(self, profile_index: int, binding: int) -> List[Shape]:
        return list(self._profiles[profile_index])

    def create_execution_context(self) -> IndexContext:
        self._log("create_execution_context")
        return IndexContext(self)


class _NamedContext(_Context):
    """From TensorRT 8.5 on."""

    def __init__(self, engine: "_NamedEngine", *, own_profiles: bool, needs_memory: bool) -> None:
        super().__init__(engine, own_profiles)
        self._needs_memory = needs_memory
        self._addresses: Dict[str, int] = {}
        self._consumed = 0

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self._engine._log("set_input_shape", name, tuple(shape))
        return self._set_shape(name, shape)

    def get_tensor_shape(self, name: str) -> Shape:
        return self._shape(name)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._engine._log("set_tensor_address", name, memory)
        self._addresses[name] = memory
        return True

    def set_input_consumed_event(self, event: int) -> bool:
        self._engine._log("set_input_consumed_event", event)
        self._consumed = event
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._engine._log("execute_async_v3", stream_handle)
        if self._needs_memory:
            return self._engine._report("no device memory was set")
        done = self._execute(stream_handle, self._addresses)
        if done and self._consumed:
            self._engine._trt.consumed.append(self._consumed)
        return done


class LegacyNamedContext(_NamedContext):
    """TensorRT 8.5 and 8.6: a profile for each context."""

    def __init__(self, engine: "_NamedEngine") -> None:
        super().__init__(engine, own_profiles=True, needs_memory=False)


class NamedContext(_NamedContext):
    """TensorRT 10 and 11."""

    def __init__(self, engine: "_NamedEngine", strategy: Any) -> None:
        managed = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        super().__init__(engine, own_profiles=False, needs_memory=managed)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._engine._facts["memory"]
        self._engine._log("set_device_memory", memory)
        self._needs_memory = False


class RtxContext(NamedContext):
    """TensorRT-RTX."""

    def is_stream_capturable(self, stream: int) -> bool:
        return not self._engine._facts.get("not_capturable", False)


class _NamedEngine(_Engine):
    """From TensorRT 8.5 on."""

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._by_name(name).is_input else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> Shape:
        return self._by_name(name).shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._by_name(name).dtype

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat[self._facts["layout"]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> List[Shape]:
        return list(self._profiles[profile_index])


class LegacyNamedEngine(_NamedEngine):
    """TensorRT 8.5 and 8.6, which have both ways to name a tensor."""

    def get_binding_index(self, name: str) -> int:
        return [t.name for t in self._tensors].index(name)

    def create_execution_context(self) -> LegacyNamedContext:
        self._log("create_execution_context")
        return LegacyNamedContext(self)


class NamedEngine(_NamedEngine):
    """TensorRT 10 and 11, and TensorRT-RTX."""

    @property
    def device_memory_size_v2(self) -> int:
        return int(self._facts["memory"])

    def create_execution_context(
        self, strategy: Any = ExecutionContextAllocationStrategy.STATIC
    ) -> NamedContext:
        self._log("create_execution_context", strategy.name)
        made: NamedContext = self._trt.IExecutionContext(self, strategy)
        return made
