"""YOLOv5 (Ultralytics export): anchor-based, decoded in the graph.

Output (3 A, 5 + C): centre x, y, width, height in input pixels, objectness and class
scores as probabilities; three anchors per cell.
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

_ANCHORS_PER_CELL = 3


def create(spec: HeadSpec) -> Head:
    """Build the decoder."""
    return _Yolov5(spec)


class _Yolov5:
    def __init__(self, spec: HeadSpec) -> None:
        self._spec = spec
        self._columns = np.asarray(spec.wanted) + 5

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:
        count = cell_count(width, height, self._spec.strides)
        return (_ANCHORS_PER_CELL * count, 5 + self._spec.classes)

    def decode(
        self,
        output: Float32Array,
        width: int,  # noqa: ARG002
        height: int,  # noqa: ARG002
        threshold: float,
    ) -> Candidates:
        rows = output[output[:, 4] >= threshold]
        class_scores, classes = pick_class(rows[:, self._columns], self._spec.wanted)
        scores = rows[:, 4] * class_scores
        keep = scores >= threshold
        return Candidates(center_to_corners(rows[keep, :4]), scores[keep], classes[keep])
