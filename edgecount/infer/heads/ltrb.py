"""edgecount's own family: anchor-free distances to the four sides, and score logits.

Output (4 + C, A): left, top, right, bottom distance from the cell's centre in strides,
not negative, and one logit per class (FCOS, Tian et al. 2019, section 3.1, without the
centre-ness branch). Logits leave the network unsquashed, so that thresholds compare
without an exponential and temperature scaling (Guo et al. 2017) needs no inverse.
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
    pick_class,
)
from edgecount.records import Float32Array


def create(spec: HeadSpec) -> Head:
    """Build the decoder."""
    return _Ltrb(spec)


class _Ltrb:
    def __init__(self, spec: HeadSpec) -> None:
        self._spec = spec
        self._rows = np.asarray(spec.wanted) + 4
        self._points: Callable[[int, int], Tuple[Float32Array, Float32Array]] = lru_cache(8)(
            lambda width, height: anchor_points(width, height, spec.strides, 0.5)
        )

    def expected_shape(self, width: int, height: int) -> Tuple[int, ...]:
        count = cell_count(width, height, self._spec.strides)
        return (4 + self._spec.classes, count)

    def decode(self, output: Float32Array, width: int, height: int, threshold: float) -> Candidates:
        points, strides = self._points(width, height)
        least = np.float32(np.log(threshold / (1.0 - threshold))) if threshold < 1 else np.inf
        keep = np.flatnonzero((output[self._rows] >= least).any(axis=0))
        columns = np.ascontiguousarray(output[:, keep].T)
        logits, classes = pick_class(columns[:, self._rows], self._spec.wanted)
        scores = np.float32(1) / (np.float32(1) + np.exp(-np.clip(logits, -80, 80)))
        sides = columns[:, :4] * strides[keep, None]
        center = points[keep]
        boxes = np.concatenate([center - sides[:, :2], center + sides[:, 2:]], axis=1)
        return Candidates(boxes, scores, classes)
