"""NumPy arrays to and from a device: the CUDA driver's, or the emulator's."""

from typing import Any, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray


def upload(device: Any, stream: Any, values: NDArray[Any]) -> Any:
    """A buffer of the device with a copy of ``values``."""
    raw = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    buffer, staging = device.allocate(max(raw.size, 1)), device.pinned(max(raw.size, 1))
    staging.array[: raw.size] = raw
    stream.upload(buffer.pointer, staging.pointer, raw.size)
    stream.synchronize()
    staging.close()
    return buffer


def download(
    device: Any, stream: Any, pointer: int, shape: Sequence[int], dtype: DTypeLike
) -> NDArray[Any]:
    """A copy of device memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    staging = device.pinned(max(size, 1))
    stream.download(staging.pointer, pointer, size)
    stream.synchronize()
    values = np.frombuffer(staging.array[:size].tobytes(), dtype).reshape(shape)
    staging.close()
    return values
