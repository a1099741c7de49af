"""The network's slot in the pipeline: what ONNX Runtime and TensorRT must do there."""

from typing import Optional, Tuple

import numpy as np
from numpy.typing import DTypeLike
from typing_extensions import Protocol

from edgecount.infer.cuda.driver import Event, Stream


class DeviceNetwork(Protocol):
    """A network that reads and writes device memory.

    Attributes:
        name: Of the engine, e.g. ``onnxruntime-cuda`` or ``tensorrt 10.3``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        input_dtype: float32 or float16; the input is (batch, 3, height, width), contiguous.
        output_dtype: Likewise of the output.
    """

    name: str
    precision: str
    input_dtype: DTypeLike
    output_dtype: DTypeLike

    def output_shape(self, batch: int) -> Tuple[int, ...]:
        """Shape of the output for so many pictures, the batch included."""
        ...

    def enqueue(
        self,
        stream: Stream,
        batch: int,
        input: int,  # noqa: A002
        output: int,
        consumed: Optional[Event],
    ) -> None:
        """Enqueue the network on ``stream`` and return at once.

        Called at the start for each combination of ``batch`` and pointers, then recorded
        into a CUDA graph where that is possible. Must not wait for the device.

        Args:
            stream: Always the same one.
            batch: Pictures.
            input: Device address of the input.
            output: Device address of the output.
            consumed: Recorded as soon as the input is not needed any more; may be ignored.

        Raises:
            EngineError: It could not be enqueued.
        """
        ...

    def close(self) -> None:
        """Free it. May be called twice."""
        ...


def bytes_of(shape: Tuple[int, ...], dtype: DTypeLike) -> int:
    """Bytes of a contiguous array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
