"""libcuda through ctypes, called as cuda-python's functions are called.

For machines where no cuda-python wheel exists (JetPack 4). Every function takes the inputs
of the C function and returns ``(result, outputs…)``. Only what :mod:`.driver` uses is here.
"""

import ctypes
from ctypes import c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple

_Device = c_int
_Pointer = c_uint64  # CUdeviceptr on the 64-bit systems that CUDA still knows


class _Out(NamedTuple):
    """A parameter through which the function returns a value of this type."""

    kind: Any


class _Prototype(NamedTuple):
    """Exported names, newest first, and the parameters in order."""

    symbols: Tuple[str, ...]
    parameters: Tuple[Any, ...]


def _exported(*symbols: str, parameters: Sequence[Any]) -> _Prototype:
    return _Prototype(symbols, tuple(parameters))


_HANDLE = _Out(c_void_p)
_LAUNCH = [c_void_p, *[c_uint] * 7, c_void_p, c_void_p]

# From cuda.h; _v2 and _v3 are what its macros turn the plain names into.
_PROTOTYPES: Dict[str, _Prototype] = {
    "cuInit": _exported("cuInit", parameters=[c_uint]),
    "cuDriverGetVersion": _exported("cuDriverGetVersion", parameters=[_Out(c_int)]),
    "cuGetErrorName": _exported("cuGetErrorName", parameters=[c_int, _Out(c_char_p)]),
    "cuGetErrorString": _exported("cuGetErrorString", parameters=[c_int, _Out(c_char_p)]),
    "cuDeviceGetCount": _exported("cuDeviceGetCount", parameters=[_Out(c_int)]),
    "cuDeviceGet": _exported("cuDeviceGet", parameters=[_Out(_Device), c_int]),
    "cuDeviceGetAttribute": _exported(
        "cuDeviceGetAttribute", parameters=[_Out(c_int), c_int, _Device]
    ),
    "cuDeviceTotalMem": _exported("cuDeviceTotalMem_v2", parameters=[_Out(c_size_t), _Device]),
    "cuDevicePrimaryCtxRetain": _exported(
        "cuDevicePrimaryCtxRetain", parameters=[_HANDLE, _Device]
    ),
    "cuDevicePrimaryCtxRelease": _exported(
        "cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease", parameters=[_Device]
    ),
    "cuDevicePrimaryCtxReset": _exported(
        "cuDevicePrimaryCtxReset_v2", "cuDevicePrimaryCtxReset", parameters=[_Device]
    ),
    "cuCtxSetCurrent": _exported("cuCtxSetCurrent", parameters=[c_void_p]),
    "cuCtxSynchronize": _exported("cuCtxSynchronize", parameters=[]),
    "cuMemGetInfo": _exported("cuMemGetInfo_v2", parameters=[_Out(c_size_t), _Out(c_size_t)]),
    "cuMemAlloc": _exported("cuMemAlloc_v2", parameters=[_Out(_Pointer), c_size_t]),
    "cuMemFree": _exported("cuMemFree_v2", parameters=[_Pointer]),
    "cuMemHostAlloc": _exported("cuMemHostAlloc", parameters=[_HANDLE, c_size_t, c_uint]),
    "cuMemHostGetDevicePointer": _exported(
        "cuMemHostGetDevicePointer_v2", parameters=[_Out(_Pointer), c_void_p, c_uint]
    ),
    "cuMemFreeHost": _exported("cuMemFreeHost", parameters=[c_void_p]),
    "cuMemcpyHtoDAsync": _exported(
        "cuMemcpyHtoDAsync_v2", parameters=[_Pointer, c_void_p, c_size_t, c_void_p]
    ),
    "cuMemcpyDtoHAsync": _exported(
        "cuMemcpyDtoHAsync_v2", parameters=[c_void_p, _Pointer, c_size_t, c_void_p]
    ),
    "cuMemcpyDtoDAsync": _exported(
        "cuMemcpyDtoDAsync_v2", parameters=[_Pointer, _Pointer, c_size_t, c_void_p]
    ),
    "cuMemsetD8Async": _exported(
        "cuMemsetD8Async", parameters=[_Pointer, c_ubyte, c_size_t, c_void_p]
    ),
    "cuStreamCreateWithPriority": _exported(
        "cuStreamCreateWithPriority", parameters=[_HANDLE, c_uint, c_int]
    ),
    "cuStreamDestroy": _exported("cuStreamDestroy_v2", parameters=[c_void_p]),
    "cuStreamSynchronize": _exported("cuStreamSynchronize", parameters=[c_void_p]),
    "cuStreamWaitEvent": _exported("cuStreamWaitEvent", parameters=[c_void_p, c_void_p, c_uint]),
    "cuEventCreate": _exported("cuEventCreate", parameters=[_HANDLE, c_uint]),
    "cuEventRecord": _exported("cuEventRecord", parameters=[c_void_p, c_void_p]),
    "cuEventQuery": _exported("cuEventQuery", parameters=[c_void_p]),
    "cuEventSynchronize": _exported("cuEventSynchronize", parameters=[c_void_p]),
    "cuEventElapsedTime": _exported(
        "cuEventElapsedTime", parameters=[_Out(c_float), c_void_p, c_void_p]
    ),
    "cuEventDestroy": _exported("cuEventDestroy_v2", parameters=[c_void_p]),
    "cuModuleLoadData": _exported("cuModuleLoadData", parameters=[_HANDLE, c_char_p]),
    "cuModuleUnload": _exported("cuModuleUnload", parameters=[c_void_p]),
    "cuModuleGetFunction": _exported(
        "cuModuleGetFunction", parameters=[_HANDLE, c_void_p, c_char_p]
    ),
    "cuFuncSetAttribute": _exported("cuFuncSetAttribute", parameters=[c_void_p, c_int, c_int]),
    "cuLaunchKernel": _exported(
        "cuLaunchKernel", parameters=[*_LAUNCH[:8], c_void_p, c_void_p, c_void_p]
    ),
    "cuLaunchCooperativeKernel": _exported(
        "cuLaunchCooperativeKernel", parameters=[*_LAUNCH[:8], c_void_p, c_void_p]
    ),
    "cuStreamBeginCapture": _exported("cuStreamBeginCapture_v2", parameters=[c_void_p, c_int]),
    "cuStreamEndCapture": _exported("cuStreamEndCapture", parameters=[c_void_p, _HANDLE]),
    "cuGraphLaunch": _exported("cuGraphLaunch", parameters=[c_void_p, c_void_p]),
    "cuGraphExecDestroy": _exported("cuGraphExecDestroy", parameters=[c_void_p]),
    "cuGraphDestroy": _exported("cuGraphDestroy", parameters=[c_void_p]),
}
_MOST_NAME = 256


class LibCuda:
    """The functions of :data:`_PROTOTYPES` as attributes."""

    # Where cuda-python wants members of an enumeration, C wants their numbers.
    CUdevice_attribute = int
    CUfunction_attribute = int
    CUstreamCaptureMode = int

    def __init__(self, library: Any) -> None:
        """Bind ``library``, a ``ctypes.CDLL`` of libcuda."""
        self._library = library
        for name, prototype in _PROTOTYPES.items():
            setattr(self, name, _bind(library, prototype))

    def cuDeviceGetName(self, length: int, device: int) -> Tuple[int, bytes]:  # noqa: N802
        """The device's name, at most ``length`` bytes."""
        name = ctypes.create_string_buffer(min(length, _MOST_NAME))
        return int(self._library.cuDeviceGetName(name, len(name), device)), name.value

    def cuGraphInstantiate(self, graph: int, flags: int) -> Tuple[int, int]:  # noqa: N802
        """As cuda-python 12 has it, also with drivers older than CUDA 11.4."""
        made = c_void_p()
        with_flags = getattr(self._library, "cuGraphInstantiateWithFlags", None)
        if with_flags is not None:
            result = with_flags(ctypes.byref(made), c_void_p(graph), c_uint64(flags))
        else:
            result = self._library.cuGraphInstantiate(
                ctypes.byref(made), c_void_p(graph), None, None, c_size_t(0)
            )
        return int(result), made.value or 0


def _bind(library: Any, prototype: _Prototype) -> Callable[..., Tuple[Any, ...]]:
    function = next(
        (f for f in (getattr(library, s, None) for s in prototype.symbols) if f is not None), None
    )
    if function is None:
        return _absent(prototype.symbols[0])
    parameters = prototype.parameters
    function.argtypes = [ctypes.POINTER(p.kind) if isinstance(p, _Out) else p for p in parameters]
    function.restype = c_int
    if not any(isinstance(p, _Out) for p in parameters):
        return lambda *values: (function(*values),)
    return _returning(function, parameters)


def _returning(function: Any, parameters: Sequence[Any]) -> Callable[..., Tuple[Any, ...]]:
    def call(*values: Any) -> Tuple[Any, ...]:
        outputs = [p.kind() for p in parameters if isinstance(p, _Out)]
        given, made = iter(values), iter(outputs)
        result = function(
            *(ctypes.byref(next(made)) if isinstance(p, _Out) else next(given) for p in parameters)
        )
        # A null handle is None in ctypes.
        return (result, *(o.value if o.value is not None else 0 for o in outputs))

    return call


def _absent(symbol: str) -> Callable[..., Tuple[Any, ...]]:
    def call(*_values: Any) -> Tuple[Any, ...]:
        raise AttributeError(f"this NVIDIA driver has no {symbol}")

    return call
