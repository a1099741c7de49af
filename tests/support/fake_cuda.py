"""A CUDA driver that records what is enqueued and runs it as late as it may.

``FakeCuda()`` has the functions of cuda-python's driver that ``edgecount.infer.cuda.driver``
calls. Device memory is host memory. Work waits in its stream until the host waits for it,
and then only what it depends on runs: a missing dependency gives wrong bytes, not luck.

``before(a, b)`` tells whether one piece of work must be over when another starts, by stream
order, events, and what the host had waited for when it enqueued it.
"""

# ruff: noqa: N802, N803, N815 - the names are the driver's

import ctypes
import inspect
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

_Returned = Tuple[Any, ...]
_ATTRIBUTES = {16: 4, 18: 0, 19: 1, 75: 9, 76: 0, 97: 232448}
_NAMES = {
    2: b"CUDA_ERROR_OUT_OF_MEMORY",
    700: b"CUDA_ERROR_ILLEGAL_ADDRESS",
    900: b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
}
_ALIGNMENT = 256


@dataclass
class Work:
    """One thing that was enqueued."""

    number: int
    stream: int
    what: str
    run: Callable[[], Any]
    after: Set[int] = field(default_factory=set)
    done: bool = False
    at: float = 0.0


def _named(parameters: str, call: Callable[..., _Returned]) -> Callable[..., _Returned]:
    """``call``, a method with these parameters, so that they can be compared with the driver's."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [inspect.Parameter(name, kind) for name in ["self", *parameters.split()]]

    def checked(*values: Any) -> _Returned:
        assert len(values) == len(signature), f"takes {parameters}, not {values[1:]}"
        return call(*values)

    checked.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    return checked


def _answering(parameters: str, *answer: Any) -> Callable[..., _Returned]:
    """Succeeds, always with the same answer."""
    return _named(parameters, lambda *_: (0, *answer))


def _making(parameters: str) -> Callable[..., _Returned]:
    """Makes something that is nothing but a handle."""
    return _named(parameters, lambda self, *_: (0, next(self._handles)))


def _forgetting(kept: str, handle: str) -> Callable[..., _Returned]:
    """Frees what is kept under a handle."""

    def free(self: "FakeCuda", handle: int) -> _Returned:
        del getattr(self, kept)[handle]
        return (0,)

    return _named(handle, free)


def _enqueueing(what: str, parameters: str, do: Callable[..., Any]) -> Callable[..., _Returned]:
    """Enqueues ``do`` with all parameters but the last, which is the stream."""

    def enqueue(self: "FakeCuda", *values: Any) -> _Returned:
        self.enqueue(values[-1], what, lambda: do(*values[:-1]))
        return (0,)

    return _named(parameters, enqueue)


class FakeCuda:
    """The functions. ``fail`` maps the name of a function to the result it shall return."""

    CUdevice_attribute = int
    CUfunction_attribute = int
    CUstreamCaptureMode = int

    cuInit = _answering("Flags")
    cuDriverGetVersion = _answering("", 13000)
    cuGetErrorString = _answering("error", b"as the test wants")
    cuDeviceGetCount = _answering("", 1)
    cuDeviceGetName = _answering("length dev", b"Fake\0\0")
    cuDevicePrimaryCtxRelease = _answering("dev")
    cuCtxSetCurrent = _answering("ctx")
    cuStreamDestroy = _answering("hStream")
    cuEventDestroy = _answering("hEvent")
    cuModuleUnload = _answering("hmod")
    cuFuncSetAttribute = _answering("hfunc attrib value")
    cuDevicePrimaryCtxRetain = _making("dev")
    cuEventCreate = _making("Flags")
    cuModuleLoadData = _making("image")
    cuMemcpyHtoDAsync = _enqueueing("upload", "dstDevice srcHost ByteCount hStream", ctypes.memmove)
    cuMemcpyDtoHAsync = _enqueueing(
        "download", "dstHost srcDevice ByteCount hStream", ctypes.memmove
    )
    cuMemcpyDtoDAsync = _enqueueing("copy", "dstDevice srcDevice ByteCount hStream", ctypes.memmove)
    cuMemsetD8Async = _enqueueing("fill", "dstDevice uc N hStream", ctypes.memset)
    cuMemFree = _forgetting("memory", "dptr")
    cuMemFreeHost = _forgetting("memory", "p")
    cuGraphDestroy = _forgetting("_graphs", "hGraph")
    cuGraphExecDestroy = _forgetting("_graphs", "hGraphExec")

    def __init__(self, *, integrated: bool = False, memory: int = 1 << 30) -> None:
        self.work: List[Work] = []
        self.calls: "Counter[str]" = Counter()  # noqa: UP037
        self.fail: Dict[str, int] = {}
        self.memory: Dict[int, Any] = {}
        self.kernels: Dict[str, Callable[..., Any]] = {}
        self._attributes = {**_ATTRIBUTES, 18: int(integrated)}
        self._size = memory
        self._handles = itertools.count(0x1000)
        self._last: Dict[int, int] = {}  # stream → its newest work
        self._pending: Dict[int, Set[int]] = {}  # stream → what its next work waits for
        self._events: Dict[int, int] = {}  # event → the work that records it
        self._known: Set[int] = set()  # what the host has waited for
        self._captures: Dict[int, List[Tuple[str, Callable[[], Any]]]] = {}
        self._graphs: Dict[int, List[Tuple[str, Callable[[], Any]]]] = {}
        self.tick_ms = 0.125  # how long each piece of work takes
        self._clock = 0.0

    def __getattribute__(self, name: str) -> Any:
        """Count calls, and let those fail that shall."""
        found = object.__getattribute__(self, name)
        if not name.startswith("cu") or name.startswith("cuGetError"):
            return found
        self.calls[name] += 1
        result = self.fail.get(name)
        return found if not result else (lambda *_: (result, 0, 0))

    def before(self, first: Work, second: Work) -> bool:
        """Whether ``first`` is certainly over when ``second`` starts."""
        seen, todo = set(), [second.number]
        while todo:
            number = todo.pop()
            if number == first.number:
                return True
            if number not in seen:
                seen.add(number)
                todo += self.work[number].after
        return False

    def find(self, what: str) -> List[Work]:
        """All work of this name, in the order in which it was enqueued."""
        return [w for w in self.work if w.what == what]

    def enqueue(self, stream: int, what: str, run: Callable[[], Any] = lambda: None) -> None:
        """What a library, or a test, enqueues on a stream."""
        if stream in self._captures:
            self._captures[stream].append((what, run))
            return
        after = {self._last[stream]} if stream in self._last else set()
        after |= self._pending.pop(stream, set()) | self._known
        work = Work(len(self.work), stream, what, run, after)
        self.work.append(work)
        self._last[stream] = work.number

    def cuGetErrorName(self, error: int) -> _Returned:
        return 0, _NAMES.get(error, b"CUDA_ERROR_OTHER")

    def cuDeviceGet(self, ordinal: int) -> _Returned:
        return 0, ordinal

    def cuDeviceGetAttribute(self, attrib: int, dev: int) -> _Returned:
        return 0, self._attributes[attrib]

    def cuDeviceTotalMem(self, dev: int) -> _Returned:
        return 0, self._size

    def cuDevicePrimaryCtxReset(self, dev: int) -> _Returned:
        self.fail.clear()
        return (0,)

    def cuMemGetInfo(self) -> _Returned:
        return 0, self._size // 2, self._size

    def cuMemAlloc(self, bytesize: int) -> _Returned:
        memory = (ctypes.c_uint8 * (bytesize + _ALIGNMENT))()
        ctypes.memset(memory, 0xA5, len(memory))
        address = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
        self.memory[address] = memory
        return 0, address

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> _Returned:
        return object.__getattribute__(self, "cuMemAlloc")(bytesize)  # type: ignore[no-any-return]

    def cuMemHostGetDevicePointer(self, p: int, Flags: int) -> _Returned:
        return 0, p

    def cuStreamCreateWithPriority(self, flags: int, priority: int) -> _Returned:
        assert flags == 1, "a stream that waits for the default stream"
        return 0, next(self._handles)

    def cuStreamSynchronize(self, hStream: int) -> _Returned:
        if hStream in self._last:
            self._reach(self._last[hStream])
        return (0,)

    def cuStreamWaitEvent(self, hStream: int, hEvent: int, Flags: int) -> _Returned:
        if hEvent in self._events:
            self._pending.setdefault(hStream, set()).add(self._events[hEvent])
        return (0,)

    def cuEventRecord(self, hEvent: int, hStream: int) -> _Returned:
        self.enqueue(hStream, "record")
        self._events[hEvent] = self._last[hStream]
        return (0,)

    def cuEventQuery(self, hEvent: int) -> _Returned:
        recorded = self._events.get(hEvent)
        return (0,) if recorded is None or self.work[recorded].done else (600,)

    def cuEventSynchronize(self, hEvent: int) -> _Returned:
        if hEvent in self._events:
            self._reach(self._events[hEvent])
        return (0,)

    def cuEventElapsedTime(self, hStart: int, hEnd: int) -> _Returned:
        start, end = (self.work[self._events[e]] for e in (hStart, hEnd))
        return (0, end.at - start.at) if start.done and end.done else (600, 0.0)

    def cuModuleGetFunction(self, hmod: int, name: bytes) -> _Returned:
        return 0, name.decode()

    def cuLaunchKernel(
        self,
        f: str,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: int,
        kernelParams: int,
        extra: int,
    ) -> _Returned:
        run = self.kernels.get(f)
        shape = ((gridDimX, gridDimY, gridDimZ), (blockDimX, blockDimY, blockDimZ))
        # The real driver copies the arguments before it returns.
        bound = run(shape, sharedMemBytes, kernelParams) if run else lambda: None
        self.enqueue(hStream, f, bound)
        return (0,)

    def cuLaunchCooperativeKernel(
        self,
        f: str,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: int,
        kernelParams: int,
    ) -> _Returned:
        self.enqueue(hStream, f)
        return (0,)

    def cuStreamBeginCapture(self, hStream: int, mode: int) -> _Returned:
        self._captures[hStream] = []
        return (0,)

    def cuStreamEndCapture(self, hStream: int) -> _Returned:
        handle = next(self._handles)
        self._graphs[handle] = self._captures.pop(hStream)
        return 0, handle

    def cuGraphInstantiate(self, hGraph: int, flags: int) -> _Returned:
        handle = next(self._handles)
        self._graphs[handle] = self._graphs[hGraph]
        return 0, handle

    def cuGraphLaunch(self, hGraphExec: int, hStream: int) -> _Returned:
        for what, run in self._graphs[hGraphExec]:
            self.enqueue(hStream, what, run)
        return (0,)

    def _reach(self, number: int) -> None:
        """Run what ``number`` depends on, and it; the host knows then that all that is over."""
        needed, todo = set(), [number]
        while todo:
            n = todo.pop()
            if n not in needed and not self.work[n].done:
                needed.add(n)
                todo += self.work[n].after
        for n in sorted(needed):  # work depends on older work only
            self._run(self.work[n])
        self._known = {number}

    def _run(self, work: Work) -> None:
        work.run()
        work.done = True
        self._clock += self.tick_ms
        work.at = self._clock


def allocations(calls: "Counter[str]") -> int:
    """How often memory, device or pinned, was taken."""
    return calls["cuMemAlloc"] + calls["cuMemHostAlloc"]


def host_waits(calls: "Counter[str]") -> Sequence[Tuple[str, int]]:
    """What the host waited for, with counts."""
    kinds = ("cuEventSynchronize", "cuStreamSynchronize", "cuCtxSynchronize")
    return [(kind, calls[kind]) for kind in kinds if calls[kind]]


def parameters_of(function: Any) -> Optional[List[str]]:
    """Names of the parameters of a function or method; None where it does not say."""
    try:
        return [p for p in inspect.signature(function).parameters if p != "self"]
    except (TypeError, ValueError):
        return None
