import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.infer import nms

both = pytest.mark.parametrize("suppress", [nms.suppress, nms.suppress_opencv])


def naive(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> list:
    """Greedy suppression as defined: O(n²), one pair at a time, in float32."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: nms.TOP_K]
    kept: list = []
    for i in order:
        if not any(classes[i] == classes[k] and overlaps(boxes[k], boxes[i], iou) for k in kept):
            kept.append(i)
    return kept


def overlaps(a: np.ndarray, b: np.ndarray, iou: float) -> bool:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    intersection = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return bool(intersection > np.float32(iou) * union)


def crowd(count: int, seed: int, classes: int = 1, ties: bool = False, span: float = 100):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, span, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (count, 2))], axis=1)
    scores = random.integers(1, 6, count) / 8 if ties else random.permutation(count) / (count + 1)
    labels = random.integers(0, classes, count)
    return boxes.astype(np.float32), scores.astype(np.float32), labels.astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(0, 80),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 3),
    ties=st.booleans(),
    iou=st.sampled_from([0.1, 0.45, 0.6, 0.9, 1.0]),
)
def test_keeps_what_the_naive_loop_keeps_in_the_same_order(
    count: int, seed: int, classes: int, ties: bool, iou: float
) -> None:
    boxes, scores, labels = crowd(count, seed, classes, ties)
    kept = nms.suppress(boxes, scores, labels, iou)
    assert kept.dtype == np.int64
    assert kept.tolist() == naive(boxes, scores, labels, iou)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [1, 2])
def test_blocks_beyond_the_first_agree_too(classes: int, ties: bool) -> None:
    boxes, scores, labels = crowd(700, 5, classes, ties, span=400)
    assert nms.suppress(boxes, scores, labels, 0.5).tolist() == naive(boxes, scores, labels, 0.5)


def test_equal_scores_go_by_index() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 10, 10], [25, 0, 35, 10]], np.float32)
    scores = np.full(4, 0.5, np.float32)
    assert nms.suppress(boxes, scores, np.zeros(4, np.int32), 0.5).tolist() == [0, 1, 3]


@both
def test_classes_do_not_suppress_each_other(suppress) -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert suppress(boxes, scores, np.array([0, 1, 0], np.int32), 0.5).tolist() == [0, 1]


@both
def test_nothing_in_nothing_out(suppress) -> None:
    kept = suppress(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), 0.5
    )
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


@both
def test_arguments_are_left_alone(suppress) -> None:
    arguments = crowd(50, 1)
    before = [a.copy() for a in arguments]
    suppress(*arguments, 0.5)
    for argument, copy in zip(arguments, before):
        np.testing.assert_array_equal(argument, copy)


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 120), seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 3))
def test_opencv_keeps_the_same_boxes_where_no_scores_are_equal(
    count: int, seed: int, classes: int
) -> None:
    boxes, scores, labels = crowd(count, seed, classes)
    scores += np.float32(0.001)
    ours = nms.suppress(boxes, scores, labels, 0.5)
    assert nms.suppress_opencv(boxes, scores, labels, 0.5).tolist() == ours.tolist()


@both
def test_the_best_top_k_enter_and_no_more(suppress) -> None:
    count = nms.TOP_K + 100
    left = np.arange(count, dtype=np.float32) * 20
    boxes = np.stack([left, np.zeros_like(left), left + 10, np.full_like(left, 10)], axis=1)
    scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
    kept = suppress(boxes, scores, np.zeros(count, np.int32), 0.5)
    assert kept.tolist() == list(range(count - 1, count - 1 - nms.TOP_K, -1))


def test_a_chain_is_settled_greedily() -> None:
    """The middle box goes, and so it suppresses nobody."""
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms.suppress(boxes, scores, np.zeros(3, np.int32), 0.3).tolist() == [0, 2]


@pytest.mark.parametrize(("iou", "kept"), [(0.5, [0, 1]), (0.499, [0])])
def test_a_box_goes_above_the_threshold_not_at_it(iou: float, kept: list) -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms.suppress(boxes, scores, np.zeros(2, np.int32), iou).tolist() == kept
