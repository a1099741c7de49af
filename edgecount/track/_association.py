"""Which detection may belong to which track, and at what cost.

A pair passes the gate when the detection's centre lies in an ellipse around the predicted
centre and both heights are alike. Its cost blends three terms, each 0 (same) to 1 (as
different as the gate lets pass): one minus the IoU of both boxes grown by ``buffer`` (Yang
et al., "Hard to Track Objects with Irregular Motions and Similar Appearances? Make It
Easier by Buffering the Matching Space", WACV 2023), the squared distance in the ellipse,
and the height difference (after Yang et al., "Hybrid-SORT", AAAI 2024, section 3.2).
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from edgecount.records import Float32Array, Int64Array

COST_ONE = 1 << 16  # costs are integers: 1.0 is this

_DENSE_PAIRS = 4096  # up to here all pairs are tested, which is cheaper than sorting


@dataclass(frozen=True)
class CostWeights:
    """How the terms of the cost are weighed.

    Attributes:
        overlap: Weight of one minus the buffered IoU.
        distance: Weight of the squared distance, in units of the gate.
        height: Weight of one minus the ratio of heights.
        buffer: How much each box grows on each side before the IoU, in its own size.
        min_height_ratio: Pairs of less equal heights are no pairs.
    """

    overlap: float
    distance: float
    height: float
    buffer: float
    min_height_ratio: float


@dataclass(frozen=True)
class Pairs:
    """Pairs that passed the gate.

    Attributes:
        tracks: (P,) int64, index of the track.
        seen: (P,) int64, index of the detection.
        costs: (P,) int64 in units of 1 / 65536.
    """

    tracks: Int64Array
    seen: Int64Array
    costs: Int64Array


def find_pairs(
    tracks: Float32Array,
    radii: Float32Array,
    handicap: Float32Array,
    seen: Float32Array,
    weights: CostWeights,
) -> Pairs:
    """Find all pairs within the gate, with their costs.

    Args:
        tracks: (4, N) predicted ``cx, cy, w, h``.
        radii: (2, N) half axes of each track's gate, in pixels, above 0.
        handicap: (N,) cost that each pair of this track has on top, 0 or more.
        seen: (4, M) detections, likewise.
        weights: Of the cost.
    """
    row, col, distance = _gated(tracks, radii, seen)
    a, b = tracks[:, row], seen[:, col]
    height = np.minimum(a[3], b[3]) / np.maximum(a[3], b[3])
    alike = height >= np.float32(weights.min_height_ratio)
    if not alike.all():
        row, col, distance, height = row[alike], col[alike], distance[alike], height[alike]
        a, b = a[:, alike], b[:, alike]
    cost = np.float32(weights.overlap + weights.height) + np.float32(weights.distance) * distance
    cost -= np.float32(weights.overlap) * _buffered_iou(a, b, weights.buffer)
    cost -= np.float32(weights.height) * height
    cost = np.maximum(cost, np.float32(0)) + handicap[row]
    cost *= np.float32(COST_ONE)
    return Pairs(row, col, cost.astype(np.int64))


def _gated(
    tracks: Float32Array, radii: Float32Array, seen: Float32Array
) -> Tuple[Int64Array, Int64Array, Float32Array]:
    if tracks.shape[1] * seen.shape[1] <= _DENSE_PAIRS:
        offset = (seen[:2, None, :] - tracks[:2, :, None]) / radii[:, :, None]
        offset *= offset
        square = offset[0] + offset[1]
        row, col = np.nonzero(square < 1)
        return row, col, square[row, col]
    row, col = _overlapping_in_x(tracks[0], radii[0], seen[0])
    offset = (seen[:2, col] - tracks[:2, row]) / radii[:, row]
    offset *= offset
    square = offset[0] + offset[1]
    inside = square < 1
    return row[inside], col[inside], square[inside]


def _overlapping_in_x(
    centre: Float32Array, radius: Float32Array, seen: Float32Array
) -> Tuple[Int64Array, Int64Array]:
    """Pairs whose x distance may be below the radius: a window in the sorted detections."""
    order = np.argsort(seen, kind="stable")
    line = seen[order]
    reach = radius * np.float32(1.0001)  # rounding may not lose a pair of the exact test
    start = np.searchsorted(line, centre - reach, "left")
    count = np.searchsorted(line, centre + reach, "right") - start
    row = np.repeat(np.arange(len(centre)), count)
    first = np.cumsum(count) - count
    return row, order[np.arange(len(row)) - np.repeat(first - start, count)]


def _buffered_iou(a: Float32Array, b: Float32Array, buffer: float) -> Float32Array:
    grow = np.float32(0.5 + buffer)
    half_a, half_b = a[2:] * grow, b[2:] * grow
    apart = np.abs(a[:2] - b[:2])
    two, four = np.float32(2), np.float32(4)
    common = np.minimum(half_a + half_b - apart, two * np.minimum(half_a, half_b))
    common = np.maximum(common, np.float32(0))
    inter = common[0] * common[1]
    area = four * (half_a[0] * half_a[1] + half_b[0] * half_b[1])
    iou: Float32Array = inter / (area - inter)
    return iou
