"""A CUDA driver whose device memory is host memory: streams run at once, captures record.

``HostCuda()`` has the functions of cuda-python's driver that ``edgecount.infer.cuda.driver``
calls (no kernels), each returning ``(result, outputs…)``. ``device(calls)`` opens it.
"""

import ctypes
import itertools
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgecount.infer.cuda.driver import Device

_UNSUPPORTED_IN_CAPTURE = 900
_NAMES = {900: b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", 700: b"CUDA_ERROR_ILLEGAL_ADDRESS"}
_ATTRIBUTES = {16: 4, 18: 0, 19: 1, 75: 8, 76: 7, 97: 166912}


class HostCuda:
    """The functions; ``capturable`` False makes captures fail, ``broken`` every wait."""

    CUdevice_attribute = int
    CUfunction_attribute = int
    CUstreamCaptureMode = int

    def __init__(self) -> None:
        self.capturable = True
        self.broken = False
        self.synchronized = 0
        self.graphs_launched = 0
        self.events: List[int] = []
        self._numbers = itertools.count(1000)
        self._memory: Dict[int, Any] = {}
        self._capture: Optional[Tuple[int, List[Callable[[], None]]]] = None
        self._graphs: Dict[int, List[Callable[[], None]]] = {}
        self._recorded: Dict[int, float] = {}

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """What a library enqueues on a stream."""
        if self._capture is not None and self._capture[0] == stream:
            self._capture[1].append(work)
        else:
            work()

    def allocated(self) -> int:
        """Pieces of memory that are not freed."""
        return len(self._memory)

    def cuInit(self, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuDeviceGetCount(self) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 1

    def cuDeviceGet(self, index: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, index

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, _ATTRIBUTES[attribute]

    def cuDeviceGetName(self, length: int, device: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, b"Host CUDA\0"

    def cuDeviceTotalMem(self, device: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 8 << 30

    def cuDriverGetVersion(self) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 12060

    def cuDevicePrimaryCtxRetain(self, device: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 1

    def cuDevicePrimaryCtxRelease(self, device: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuCtxSetCurrent(self, context: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuMemGetInfo(self) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 6 << 30, 8 << 30

    def cuMemAlloc(self, size: int) -> Tuple[Any, ...]:  # noqa: N802
        memory = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(memory)
        self._memory[address] = memory
        return 0, address

    def cuMemHostAlloc(self, size: int, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        return self.cuMemAlloc(size)

    def cuMemHostGetDevicePointer(self, pointer: int, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, pointer

    def cuMemFree(self, pointer: int) -> Tuple[Any, ...]:  # noqa: N802
        del self._memory[pointer]
        return (0,)

    cuMemFreeHost = cuMemFree  # noqa: N815

    def cuMemcpyHtoDAsync(  # noqa: N802
        self, target: int, source: int, size: int, stream: int
    ) -> Tuple[Any, ...]:
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))  # type: ignore[arg-type,return-value]
        return (0,)

    cuMemcpyDtoHAsync = cuMemcpyHtoDAsync  # noqa: N815
    cuMemcpyDtoDAsync = cuMemcpyHtoDAsync  # noqa: N815

    def cuMemsetD8Async(  # noqa: N802
        self, target: int, value: int, size: int, stream: int
    ) -> Tuple[Any, ...]:
        self.enqueue(stream, lambda: ctypes.memset(target, value, size))  # type: ignore[arg-type,return-value]
        return (0,)

    def cuStreamCreateWithPriority(self, flags: int, priority: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, next(self._numbers)

    def cuStreamDestroy(self, stream: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuStreamSynchronize(self, stream: int) -> Tuple[Any, ...]:  # noqa: N802
        self.synchronized += 1
        return (700,) if self.broken else (0,)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuEventCreate(self, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, next(self._numbers)

    def cuEventRecord(self, event: int, stream: int) -> Tuple[Any, ...]:  # noqa: N802
        def record() -> None:
            self.events.append(event)
            self._recorded[event] = time.perf_counter()

        self.enqueue(stream, record)
        return (0,)

    def cuEventQuery(self, event: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuEventSynchronize(self, event: int) -> Tuple[Any, ...]:  # noqa: N802
        return (700,) if self.broken else (0,)

    def cuEventElapsedTime(self, start: int, end: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, 1e3 * (self._recorded[end] - self._recorded[start])

    def cuEventDestroy(self, event: int) -> Tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuStreamBeginCapture(self, stream: int, mode: int) -> Tuple[Any, ...]:  # noqa: N802
        self._capture = (stream, [])
        return (0,)

    def cuStreamEndCapture(self, stream: int) -> Tuple[Any, ...]:  # noqa: N802
        assert self._capture is not None
        work, self._capture = self._capture[1], None
        if not self.capturable:
            return _UNSUPPORTED_IN_CAPTURE, 0
        number = next(self._numbers)
        self._graphs[number] = work
        return 0, number

    def cuGraphInstantiate(self, graph: int, flags: int) -> Tuple[Any, ...]:  # noqa: N802
        number = next(self._numbers)
        self._graphs[number] = self._graphs[graph]
        return 0, number

    def cuGraphDestroy(self, graph: int) -> Tuple[Any, ...]:  # noqa: N802
        del self._graphs[graph]
        return (0,)

    cuGraphExecDestroy = cuGraphDestroy  # noqa: N815

    def cuGraphLaunch(self, graph: int, stream: int) -> Tuple[Any, ...]:  # noqa: N802
        self.graphs_launched += 1
        for work in self._graphs[graph]:
            self.enqueue(stream, work)
        return (0,)

    def cuGetErrorName(self, result: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, _NAMES.get(result, b"CUDA_ERROR_UNKNOWN")

    def cuGetErrorString(self, result: int) -> Tuple[Any, ...]:  # noqa: N802
        return 0, b"an error of the test"


def device(calls: HostCuda) -> Device:
    """Open it."""
    return Device.open(0, calls)
