import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.toolchain.quantize.calibration_set.diversity import (
    DiversePool,
    farthest_first,
    nearest,
)


def line(*values):
    return np.array(values, np.float32)[:, None]


class TestFarthestFirst:
    def test_by_hand(self):
        # The mean is 4.2: 10 is farthest from it, then 0 from 10, then 4.
        order, radii = farthest_first(line(0, 1, 4, 6, 10), 4)
        assert order.tolist() == [4, 0, 2, 3]
        assert radii.tolist() == [np.inf, 10, 4, 2]

    def test_what_was_chosen_before_counts(self):
        points = line(0, 1, 4, 10)
        order, radii = farthest_first(points, 2, nearest(points, line(10)))
        assert order.tolist() == [0, 2]
        assert radii.tolist() == [10, 4]

    def test_equals_are_chosen_once(self):
        assert farthest_first(line(3, 3, 3, 5), 4)[0].tolist() == [3, 0]

    def test_nothing_of_nothing(self):
        assert farthest_first(np.empty((0, 2), np.float32), 3)[0].tolist() == []

    @given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(1, 40))
    def test_chosen_are_apart_and_the_rest_is_near(self, values, count):
        points = line(*values)
        order, radii = farthest_first(points, count)
        chosen = points[order]
        gaps = np.abs(chosen - chosen.T)[~np.eye(len(order), dtype=bool)]
        if len(order) > 1:
            assert gaps.min() == pytest.approx(radii[-1])
            assert nearest(points, chosen).max() <= radii[-1]


class TestDiversePool:
    def offer(self, pool, *values):
        return [pool.offer(np.array([v], np.float32), lambda v=v: v) for v in values]

    def test_keeps_all_that_differ_while_there_is_room(self):
        pool = DiversePool(4, lambda _: pytest.fail("dropped"))
        assert self.offer(pool, 1, 1, 2, 1, 3) == [True, False, True, False, True]
        assert pool.items == [1, 2, 3]
        assert pool.points.ravel().tolist() == [1, 2, 3]

    def test_items_are_made_only_when_they_are_kept(self):
        made = []
        pool = DiversePool(4, lambda _: None)
        for value in (1.0, 1.0, 2.0):
            pool.offer(np.array([value], np.float32), lambda v=value: made.append(v))
        assert made == [1.0, 2.0]

    def test_thins_out_neighbours_and_says_which(self):
        dropped = []
        pool = DiversePool(4, dropped.append)
        self.offer(pool, 0, 1, 10, 20)
        assert self.offer(pool, 40) == [True]
        # From 20 on, as it is farthest from the mean: 0, then 10; 1 is too near to 0.
        assert dropped == [1]
        assert pool.radius == 10
        # 25 is nearer to 20 than the pool's members are to each other.
        assert self.offer(pool, 25) == [False]

    @given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(4, 12))
    def test_is_bounded_spread_and_loses_nothing_it_holds(self, values, capacity):
        dropped = []
        pool = DiversePool(capacity, dropped.append)
        taken = [v for v, kept in zip(values, self.offer(pool, *values)) if kept]
        assert len(pool.items) <= capacity
        assert sorted(taken) == sorted(pool.items + dropped)
        points = pool.points
        gaps = np.abs(points - points.T)
        np.fill_diagonal(gaps, np.inf)
        assert gaps.min() >= pool.radius or len(points) == 1
