"""The CUDA driver as typed objects: device, streams, events, memory, modules, graphs.

Each object owns its handle and frees it in ``close``; closing the device closes all of
them. Every return code is checked and becomes an :class:`~edgecount.errors.EngineError`
with the driver's text, or a :class:`~edgecount.errors.DeviceLostError` after which only a
new context helps.

The device's primary context is used, the same as that of ONNX Runtime and TensorRT, so
pointers and streams pass freely between them. A thread must call :meth:`Device.use` once
before it calls anything else here.
"""

import contextlib
import ctypes
from types import TracebackType
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np
from typing_extensions import Protocol, Self

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.cuda import _bindings
from edgecount.records import UInt8Array

Dimensions = Tuple[int, int, int]

_NOT_READY = 600
# Results after which every later call in the context fails alike (cuda.h: "the process must
# be terminated and relaunched", "the context cannot be used"), or the device is gone.
LOST = frozenset(
    {4, 46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 999}
)

_STREAM_NON_BLOCKING = 1
_EVENT_BLOCKING_SYNC = 1
_EVENT_DISABLE_TIMING = 2
_HOST_PORTABLE = 1
_HOST_MAPPED = 2
_HOST_WRITE_COMBINED = 4
_CAPTURE_RELAXED = 2
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_DEFAULT_SHARED = 48 * 1024

# CUdevice_attribute
_MULTIPROCESSORS = 16
_INTEGRATED = 18
_CAN_MAP = 19
_MAJOR, _MINOR = 75, 76
_SHARED_OPTIN = 97


class Budget(Protocol):
    """Decides about memory; see :class:`~.memory.MemoryBudget`."""

    def reserve(self, size: int) -> None: ...

    def give_back(self, size: int) -> None: ...


class _Closable(Protocol):
    def close(self) -> None: ...


_Made = TypeVar("_Made", bound=_Closable)


class DeviceProperties(NamedTuple):
    """What a device is.

    Attributes:
        name: As the driver calls it.
        number: Its index among the driver's devices.
        capability: Compute capability, e.g. ``(8, 7)``.
        multiprocessors: How many there are.
        shared_bytes: Most shared memory that a block can have.
        memory_bytes: Its memory, in all.
        integrated: Whether it shares the host's memory (Jetson).
        maps_host: Whether kernels can read pinned host memory.
        driver: CUDA version that the driver supports, e.g. ``(13, 0)``.
    """

    name: str
    number: int
    capability: Tuple[int, int]
    multiprocessors: int
    shared_bytes: int
    memory_bytes: int
    integrated: bool
    maps_host: bool
    driver: Tuple[int, int]

    @property
    def arch(self) -> str:
        """As compilers call the capability, e.g. ``sm_87``."""
        return "sm_{}{}".format(*self.capability)


class Device:
    """A device and its primary context. See :meth:`open`."""

    def __init__(self, calls: Any, handle: Any, properties: DeviceProperties) -> None:
        self.calls = calls
        self.properties = properties
        self._handle = handle
        self._owned: Dict[int, _Closable] = {}
        self._closed = False
        self._budget: Optional[Budget] = None
        self._context = self.check(calls.cuDevicePrimaryCtxRetain(handle), "opening the device")
        self.use()

    @classmethod
    def open(cls, index: int = 0, calls: Optional[Any] = None) -> "Device":
        """Open device number ``index`` and make it this thread's.

        Args:
            index: Number of the device.
            calls: The driver's functions; found on this machine where None.

        Raises:
            EngineError: There is no driver, or no such device.
        """
        calls = calls or _bindings.load()
        check(calls, calls.cuInit(0), "starting CUDA")
        count = check(calls, calls.cuDeviceGetCount(), "counting devices")
        if index >= count:
            raise EngineError(f"there is no CUDA device {index}: the driver sees {count}")
        handle = check(calls, calls.cuDeviceGet(index), f"opening CUDA device {index}")
        return cls(calls, handle, _properties(calls, handle, index))

    def use(self) -> None:
        """Make this device the calling thread's."""
        self.check(self.calls.cuCtxSetCurrent(self._context), "entering the context")

    def free_bytes(self) -> int:
        """Device memory that nobody uses, of all processes; the board's on a Jetson."""
        free: int = self.check(self.calls.cuMemGetInfo(), "asking for free memory")[0]
        return free

    def limit_memory(self, budget: "Budget") -> None:
        """From now on ``budget`` is asked before memory is taken."""
        self._budget = budget

    def reserve(self, size: int) -> None:
        """``size`` bytes of device memory are about to be taken. Raises EngineError."""
        if self._budget is not None:
            self._budget.reserve(size)

    def give_back(self, size: int) -> None:
        """``size`` bytes of device memory are free again."""
        if self._budget is not None:
            self._budget.give_back(size)

    def stream(self, priority: int = 0) -> "Stream":
        """A new stream that does not wait for the default stream."""
        return self._own(Stream(self, priority))

    def event(self, *, timing: bool = False, blocking: bool = False) -> "Event":
        """A new event.

        Args:
            timing: Whether :meth:`Event.since` can be asked.
            blocking: Whether a thread that waits for it sleeps instead of spinning.
        """
        return self._own(Event(self, timing, blocking))

    def allocate(self, size: int) -> "DeviceBuffer":
        """``size`` bytes of device memory, not initialised."""
        return self._own(DeviceBuffer(self, size))

    def pinned(
        self, size: int, *, mapped: bool = False, write_combined: bool = False
    ) -> "PinnedBuffer":
        """``size`` bytes of page-locked host memory.

        Args:
            size: Bytes.
            mapped: Whether kernels can read and write it at ``device_pointer``.
            write_combined: Faster for the device to read, very slow for the host to.
        """
        return self._own(PinnedBuffer(self, size, mapped, write_combined))

    def module(self, image: bytes) -> "Module":
        """Load a cubin or PTX."""
        return self._own(Module(self, image))

    def graph(self, stream: "Stream", work: Callable[[], None]) -> "Graph":
        """Record what ``work`` enqueues on ``stream``, instead of doing it.

        Other streams take part when they wait for an event of ``stream``; ``stream`` must
        wait for them at the end.

        Raises:
            EngineError: Something in it cannot be captured; nothing was done.
        """
        return self._own(Graph(self, stream, work))

    def check(self, returned: Sequence[Any], doing: str) -> Any:
        """The outputs of a driver call; see :func:`check`."""
        if len(returned) == 1 and not returned[0]:
            return None  # a dozen calls a batch end here
        return check(self.calls, returned, doing)

    def release(self, owner: _Closable, returned: Sequence[Any]) -> None:
        """``owner`` has freed its handle.

        The result is not looked at: after a sticky error every call fails, and what was to
        be freed has gone with the context.
        """
        del returned
        self._owned.pop(id(owner), None)

    def close(self) -> None:
        """Free everything that was made from this device. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for owned in reversed(list(self._owned.values())):
            owned.close()
        self.calls.cuDevicePrimaryCtxRelease(self._handle)

    def destroy(self) -> None:
        """Close, and destroy the context with all that anybody has in it.

        Sessions of ONNX Runtime and TensorRT on this device must be closed before. After an
        illegal memory access not even this lets a process open the device again.
        """
        self.close()
        self.calls.cuDevicePrimaryCtxReset(self._handle)

    def _own(self, made: _Made) -> _Made:
        self._owned[id(made)] = made
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


class Event:
    """A point in a stream's work; made by :meth:`Device.event`."""

    def __init__(self, device: Device, timing: bool, blocking: bool) -> None:
        flags = _EVENT_BLOCKING_SYNC * blocking | _EVENT_DISABLE_TIMING * (not timing)
        self._device = device
        self.raw = device.check(device.calls.cuEventCreate(flags), "making an event")
        self.handle = int(self.raw)

    def done(self) -> bool:
        """Whether the work before its last record is over; True where it was never recorded."""
        returned = self._device.calls.cuEventQuery(self.raw)
        if int(returned[0]) == _NOT_READY:
            return False
        self._device.check(returned, "asking for an event")
        return True

    def synchronize(self) -> None:
        """Wait until the work before its last record is over."""
        calls = self._device.calls
        self._device.check(calls.cuEventSynchronize(self.raw), "waiting for the device")

    def since(self, start: "Event") -> float:
        """Seconds from ``start`` to this event; both were made with ``timing`` and are done."""
        calls = self._device.calls
        elapsed = self._device.check(
            calls.cuEventElapsedTime(start.raw, self.raw), "reading the time between events"
        )
        return 1e-3 * float(elapsed)

    def close(self) -> None:
        """Free it; work that waits for it is not disturbed."""
        if self.handle:
            self.handle = 0
            self._device.release(self, self._device.calls.cuEventDestroy(self.raw))


class Stream:
    """A queue of work; made by :meth:`Device.stream`."""

    def __init__(self, device: Device, priority: int = 0) -> None:
        self._device = device
        self._calls = device.calls
        self.raw = device.check(
            device.calls.cuStreamCreateWithPriority(_STREAM_NON_BLOCKING, priority),
            "making a stream",
        )
        self.handle = int(self.raw)

    def launch(
        self,
        function: "Function",
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Any],
        shared: int = 0,
        *,
        cooperative: bool = False,
    ) -> None:
        """Enqueue a kernel.

        Args:
            function: The kernel.
            grid: Blocks in x, y and z.
            block: Threads of a block in x, y and z.
            args: ctypes values (``c_void_p(pointer)``, ``c_int(n)``, structures), or an
                :class:`Arguments` made of them before.
            shared: Bytes of dynamic shared memory; above 48 KiB the function must allow it,
                see :meth:`Function.allow_shared`.
            cooperative: Whether blocks may wait for each other; all must fit at once.
        """
        packed = args if isinstance(args, Arguments) else Arguments(args)
        shape = (*grid, *block, shared, self.raw, packed.address)
        if cooperative:
            returned = self._calls.cuLaunchCooperativeKernel(function.raw, *shape)
        else:
            returned = self._calls.cuLaunchKernel(function.raw, *shape, 0)
        self._device.check(returned, function.doing)

    def wait(self, event: Event) -> None:
        """Later work waits for ``event``; the host does not."""
        self._device.check(
            self._calls.cuStreamWaitEvent(self.raw, event.raw, 0), "enqueueing a wait"
        )

    def record(self, event: Event) -> None:
        """``event`` is done when all work so far is."""
        self._device.check(self._calls.cuEventRecord(event.raw, self.raw), "recording an event")

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy ``size`` bytes from host address ``source`` (pinned) to the device."""
        self._device.check(
            self._calls.cuMemcpyHtoDAsync(target, source, size, self.raw), "copying to the device"
        )

    def download(self, target: int, source: int, size: int) -> None:
        """Copy ``size`` bytes from the device to host address ``target`` (pinned)."""
        self._device.check(
            self._calls.cuMemcpyDtoHAsync(target, source, size, self.raw),
            "copying from the device",
        )

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy ``size`` bytes within the device."""
        self._device.check(
            self._calls.cuMemcpyDtoDAsync(target, source, size, self.raw),
            "copying on the device",
        )

    def fill(self, target: int, value: int, size: int) -> None:
        """Set ``size`` bytes of device memory to ``value``."""
        self._device.check(
            self._calls.cuMemsetD8Async(target, value, size, self.raw), "filling memory"
        )

    def synchronize(self) -> None:
        """Wait until everything enqueued is done."""
        self._device.check(self._calls.cuStreamSynchronize(self.raw), "waiting for a stream")

    def close(self) -> None:
        """Free it once its work is done; does not wait."""
        if self.handle:
            self.handle = 0
            self._device.release(self, self._calls.cuStreamDestroy(self.raw))


class DeviceBuffer:
    """Device memory; made by :meth:`Device.allocate`. ``pointer`` is its address."""

    def __init__(self, device: Device, size: int) -> None:
        device.reserve(size)
        self._device = device
        self.size = size
        self.pointer = int(
            device.check(device.calls.cuMemAlloc(size), f"allocating {size:,} bytes on the device")
        )

    def close(self) -> None:
        """Free it; waits for work that uses it."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self._device.release(self, self._device.calls.cuMemFree(pointer))
            self._device.give_back(self.size)


class PinnedBuffer:
    """Page-locked host memory; made by :meth:`Device.pinned`.

    Attributes:
        pointer: Host address.
        device_pointer: Address for kernels; 0 where it is not mapped.
        array: The memory as (size,) uint8; must not be used after ``close``.
        size: Bytes.
    """

    def __init__(self, device: Device, size: int, mapped: bool, write_combined: bool) -> None:
        flags = _HOST_PORTABLE | _HOST_MAPPED * mapped | _HOST_WRITE_COMBINED * write_combined
        calls = device.calls
        if device.properties.integrated:
            device.reserve(size)
        self._device = device
        self.size = size
        self.pointer = int(
            device.check(
                calls.cuMemHostAlloc(size, flags), f"allocating {size:,} bytes of pinned memory"
            )
        )
        self.device_pointer = 0
        if mapped:
            self.device_pointer = int(
                device.check(calls.cuMemHostGetDevicePointer(self.pointer, 0), "mapping memory")
            )
        memory = (ctypes.c_uint8 * size).from_address(self.pointer)
        self.array: UInt8Array = np.frombuffer(memoryview(memory), np.uint8)

    def close(self) -> None:
        """Free it."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self.array = np.zeros(0, np.uint8)
            self._device.release(self, self._device.calls.cuMemFreeHost(pointer))
            if self._device.properties.integrated:
                self._device.give_back(self.size)


class Module:
    """Loaded kernels; made by :meth:`Device.module`."""

    def __init__(self, device: Device, image: bytes) -> None:
        self._device = device
        self.raw: Any = device.check(device.calls.cuModuleLoadData(image), "loading kernels")

    def function(self, name: str) -> "Function":
        """The kernel called ``name`` (``extern "C"``)."""
        raw = self._device.check(
            self._device.calls.cuModuleGetFunction(self.raw, name.encode()),
            f"looking for the kernel {name}",
        )
        return Function(self._device, name, raw)

    def close(self) -> None:
        """Unload it."""
        if self.raw is not None:
            raw, self.raw = self.raw, None
            self._device.release(self, self._device.calls.cuModuleUnload(raw))


class Function:
    """A kernel; made by :meth:`Module.function` and alive as long as its module."""

    def __init__(self, device: Device, name: str, raw: Any) -> None:
        self._device = device
        self.name = name
        self.raw = raw
        self.doing = f"launching the kernel {name}"

    def allow_shared(self, size: int) -> None:
        """Let a launch have ``size`` bytes of dynamic shared memory, also above 48 KiB."""
        if size <= _DEFAULT_SHARED:
            return
        calls = self._device.calls
        self._device.check(
            calls.cuFuncSetAttribute(
                self.raw, calls.CUfunction_attribute(_MAX_DYNAMIC_SHARED), size
            ),
            f"giving the kernel {self.name} {size:,} bytes of shared memory",
        )


class Arguments(Sequence[Any]):
    """A kernel's arguments, laid out once for many launches.

    Later changes of the ctypes values' ``.value`` go with the next launch.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = tuple(values)
        self._pointers = (ctypes.c_void_p * max(1, len(self._values)))(
            *(ctypes.addressof(v) for v in self._values)
        )
        self.address = ctypes.addressof(self._pointers)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]


class Graph:
    """Recorded work; made by :meth:`Device.graph`."""

    def __init__(self, device: Device, stream: Stream, work: Callable[[], None]) -> None:
        self._device = device
        calls = device.calls
        mode = calls.CUstreamCaptureMode(_CAPTURE_RELAXED)
        device.check(calls.cuStreamBeginCapture(stream.raw, mode), "starting to capture a graph")
        try:
            work()
        except EngineError:
            # What went wrong inside says more than the capture's own failure would.
            with contextlib.suppress(EngineError):
                device.check(calls.cuStreamEndCapture(stream.raw), "ending a capture")
            raise
        graph = device.check(calls.cuStreamEndCapture(stream.raw), "capturing a graph")
        try:
            self.raw: Any = device.check(calls.cuGraphInstantiate(graph, 0), "making a graph")
        finally:
            calls.cuGraphDestroy(graph)

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it on ``stream``."""
        self._device.check(
            self._device.calls.cuGraphLaunch(self.raw, stream.raw), "launching a graph"
        )

    def close(self) -> None:
        """Free it."""
        if self.raw is not None:
            raw, self.raw = self.raw, None
            self._device.release(self, self._device.calls.cuGraphExecDestroy(raw))


def check(calls: Any, returned: Sequence[Any], doing: str) -> Any:
    """The outputs of a driver call: None, the only one, or a tuple.

    Args:
        calls: The driver's functions.
        returned: What the call returned.
        doing: What it was for, for the message.

    Raises:
        DeviceLostError: The context cannot be used any more.
        EngineError: The call failed.
    """
    result = int(returned[0])
    if result:
        raise _error(calls, returned[0], doing)
    if len(returned) == 2:
        return returned[1]
    return tuple(returned[1:]) or None


def _error(calls: Any, result: Any, doing: str) -> EngineError:
    name, text = (_text(ask(result)) for ask in (calls.cuGetErrorName, calls.cuGetErrorString))
    kind = DeviceLostError if int(result) in LOST else EngineError
    return kind(f"CUDA failed while {doing}: {text} ({name or int(result)})")


def _text(returned: Sequence[Any]) -> str:
    known = int(returned[0]) == 0 and isinstance(returned[1], bytes)
    return returned[1].decode() if known else "an error that this driver does not know"


def properties(index: int = 0, calls: Optional[Any] = None) -> DeviceProperties:
    """What device number ``index`` is; unlike :meth:`Device.open` makes no context on it.

    Raises:
        EngineError: There is no driver, or no such device.
    """
    calls = calls or _bindings.load()
    check(calls, calls.cuInit(0), "starting CUDA")
    handle = check(calls, calls.cuDeviceGet(index), f"opening CUDA device {index}")
    return _properties(calls, handle, index)


def _properties(calls: Any, handle: Any, index: int) -> DeviceProperties:
    def attribute(number: int) -> int:
        returned = calls.cuDeviceGetAttribute(calls.CUdevice_attribute(number), handle)
        value: int = check(calls, returned, "reading the device's properties")
        return value

    name = check(calls, calls.cuDeviceGetName(256, handle), "reading the device's name")
    memory = check(calls, calls.cuDeviceTotalMem(handle), "reading the device's memory")
    version = check(calls, calls.cuDriverGetVersion(), "reading the driver's version")
    return DeviceProperties(
        name=name.split(b"\0")[0].decode(),
        number=index,
        capability=(attribute(_MAJOR), attribute(_MINOR)),
        multiprocessors=attribute(_MULTIPROCESSORS),
        shared_bytes=attribute(_SHARED_OPTIN),
        memory_bytes=int(memory),
        integrated=bool(attribute(_INTEGRATED)),
        maps_host=bool(attribute(_CAN_MAP)),
        driver=(version // 1000, version % 1000 // 10),
    )
