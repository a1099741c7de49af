"""Ignore masks: detections in them are dropped before tracking."""

from typing import Sequence

import numpy as np

from edgecount.config import Point
from edgecount.count.geometry import Anchor, Canvas, Polygons, anchors
from edgecount.records import Detections


def apply_masks(
    detections: Detections,
    polygons: Sequence[Sequence[Point]],
    width: int,
    height: int,
    anchor: Anchor = "center",
) -> Detections:
    """Drop the detections whose anchor lies in one of the polygons.

    Args:
        detections: Of one frame, boxes in pixels of a ``width`` × ``height`` picture.
        polygons: Corners, normalised; empty keeps everything.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        anchor: Which point of a box decides.

    Returns:
        ``detections`` itself when nothing was dropped.
    """
    if not polygons or not len(detections):
        return detections
    canvas = Canvas(width, height)
    points = anchors(detections.boxes, anchor) / canvas.diagonal
    masked = np.any(Polygons([canvas.points(p) for p in polygons]).hold(points), axis=1)
    if not masked.any():
        return detections
    keep = ~masked
    return Detections(detections.boxes[keep], detections.scores[keep], detections.classes[keep])
