"""YOLOv8 and YOLO11 (Ultralytics export): anchor-free, decoded in the graph, no objectness.

Output (4 + C, A): centre x, y, width, height in input pixels, class scores as
probabilities; one column per cell.
"""

from typing import Tuple

import numpy as np

from edgecount.infer.heads.base import (
    Candidates,
    Head,
    HeadSpec,
    cell_count,
    center_to_corners,
    pick_class,
)
from edgecount.records import Float32Array


def create(spec: HeadSpec) -> Head:
    """Build the decoder."""
    return _Yolov8(spec)


class _Yolov8:
    def __init__(self, spec: HeadSpec) -> None:
        self._spec = spec
        self._rows = np.asarray(spec.wanted) + 4

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:
        count = cell_count(width, height, self._spec.strides)
        return (4 + self._spec.classes, count)

    def decode(
        self,
        output: Float32Array,
        width: int,  # noqa: ARG002
        height: int,  # noqa: ARG002
        threshold: float,
    ) -> Candidates:
        keep = np.flatnonzero((output[self._rows] >= threshold).any(axis=0))
        columns = np.ascontiguousarray(output[:, keep].T)
        scores, classes = pick_class(columns[:, self._rows], self._spec.wanted)
        return Candidates(center_to_corners(columns[:, :4]), scores, classes)
