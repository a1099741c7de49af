"""Which detections are true: each takes at most one labelled box, best score first."""

from typing import Sequence, Tuple

import numpy as np

from edgecount.records import BoolArray, Float32Array
from edgecount.toolchain.evaluate.average_precision import Found, Truth


def overlaps(a: Float32Array, b: Float32Array) -> Float32Array:
    """IoU of boxes (n, 4) with boxes (m, 4): (n, m), 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    size_a, size_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    total = size_a[:, None] + size_b[None, :] - common
    iou: Float32Array = np.divide(common, total, out=np.zeros_like(common), where=total > 0)
    return iou


def true_detections(truth: Truth, found: Found, overlap: float) -> Tuple[BoolArray, BoolArray]:
    """Label the detections of one picture.

    Args:
        truth: What is in it.
        found: What was found, best score first.
        overlap: Least IoU with a labelled box of the same class.

    Returns:
        Which detections (m,) are true, and which count at all: those that lie on a region
        marked as ignored, and on no free labelled box, are neither right nor wrong.
    """
    true = np.zeros(len(found.boxes), np.bool_)
    counts = np.ones(len(found.boxes), np.bool_)
    iou = overlaps(found.boxes, truth.boxes)
    iou[found.classes[:, None] != truth.classes[None, :]] = 0
    free = ~truth.ignored
    for row in range(len(iou)):
        candidates = np.where(free, iou[row], 0)
        if candidates.size and candidates.max() >= overlap:
            true[row] = True
            free[candidates.argmax()] = False
        else:
            counts[row] = not (iou[row][truth.ignored] >= overlap).any()
    return true, counts


def labelled_scores(
    truths: Sequence[Truth], found: Sequence[Found], overlap: float
) -> Tuple[Float32Array, BoolArray]:
    """Scores (n,) of all detections that count, and which of them are true."""
    scores, labels = [], []
    for truth, one in zip(truths, found):
        true, counts = true_detections(truth, one, overlap)
        scores.append(one.scores[counts])
        labels.append(true[counts])
    return (
        np.concatenate(scores) if scores else np.zeros(0, np.float32),
        np.concatenate(labels) if labels else np.zeros(0, np.bool_),
    )
