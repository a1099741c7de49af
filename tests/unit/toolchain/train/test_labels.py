import numpy as np
import pytest

pytest.importorskip("torch")

from edgecount.toolchain.train.labels import headless, unmatched


def test_a_person_with_a_head_in_the_upper_part_is_not_headless():
    people = np.array([[0, 0, 40, 100], [100, 0, 140, 100]], np.float32)
    head = np.array([[10, 5, 30, 25]], np.float32)
    regions = headless(people, head)
    np.testing.assert_allclose(regions, [[96, -10, 144, 40]])


def test_a_head_at_the_feet_does_not_count():
    people = np.array([[0, 0, 40, 100]], np.float32)
    assert len(headless(people, np.array([[10, 80, 30, 100]], np.float32))) == 1


def test_unmatched_are_those_that_share_little_with_every_label():
    found = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [9, 9, 19, 19]], np.float32)
    known = np.array([[1, 1, 11, 11]], np.float32)
    assert unmatched(found, known).tolist() == [False, True, True]
    assert unmatched(found, np.zeros((0, 4), np.float32)).all()
