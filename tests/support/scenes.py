"""Simple moving boxes, as detections."""

from typing import Optional, Sequence

import numpy as np

from edgecount.records import Detections


def detections(
    boxes: Sequence[Sequence[float]], scores: Optional[Sequence[float]] = None
) -> Detections:
    """Detections of these boxes (x1, y1, x2, y2), all of score 0.9 unless given."""
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.array([0.9] * count if scores is None else scores, np.float32),
        np.zeros(count, np.int32),
    )


def head(x: float, y: float, size: float = 30.0) -> Sequence[float]:
    """A square box around a centre."""
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def body(x: float, y: float, height: float = 160.0) -> Sequence[float]:
    """A box of a standing person around a centre."""
    width = 0.4 * height
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
