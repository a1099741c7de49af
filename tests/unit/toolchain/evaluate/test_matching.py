import numpy as np

from edgecount.toolchain.evaluate.average_precision import Found, Truth
from edgecount.toolchain.evaluate.matching import labelled_scores, overlaps, true_detections


def _boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def _truth(boxes, ignored=None, classes=None):
    n = len(boxes)
    return Truth(
        boxes,
        np.zeros(n, np.int64) if classes is None else np.array(classes, np.int64),
        np.zeros(n, np.bool_) if ignored is None else np.array(ignored, np.bool_),
    )


def _found(boxes, scores, classes=None):
    kinds = np.zeros(len(boxes), np.int64) if classes is None else np.array(classes, np.int64)
    return Found(boxes, np.array(scores, np.float32), kinds)


def test_overlap_of_hand_worked_boxes():
    a = _boxes((0, 0, 10, 10), (5, 5, 5, 5))
    b = _boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (5, 5, 5, 5))
    np.testing.assert_allclose(overlaps(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_a_labelled_box_makes_one_detection_true():
    truth = _truth(_boxes((0, 0, 10, 10)))
    found = _found(_boxes((0, 0, 10, 10), (1, 0, 11, 10)), [0.9, 0.8])
    true, counts = true_detections(truth, found, 0.5)
    assert true.tolist() == [True, False]
    assert counts.all()


def test_another_class_or_too_little_overlap_is_false():
    truth = _truth(_boxes((0, 0, 10, 10)), classes=[1])
    found = _found(_boxes((0, 0, 10, 10), (6, 0, 16, 10)), [0.9, 0.8], classes=[0, 1])
    assert not true_detections(truth, found, 0.5)[0].any()


def test_what_lies_on_an_ignored_region_is_left_out():
    truth = _truth(_boxes((0, 0, 10, 10), (50, 0, 60, 10)), ignored=[True, False])
    found = _found(_boxes((0, 0, 10, 10), (50, 0, 60, 10), (80, 0, 90, 10)), [0.9, 0.8, 0.7])
    scores, true = labelled_scores([truth], [found], 0.5)
    assert scores.tolist() == np.array([0.8, 0.7], np.float32).tolist()
    assert true.tolist() == [True, False]


def test_no_boxes_at_all():
    scores, true = labelled_scores([_truth(_boxes())], [_found(_boxes(), [])], 0.5)
    assert (scores.shape, true.shape) == ((0,), (0,))
    assert labelled_scores([], [], 0.5)[0].shape == (0,)
