"""What a head decoder is: one family's output tensor in, candidate boxes out."""

from dataclasses import dataclass
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
from typing_extensions import Protocol

from edgecount.records import Float32Array, Int32Array


@dataclass(frozen=True)
class HeadSpec:
    """What a decoder must know of its model.

    Attributes:
        classes: Number of classes in the model's output.
        wanted: Indices of the classes that are counted; others are not even decoded.
        strides: Strides of the output levels, in pixels of the input, rising.
    """

    classes: int
    wanted: Tuple[int, ...]
    strides: Tuple[int, ...]


class Candidates(NamedTuple):
    """Boxes above the threshold, before NMS, in pixels of the network's input.

    ``boxes`` (N, 4) float32, ``scores`` (N,) float32, ``classes`` (N,) int32, by rising
    index of the output's rows.
    """

    boxes: Float32Array
    scores: Float32Array
    classes: Int32Array


class Head(Protocol):
    """Decoder of one family of detectors.

    An implementation is one file beside this one with ``create(spec) -> Head``.
    """

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:
        """Shape of one picture's output, without the batch axis, for an input of this size."""
        ...

    def decode(self, output: Float32Array, width: int, height: int, threshold: float) -> Candidates:
        """Candidates of one picture.

        Args:
            output: What the network said for one picture, without the batch axis.
            width: Width of the network's input in pixels.
            height: Height of the network's input in pixels.
            threshold: Least score.
        """
        ...


def cells(width: int, height: int, strides: Sequence[int]) -> List[Tuple[int, int, int]]:
    """(columns, rows, stride) of every level."""
    return [(-(-width // s), -(-height // s), s) for s in strides]


def cell_count(width: int, height: int, strides: Sequence[int]) -> int:
    """Number of cells of all levels together."""
    return sum(columns * rows for columns, rows, _ in cells(width, height, strides))


def anchor_points(
    width: int, height: int, strides: Sequence[int], offset: float
) -> Tuple[Float32Array, Float32Array]:
    """Reference points of all output cells, level by level, row by row.

    Returns:
        (A, 2) float32 x, y of the cells in input pixels, ``(index + offset) × stride``, and
        (A,) float32 strides.
    """
    points, scales = [], []
    for columns, rows, stride in cells(width, height, strides):
        y, x = np.mgrid[0:rows, 0:columns]
        level = (np.stack([x, y], axis=-1).reshape(-1, 2) + offset) * stride
        points.append(level.astype(np.float32))
        scales.append(np.full(rows * columns, stride, np.float32))
    return np.concatenate(points), np.concatenate(scales)


def pick_class(
    class_scores: Float32Array, wanted: Sequence[int]
) -> Tuple[Float32Array, Int32Array]:
    """Best wanted class of each row.

    Args:
        class_scores: (N, W) float32, columns in the order of ``wanted``.
        wanted: The classes of the columns.

    Returns:
        (N,) float32 scores and (N,) int32 classes.
    """
    if len(wanted) == 1:
        return class_scores[:, 0], np.full(len(class_scores), wanted[0], np.int32)
    best = class_scores.argmax(axis=1)
    scores: Float32Array = class_scores[np.arange(len(best)), best]
    return scores, np.asarray(wanted, np.int32)[best]


def center_to_corners(boxes: Float32Array) -> Float32Array:
    """(N, 4) centre x, y, width, height → x1, y1, x2, y2."""
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
