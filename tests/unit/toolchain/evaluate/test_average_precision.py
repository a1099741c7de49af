import numpy as np
import pytest

pytest.importorskip("pycocotools")

from edgecount.toolchain.evaluate.average_precision import (
    Found,
    Truth,
    average_precision,
)

BOX = [0.0, 0.0, 10.0, 10.0]


def _truth(boxes, ignored=None):
    n = len(boxes)
    flags = np.array(ignored if ignored is not None else [False] * n, np.bool_)
    return Truth(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(n, np.int64), flags)


def _found(boxes, scores):
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.zeros(len(scores), np.int64),
    )


def test_a_perfect_detector_scores_one():
    result = average_precision([_truth([BOX])], [_found([BOX], [0.9])])
    assert result == pytest.approx({"ap30": 1, "ap50": 1, "ap50_95": 1, "recall50": 1})


def test_a_false_box_above_the_true_one_halves_precision():
    result = average_precision([_truth([BOX])], [_found([[50, 50, 60, 60], BOX], [0.9, 0.8])])
    assert result["ap50"] == pytest.approx(0.5)


def test_a_box_that_overlaps_by_two_fifths_counts_only_loosely():
    result = average_precision([_truth([BOX])], [_found([[0, 0, 10, 4]], [0.9])])
    assert result["ap30"] == pytest.approx(1)
    assert result["ap50"] == 0


def test_what_lies_in_an_ignored_region_is_neither_right_nor_wrong():
    truth = _truth([BOX, [40, 40, 80, 80]], [False, True])
    result = average_precision([truth], [_found([[45, 45, 60, 60], BOX], [0.9, 0.8])])
    assert result["ap50"] == pytest.approx(1)


def test_no_box_and_no_detection_is_zero_not_an_error():
    assert average_precision([_truth([])], [_found([], [])])["ap50"] == 0
