"""Exports with suppression in the graph (YOLOv10, YOLO26, ``nms=True``).

Output (N, 6): x1, y1, x2, y2 in input pixels, score, class; N is fixed, rows with a
score of zero are empty.
"""

from typing import Tuple

import numpy as np

from edgecount.infer.heads.base import Candidates, Head, HeadSpec
from edgecount.records import Float32Array

ANY = -1


def create(spec: HeadSpec) -> Head:
    """Build the decoder."""
    return _End2End(spec)


class _End2End:
    def __init__(self, spec: HeadSpec) -> None:
        self._wanted = np.asarray(spec.wanted)

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:  # noqa: ARG002
        return (ANY, 6)

    def decode(
        self,
        output: Float32Array,
        width: int,  # noqa: ARG002
        height: int,  # noqa: ARG002
        threshold: float,
    ) -> Candidates:
        classes = output[:, 5].astype(np.int32)
        keep = (output[:, 4] >= threshold) & np.isin(classes, self._wanted)
        return Candidates(output[keep, :4], output[keep, 4], classes[keep])
