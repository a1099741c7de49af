"""TensorRT's two ways to name an engine's inputs and outputs, behind one.

By index (TensorRT ≤ 8.4: bindings, ``execute_async_v2``) and by name (from 8.5, the only
one since 10: ``set_tensor_address``, ``execute_async_v3``). 8.5 and 8.6 have both; names
are taken. Which one an engine has is asked of the engine, not of a version number.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from typing_extensions import Protocol

from edgecount.errors import EngineError, ModelError

Shape = Tuple[int, ...]
# ``trt.nptype`` of TensorRT ≤ 8.6 needs ``numpy.bool``, which left NumPy in 1.24.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine; an open axis of ``shape`` is -1."""

    name: str
    is_input: bool
    dtype: "np.dtype[Any]"
    shape: Shape


@dataclass(frozen=True)
class Range:
    """The shapes of an input that one optimisation profile covers."""

    least: Shape
    best: Shape
    most: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether the profile covers ``shape``."""
        return len(shape) == len(self.least) and all(
            low <= x <= high for low, x, high in zip(self.least, shape, self.most)
        )


class Context(Protocol):
    """One execution context: the state of one run at a time."""

    def set_shape(self, name: str, shape: Shape) -> bool:
        """Give an input its shape; False where the engine does not take it."""
        ...

    def shape(self, name: str) -> Shape:
        """Shape of an input or output, once the input's is set."""
        ...

    def set_memory(self, address: int) -> None:
        """Work in ``memory_bytes`` at this device address.

        Contexts that never run at the same time may share it.
        """
        ...

    def capturable(self, stream: int) -> bool:
        """Whether a run on this stream may be captured into a graph, as far as it is known."""
        ...

    def enqueue(self, stream: int, addresses: Mapping[str, int], consumed: Optional[int]) -> bool:
        """Enqueue a run on a stream.

        Args:
            stream: The stream's handle.
            addresses: Device address of every input and output.
            consumed: Handle of an event that is recorded when the inputs were read.

        Returns:
            Whether TensorRT took it.
        """
        ...


class EngineApi(Protocol):
    """An engine, whatever its version.

    Attributes:
        tensors: Inputs and outputs in the engine's order.
        most_contexts: How many contexts can run side by side; None where any number can.
        memory_bytes: Memory that a context works in, where contexts can share it; else 0.
    """

    tensors: Sequence[TensorSpec]
    most_contexts: Optional[int]
    memory_bytes: int

    def range_of(self, name: str) -> Optional[Range]:
        """What an input's shape may be; None where it is fixed."""
        ...

    def context(self, number: int, stream: int) -> Context:
        """Make a context; where ``memory_bytes`` is not 0 it needs ``set_memory`` to run.

        Args:
            number: How many there are already.
            stream: Handle of a stream, for what making it enqueues.

        Raises:
            EngineError: TensorRT cannot make one.
        """
        ...


def open_api(trt: Any, engine: Any, share_memory: bool = True) -> EngineApi:
    """The API that ``engine``, of module ``trt``, has.

    Args:
        trt: The module.
        engine: The engine.
        share_memory: Whether contexts work in memory of ours, where they can.

    Raises:
        ModelError: The engine is of a kind that edgecount cannot run.
    """
    if hasattr(engine, "num_io_tensors"):
        return ByName(trt, engine, share_memory)
    return ByIndex(trt, engine)


class ByName:
    """TensorRT from 8.5, and TensorRT-RTX."""

    def __init__(self, trt: Any, engine: Any, share_memory: bool) -> None:
        self._trt = trt
        self._engine = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.tensors: Sequence[TensorSpec] = tuple(self._spec(name) for name in names)
        for name in names:
            _check_linear(trt, name, engine.get_tensor_format(name))
        dynamic = any(-1 in t.shape for t in self.tensors if t.is_input)
        # Contexts share a profile since TensorRT 10; before, each needs one of its own.
        own_profiles = dynamic and hasattr(engine, "get_binding_index")
        self.most_contexts = engine.num_optimization_profiles if own_profiles else None
        shareable = share_memory and hasattr(trt.IExecutionContext, "set_device_memory")
        self.memory_bytes = int(engine.device_memory_size_v2) if shareable else 0

    def range_of(self, name: str) -> Optional[Range]:
        if -1 not in tuple(self._engine.get_tensor_shape(name)):
            return None
        return Range(*(tuple(s) for s in self._engine.get_tensor_profile_shape(name, 0)))

    def context(self, number: int, stream: int) -> Context:
        made = _made(self._create())
        if self.most_contexts is not None and number:
            _use_profile(made, number, stream)
        return _NamedContext(made, [t.name for t in self.tensors], self.memory_bytes)

    def _create(self) -> Any:
        if not self.memory_bytes:
            return self._engine.create_execution_context()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._engine.create_execution_context(strategy)

    def _spec(self, name: str) -> TensorSpec:
        engine = self._engine
        return TensorSpec(
            name,
            engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT,
            _dtype(name, engine.get_tensor_dtype(name)),
            tuple(engine.get_tensor_shape(name)),
        )


class _NamedContext:
    def __init__(self, context: Any, names: Sequence[str], memory_bytes: int) -> None:
        self._context = context
        self._memory_bytes = memory_bytes
        self._addresses: Dict[str, int] = dict.fromkeys(names, 0)
        self._consumed = 0

    def set_shape(self, name: str, shape: Shape) -> bool:
        return bool(self._context.set_input_shape(name, shape))

    def shape(self, name: str) -> Shape:
        return tuple(self._context.get_tensor_shape(name))

    def set_memory(self, address: int) -> None:
        self._context.set_device_memory(address, self._memory_bytes)

    def capturable(self, stream: int) -> bool:
        # TensorRT-RTX knows: it compiles kernels while the first runs go on.
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def enqueue(self, stream: int, addresses: Mapping[str, int], consumed: Optional[int]) -> bool:
        # Only what changed: each call takes a microsecond of the thread that feeds the device.
        for name, address in addresses.items():
            if self._addresses[name] != address:
                if not self._context.set_tensor_address(name, address):
                    return False
                self._addresses[name] = address
        if self._consumed != (consumed or 0):
            self._consumed = consumed or 0
            if not self._context.set_input_consumed_event(self._consumed):
                return False
        return bool(self._context.execute_async_v3(stream))


class ByIndex:
    """TensorRT 8.2 to 8.4.

    An engine repeats its bindings once per optimisation profile: those of profile ``p``
    begin at ``p × bindings per profile``, and arrays of addresses cover all of them.
    """

    def __init__(self, trt: Any, engine: Any) -> None:
        self._engine = engine
        if engine.has_implicit_batch_dimension:
            raise ModelError(
                "the engine was built with an implicit batch dimension, as from UFF or Caffe "
                "files: build it again from an ONNX file"
            )
        profiles = max(1, engine.num_optimization_profiles)
        self._per_profile = engine.num_bindings // profiles
        self.tensors: Sequence[TensorSpec] = tuple(self._spec(i) for i in range(self._per_profile))
        for index, tensor in enumerate(self.tensors):
            _check_linear(trt, tensor.name, engine.get_binding_format(index))
        dynamic = any(-1 in t.shape for t in self.tensors if t.is_input)
        self.most_contexts: Optional[int] = profiles if dynamic else None
        self.memory_bytes = 0

    def range_of(self, name: str) -> Optional[Range]:
        if -1 not in tuple(self._engine.get_binding_shape(name)):
            return None
        index = self._engine.get_binding_index(name)
        return Range(*(tuple(s) for s in self._engine.get_profile_shape(0, index)))

    def context(self, number: int, stream: int) -> Context:
        made = _made(self._engine.create_execution_context())
        profile = number if self.most_contexts is not None else 0
        if profile:
            _use_profile(made, profile, stream)
        indices = {
            t.name: self._engine.get_binding_index(t.name) + profile * self._per_profile
            for t in self.tensors
        }
        return _IndexedContext(made, indices, self._engine.num_bindings)

    def _spec(self, index: int) -> TensorSpec:
        engine = self._engine
        name = engine.get_binding_name(index)
        return TensorSpec(
            name,
            engine.binding_is_input(index),
            _dtype(name, engine.get_binding_dtype(index)),
            tuple(engine.get_binding_shape(index)),
        )


class _IndexedContext:
    def __init__(self, context: Any, indices: Mapping[str, int], bindings: int) -> None:
        self._context = context
        self._indices = indices
        self._bindings: List[int] = [0] * bindings

    def set_shape(self, name: str, shape: Shape) -> bool:
        return bool(self._context.set_binding_shape(self._indices[name], shape))

    def shape(self, name: str) -> Shape:
        return tuple(self._context.get_binding_shape(self._indices[name]))

    def set_memory(self, address: int) -> None:
        raise NotImplementedError  # ``memory_bytes`` is 0

    def capturable(self, stream: int) -> bool:
        del stream
        return True

    def enqueue(self, stream: int, addresses: Mapping[str, int], consumed: Optional[int]) -> bool:
        for name, address in addresses.items():
            self._bindings[self._indices[name]] = address
        if consumed is None:
            return bool(self._context.execute_async_v2(self._bindings, stream))
        # TensorRT wants the address of a variable that holds the event, in a capsule.
        event = ctypes.c_void_p(consumed)
        return bool(
            self._context.execute_async_v2(
                self._bindings, stream, _capsule(ctypes.addressof(event))
            )
        )


def _capsule(address: int) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(address, None, None)


def _made(context: Any) -> Any:
    if context is None:
        raise EngineError("TensorRT cannot make an execution context")
    return context


def _use_profile(context: Any, profile: int, stream: int) -> None:
    if not context.set_optimization_profile_async(profile, stream):
        raise EngineError(f"TensorRT cannot use optimisation profile {profile}")


def _dtype(name: str, dtype: Any) -> "np.dtype[Any]":
    known = _DTYPES.get(dtype.name)
    if known is None:
        raise ModelError(f"the engine's tensor {name!r} is {dtype.name}, which cannot be used")
    return np.dtype(known)


def _check_linear(trt: Any, name: str, layout: Any) -> None:
    if layout != trt.TensorFormat.LINEAR:
        raise ModelError(
            f"the engine's tensor {name!r} is laid out as {layout.name}, not plainly: build it "
            "without --inputIOFormats and --outputIOFormats"
        )
