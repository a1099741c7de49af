"""Engines that end with TensorRT's EfficientNMS plugin: four outputs made into one.

The plugin gives, per picture, a count (int32), boxes x1 y1 x2 y2 in pixels of the input,
scores (both float32) and classes (int32). They become the rows of an end-to-end detector,
head ``end2end``. Exporters give the outputs all kinds of names, so shapes and types decide.
"""

from ctypes import c_int, c_void_p
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

import numpy as np
from typing_extensions import Protocol

from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.driver import Device, Module, Stream
from edgecount.infer.tensorrt.flavours import TensorSpec
from edgecount.records import Float32Array, Int32Array

COLUMNS = 6
_BLOCK = 128
_SOURCE = "efficient_nms"

Load = Callable[[Device, str, Mapping[str, object]], Module]


@dataclass(frozen=True)
class NmsOutputs:
    """Names of the four outputs, and how many rows a picture has."""

    count: str
    boxes: str
    scores: str
    classes: str
    most: int

    @property
    def names(self) -> Tuple[str, str, str, str]:
        """In the order of the kernel's arguments."""
        return self.count, self.boxes, self.scores, self.classes


def find(outputs: Sequence[TensorSpec]) -> Optional[NmsOutputs]:
    """The outputs of EfficientNMS, or None where they are others."""
    if len(outputs) != 4:
        return None
    by_kind = {_kind(t): t for t in outputs}
    if set(by_kind) != {("i", 1), ("f", 4), ("f", 0), ("i", 0)}:
        return None
    boxes, scores, classes = by_kind["f", 4], by_kind["f", 0], by_kind["i", 0]
    most = boxes.shape[1]
    if most < 1 or {scores.shape[1], classes.shape[1]} != {most}:
        return None
    return NmsOutputs(by_kind["i", 1].name, boxes.name, scores.name, classes.name, most)


def rows(
    count: Int32Array, boxes: Float32Array, scores: Float32Array, classes: Int32Array
) -> Float32Array:
    """The kernel's reference.

    Args:
        count: (B, 1) int32.
        boxes: (B, N, 4) float32.
        scores: (B, N) float32.
        classes: (B, N) int32.

    Returns:
        (B, N, 6) float32; rows behind the count are zero.
    """
    table = np.concatenate([boxes, scores[..., None], classes[..., None]], axis=2)
    there = np.arange(boxes.shape[1]) < count.reshape(-1, 1)
    kept: Float32Array = np.where(there[..., None], table, 0).astype(np.float32)
    return kept


class Converter(Protocol):
    """Makes rows of what the engine wrote."""

    def launch(self, stream: Stream, batch: int, sources: Sequence[int], target: int) -> None:
        """Enqueue it.

        Args:
            stream: The engine's.
            batch: Pictures.
            sources: Device addresses of count, boxes, scores and classes.
            target: Device address of (batch, most, 6) float32, written.
        """
        ...


class RowsKernel:
    """Launches ``plugins/efficient_nms.cu``; see :class:`Converter`."""

    def __init__(self, device: Device, most: int, load: Load = compiler.load) -> None:
        """Compile the kernel.

        Args:
            device: The device.
            most: Rows of a picture.
            load: Compiles and loads a source.

        Raises:
            EngineError: There is no compiler.
        """
        self._most = most
        self._module = load(device, _SOURCE, {})
        self._function = self._module.function("efficient_nms_rows")

    def launch(self, stream: Stream, batch: int, sources: Sequence[int], target: int) -> None:
        pointers = [c_void_p(address) for address in (*sources, target)]
        blocks = -(-batch * self._most // _BLOCK)
        arguments: Sequence[Any] = [*pointers, c_int(batch), c_int(self._most)]
        stream.launch(self._function, (blocks, 1, 1), (_BLOCK, 1, 1), arguments)


def _kind(spec: TensorSpec) -> Tuple[str, int]:
    """Type, and what it holds per row: 4 for boxes, 0 for a number each, 1 for the count."""
    letter = {"int32": "i", "float32": "f"}.get(spec.dtype.name, "?")
    if len(spec.shape) == 3:
        return letter, spec.shape[2]
    is_count = len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1)
    return letter, 1 if is_count and letter == "i" else 0
