"""Gate and cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.track import _association
from edgecount.track._association import CostWeights, find_pairs


def pairs_of(tracks: np.ndarray, radii: np.ndarray, seen: np.ndarray) -> _association.Pairs:
    return find_pairs(tracks, radii, np.zeros(tracks.shape[1], np.float32), seen, WEIGHTS)


WEIGHTS = CostWeights(overlap=0.6, distance=0.2, height=0.5, buffer=0.1, min_height_ratio=0.5)


def boxes(count: int, seed: int, spread: float = 400.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centre, size = random.random((2, count)) * spread, random.uniform(20, 60, (2, count))
    return np.vstack((centre, size)).astype(np.float32)


def test_the_same_box_costs_nothing() -> None:
    box = boxes(1, 0)
    pairs = pairs_of(box, box[2:], box)
    assert pairs.costs.tolist() == [0]


def test_far_and_unlike_boxes_are_no_pairs() -> None:
    track = np.array([[100], [100], [30], [30]], np.float32)
    radii = np.array([[20], [20]], np.float32)
    others = np.array([[121, 100, 100], [100, 100, 115], [30, 30, 30], [30, 61, 30]], np.float32)
    assert pairs_of(track, radii, others).seen.tolist() == [2]


def test_the_cost_follows_its_definition() -> None:
    track = np.array([[100], [100], [20], [40]], np.float32)
    seen = np.array([[110], [100], [20], [32]], np.float32)
    pairs = pairs_of(track, np.array([[25], [50]], np.float32), seen)
    inter = (1.2 * 20 - 10) * 1.2 * 32
    iou = inter / (1.44 * (20 * 40 + 20 * 32) - inter)
    cost = 0.6 * (1 - iou) + 0.2 * (10 / 25) ** 2 + 0.5 * (1 - 32 / 40)
    assert pairs.costs[0] == pytest.approx(cost * _association.COST_ONE, abs=2)


def test_a_handicap_comes_on_top() -> None:
    box = boxes(1, 0)
    pairs = find_pairs(box, box[2:], np.array([0.25], np.float32), box, WEIGHTS)
    assert pairs.costs.tolist() == [_association.COST_ONE // 4]


@given(st.integers(0, 10_000), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_sorting_finds_the_same_pairs_as_trying_all(seed: int, n: int, m: int) -> None:
    tracks, seen = boxes(n, seed), boxes(m, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        dense = pairs_of(tracks, tracks[2:], seen)
        patch.setattr(_association, "_DENSE_PAIRS", -1)
        sorted_ = pairs_of(tracks, tracks[2:], seen)

    def as_set(pairs: _association.Pairs) -> set:
        return set(zip(pairs.tracks.tolist(), pairs.seen.tolist(), pairs.costs.tolist()))

    assert as_set(dense) == as_set(sorted_)
    assert len(dense.tracks) == len(sorted_.tracks)
