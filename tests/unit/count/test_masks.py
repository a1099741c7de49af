import numpy as np

from edgecount.count.masks import apply_masks
from edgecount.records import Detections

LEFT = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]


def _detections():
    boxes = np.array([[10, 10, 30, 30], [60, 10, 80, 30], [45, 10, 65, 90]], np.float32)
    return Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0], np.int32))


def test_detections_in_a_mask_are_dropped():
    kept = apply_masks(_detections(), [LEFT], 100, 100)
    assert kept.boxes[:, 0].tolist() == [60, 45]
    assert kept.classes.tolist() == [1, 0]


def test_masks_are_in_pixels_of_the_picture():
    assert len(apply_masks(_detections(), [LEFT], 1000, 100)) == 0


def test_the_anchor_decides():
    top = [(0.0, 0.0), (1.0, 0.0), (1.0, 0.6), (0.0, 0.6)]
    assert len(apply_masks(_detections(), [top], 100, 100, "center")) == 0
    assert len(apply_masks(_detections(), [top], 100, 100, "bottom")) == 1


def test_without_masks_nothing_is_copied():
    detections = _detections()
    assert apply_masks(detections, [], 100, 100) is detections
    far = [(0.9, 0.9), (1.0, 0.9), (1.0, 1.0)]
    assert apply_masks(detections, [far], 100, 100) is detections
