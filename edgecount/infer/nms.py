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
        head = slice(start, start + _BLOCK)
        overlaps = _overlapping(boxes[head], classes[head], boxes[head], classes[head], iou)
        state = alive[head]
        for i in range(len(state)):
            if state[i]:
                state[i + 1 :] &= ~overlaps[i, i + 1 :]
        kept = np.flatnonzero(state) + start
        rest = np.flatnonzero(alive[start + _BLOCK :]) + start + _BLOCK
        if len(kept) and len(rest):
            hit = _overlapping(boxes[kept], classes[kept], boxes[rest], classes[rest], iou)
            alive[rest[hit.any(axis=0)]] = False
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


def _overlapping(
    a: Float32Array, a_classes: Int32Array, b: Float32Array, b_classes: Int32Array, iou: float
) -> BoolArray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    size = np.maximum(high - low, np.float32(0))
    intersection = size[..., 0] * size[..., 1]
    union = _area(a)[:, None] + _area(b)[None, :] - intersection
    same_class = a_classes[:, None] == b_classes[None, :]
    overlapping: BoolArray = (intersection > np.float32(iou) * union) & same_class
    return overlapping


def _area(boxes: Float32Array) -> Float32Array:
    size = boxes[:, 2:] - boxes[:, :2]
    area: Float32Array = size[:, 0] * size[:, 1]
    return area
