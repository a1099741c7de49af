"""Ranks of scores."""

import numpy as np
import pytest

from edgecount.track._score_levels import ScoreLevels


def test_at_the_start_every_level_is_the_detectors_threshold() -> None:
    assert ScoreLevels(0.5, (0.1, 0.5, 0.9)).levels().tolist() == [0.5] * 3


def test_levels_follow_the_scores() -> None:
    levels = ScoreLevels(0.1, (0.25, 0.5))
    scores = np.random.default_rng(0).uniform(0.4, 0.8, 6000).astype(np.float32)
    for part in np.split(scores, 60):
        levels.observe(part)
    np.testing.assert_allclose(levels.levels(), [0.5, 0.6], atol=0.02)


def test_no_level_is_below_the_floor() -> None:
    levels = ScoreLevels(0.5, (0.25,))
    levels.observe(np.full(5000, 0.2, np.float32))
    assert levels.levels().tolist() == [0.5]


def test_the_past_is_forgotten() -> None:
    levels = ScoreLevels(0.1, (0.5,))
    for score in (0.9, 0.4):
        for _ in range(400):
            levels.observe(np.full(100, score, np.float32))
    assert levels.levels()[0] == pytest.approx(0.4, abs=0.01)


def test_the_order_of_scores_does_not_matter() -> None:
    scores = np.random.default_rng(1).random(64).astype(np.float32)
    a, b = ScoreLevels(0.1, (0.3,)), ScoreLevels(0.1, (0.3,))
    a.observe(scores)
    b.observe(scores[::-1])
    assert a.levels().tolist() == b.levels().tolist()
