"""Greedy, class-aware non-maximum suppression: the reference, and OpenCV's as an option.

The order is fixed so that the CUDA kernel can reproduce it box for box: descending
score, equal scores by rising index. A box goes when a kept one of its class overlaps
it with ``intersection > threshold × union``, all in float32 and without a division.
"""

import cv2
import numpy as np

from edgecount.records import BoolArray, Float32Array, Int32Array, Int64Array

# Boxes that enter suppression, best first. Beyond it lie only duplicates: a frame that
# holds more heads than this holds no head of more than a few pixels.
TOP_K = 2048
_BLOCK = 256


def suppress(
    boxes: Float32Array, scores: Float32Array, classes: Int32Array, iou: float
) -> Int64Array:
    """Which boxes to keep, as indices by falling score.

    Args:
        boxes: (N, 4) float32, x1 y1 x2 y2.
        scores: (N,) float32.
        classes: (N,) int32; boxes of different classes do not suppress each other.
        iou: Overlap (intersection over union) above which the weaker box goes.
    """
    order = np.argsort(-scores, kind="stable")[:TOP_K]
    boxes, classes = boxes[order], classes[order]
    alive = np.ones(len(order), np.bool_)
    # Block-wise: each block is settled against itself one box at a time, then removes
    # what it overlaps further down in one vectorised step.
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        _settle(
            alive[block], _apart(boxes[block], classes[block], boxes[block], classes[block], iou)
        )
        kept = np.flatnonzero(alive[block]) + start
        rest = np.flatnonzero(alive[start + _BLOCK :]) + start + _BLOCK
        if len(kept) and len(rest):
            apart = _apart(boxes[kept], classes[kept], boxes[rest], classes[rest], iou)
            alive[rest] = apart.all(axis=0)
    kept_in_order: Int64Array = order[alive]
    return kept_in_order


def suppress_opencv(
    boxes: Float32Array, scores: Float32Array, classes: Int32Array, iou: float
) -> Int64Array:
    """The same with ``cv2.dnn.NMSBoxesBatched``; equal scores may come out in another order."""
    if not len(scores):
        return np.zeros(0, np.int64)
    corner_size = boxes.copy()
    corner_size[:, 2:] -= corner_size[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        corner_size.tolist(), scores.tolist(), classes.tolist(), 0.0, iou, top_k=TOP_K
    )
    indices = np.asarray(kept, np.int64).reshape(-1)
    return indices[np.argsort(-scores[indices], kind="stable")]


def _settle(alive: BoolArray, apart: BoolArray) -> None:
    """Clear in ``alive`` what a stronger, kept box overlaps; best first."""
    # A box meets itself; what it overlaps among stronger ones was dropped before it.
    apart.reshape(-1)[:: len(alive) + 1] = True
    for i in range(len(alive)):
        if alive[i]:
            np.logical_and(alive, apart[i], out=alive)


def _apart(
    a: Float32Array, a_classes: Int32Array, b: Float32Array, b_classes: Int32Array, iou: float
) -> BoolArray:
    """(N, M): whether box i of ``a`` and box j of ``b`` may both stay."""
    # Both axes of the picture in one array, (2, N, M): few large steps, no copies between.
    a_low, a_high = np.ascontiguousarray(a.T).reshape(2, 2, -1)
    b_low, b_high = np.ascontiguousarray(b.T).reshape(2, 2, -1)
    common = np.minimum(a_high[:, :, None], b_high[:, None, :])
    common -= np.maximum(a_low[:, :, None], b_low[:, None, :])
    np.maximum(common, np.float32(0), out=common)
    intersection = np.multiply(common[0], common[1], out=common[0])
    (a_width, a_height), (b_width, b_height) = a_high - a_low, b_high - b_low
    union = np.add((a_width * a_height)[:, None], b_width * b_height, out=common[1])
    union -= intersection
    union *= np.float32(iou)
    apart: BoolArray = intersection <= union
    if (a_classes != b_classes[0]).any() or (b_classes != b_classes[0]).any():
        apart |= a_classes[:, None] != b_classes[None, :]
    return apart
