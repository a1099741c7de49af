import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.config import LineSettings
from edgecount.count.geometry import Canvas, LineGeometry, Polygons, anchors

SQUARE = np.array([[0.2, 0.2], [0.6, 0.2], [0.6, 0.6], [0.2, 0.6]])
ELL = np.array([[0.0, 0.0], [0.9, 0.0], [0.9, 0.3], [0.3, 0.3], [0.3, 0.9], [0.0, 0.9]])


def test_anchors_of_a_box():
    boxes = np.array([[10, 20, 30, 120]], np.float32)
    assert anchors(boxes, "center").tolist() == [[20, 70]]
    assert anchors(boxes, "bottom").tolist() == [[20, 120]]
    assert anchors(boxes, "head") == pytest.approx(np.array([[20, 26.5]]))


def test_no_boxes_no_anchors():
    assert anchors(np.zeros((0, 4), np.float32), "bottom").shape == (0, 2)


def test_right_hand_side_is_positive_and_distance_is_in_diagonals():
    line = LineSettings.model_validate({"name": "l", "from": (0.0, 0.5), "to": (1.0, 0.5)})
    canvas = Canvas(300, 400)
    geometry = LineGeometry.of([line], canvas)
    below = np.array([[150, 300]]) / canvas.diagonal
    assert geometry.distances(below)[0, 0] == pytest.approx(0.2)
    assert geometry.position(below[0], 0) == pytest.approx(0.5)


def test_canvas_of_another_resolution_has_the_same_shape():
    assert Canvas(640, 480).same_shape(Canvas(1280, 960))
    assert not Canvas(640, 480).same_shape(Canvas(1280, 720))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_polygons_agree_with_opencv(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    star = 0.5 + rng.uniform(0.1, 0.5, (len(angles), 1)) * np.stack(
        (np.cos(angles), np.sin(angles)), axis=1
    )
    points = rng.uniform(-0.1, 1.1, (200, 2))
    held = Polygons([SQUARE, star, ELL]).hold(points)
    for column, corners in enumerate((SQUARE, star, ELL)):
        expected = [
            cv2.pointPolygonTest(corners.astype(np.float32).reshape(-1, 1, 2), tuple(p), False) > 0
            for p in points.tolist()
        ]
        assert held[:, column].tolist() == expected


def test_no_polygons_hold_nothing():
    assert Polygons([]).hold(np.zeros((3, 2))).shape == (3, 0)


def test_points_on_a_shared_side_are_in_exactly_one_polygon():
    left = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])
    right = left + np.array([0.5, 0.0])
    points = np.stack((np.full(9, 0.5), np.linspace(0.1, 0.9, 9)), axis=1)
    assert (Polygons([left, right]).hold(points).sum(axis=1) == 1).all()


def test_chords_of_a_concave_polygon():
    parts = Polygons([ELL]).chords(np.array([1.0, -0.1]), np.array([-0.1, 1.0]), 0)
    assert len(parts) == 2
    assert all(0 <= a < b <= 1 for a, b in parts)
    assert Polygons([ELL]).chords(np.array([0.5, 0.5]), np.array([0.9, 0.9]), 0) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_chords_cover_what_the_polygon_holds(seed):
    start, end = np.random.default_rng(seed).uniform(-0.2, 1.2, (2, 2))
    polygons = Polygons([ELL])
    parts = polygons.chords(start, end, 0)
    fractions = np.linspace(0, 1, 501)
    held = polygons.hold(start + fractions[:, None] * (end - start))[:, 0]
    covered = np.any(
        [(a <= fractions) & (fractions <= b) for a, b in parts] or [held & False], axis=0
    )
    assert np.count_nonzero(held != covered) <= 2 * len(parts)
