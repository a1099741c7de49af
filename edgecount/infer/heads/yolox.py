"""YOLOX (Ge et al. 2021, section 2): anchor-free, one row per cell, boxes not yet decoded.

Output (A, 5 + C): centre offset from the cell's corner and log size, both in strides;
objectness and class scores as probabilities.
"""

from functools import lru_cache
from typing import Callable, Tuple

import numpy as np

from edgecount.infer.heads.base import (
    Candidates,
    Head,
    HeadSpec,
    anchor_points,
    cell_count,
    center_to_corners,
    pick_class,
)
from edgecount.records import Float32Array

# exp() of more than this leaves float32; a broken model must not raise warnings per frame.
_LARGEST_LOG_SIZE = np.float32(20.0)


def create(spec: HeadSpec) -> Head:
    """Build the decoder."""
    return _Yolox(spec)


class _Yolox:
    def __init__(self, spec: HeadSpec) -> None:
        self._spec = spec
        self._columns = np.asarray(spec.wanted) + 5
        self._points: Callable[[int, int], Tuple[Float32Array, Float32Array]] = lru_cache(8)(
            lambda width, height: anchor_points(width, height, spec.strides, 0.0)
        )

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:
        count = cell_count(width, height, self._spec.strides)
        return (count, 5 + self._spec.classes)

    def decode(self, output: Float32Array, width: int, height: int, threshold: float) -> Candidates:
        points, strides = self._points(width, height)
        # The score is a product of probabilities, so objectness alone bounds it.
        likely = np.flatnonzero(output[:, 4] >= threshold)
        rows = output[likely]
        class_scores, classes = pick_class(rows[:, self._columns], self._spec.wanted)
        scores = rows[:, 4] * class_scores
        keep = scores >= threshold
        rows, likely = rows[keep], likely[keep]
        stride = strides[likely, None]
        boxes = np.empty((len(rows), 4), np.float32)
        boxes[:, :2] = rows[:, :2] * stride + points[likely]
        boxes[:, 2:] = np.exp(np.minimum(rows[:, 2:4], _LARGEST_LOG_SIZE)) * stride
        return Candidates(center_to_corners(boxes), scores[keep], classes[keep])
