"""libcuda's C functions where device memory is host memory, as ``ctypes`` calls them."""

import ctypes
from typing import Any, Dict

PRIMARY, STREAM = 0xC0, 0x57


class HostDriver:
    """Memory can be taken and copied; all else succeeds and does nothing.

    Attributes:
        memory: What is taken, by its address.
        taken: How often memory was taken.
        streams: How many streams there are.
        failing: What every call returns from now on, if not 0.
    """

    def __init__(self) -> None:
        self.memory: Dict[int, Any] = {}
        self.taken = 0
        self.streams = 0
        self.failing = 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> int:  # noqa: N802
        context._obj.value = PRIMARY
        return self.failing

    def cuStreamCreate(self, stream: Any, flags: int) -> int:  # noqa: N802
        stream._obj.value = STREAM
        self.streams += not self.failing
        return self.failing

    def cuStreamDestroy_v2(self, stream: Any) -> int:  # noqa: N802
        assert stream.value == STREAM
        self.streams -= 1
        return self.failing

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if self.failing:
            return self.failing
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self.memory[address._obj.value] = memory
        self.taken += 1
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.memory[address.value]
        return self.failing

    def cuMemcpyDtoH_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return self.failing

    def cuMemcpyDtoDAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:  # noqa: N802
        assert stream.value == STREAM
        if not self.failing:
            ctypes.memmove(target.value, source.value, size.value)
        return self.failing

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.failing
