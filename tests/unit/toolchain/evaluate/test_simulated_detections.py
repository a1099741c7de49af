"""Detections from ground truth."""

import numpy as np
import pytest

from edgecount.errors import ConfigError
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo
from edgecount.toolchain.evaluate.simulated_detections import Simulation, parse, simulate

INFO = SequenceInfo("s", 25.0, 5000, 640, 480)


def truth(count: int = 5000) -> Rows:
    boxes = np.tile(np.array([[100, 100, 140, 200]], np.float32), (count, 1))
    frames = np.arange(1, count + 1, dtype=np.int32)
    return Rows(frames, np.ones(count, np.int64), boxes, np.ones(count, np.float32))


def test_what_is_not_named_has_its_default() -> None:
    assert parse("") == Simulation()
    assert parse("drop=0.3, seed=7") == Simulation(drop=0.3, seed=7)


@pytest.mark.parametrize("text", ["drop", "drop=x", "drip=0.1", "drop=2", "seed=-1", "false=-0.1"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_a_perfect_detector_repeats_the_truth() -> None:
    made = simulate(truth(), INFO, Simulation(jitter=0, drop=0, false=0))
    np.testing.assert_array_equal(made.boxes, truth().boxes)
    np.testing.assert_array_equal(made.frames, truth().frames)


def test_the_errors_have_the_asked_size() -> None:
    how = Simulation(jitter=0.05, drop=0.1, false=0, low=0.2, high=0.8)
    made = simulate(truth(), INFO, how)
    centre = (made.boxes[:, :2] + made.boxes[:, 2:]) / 2
    size = made.boxes[:, 2:] - made.boxes[:, :2]
    assert len(made) == pytest.approx(4500, rel=0.02)
    np.testing.assert_allclose(centre.std(axis=0), [2, 5], rtol=0.05)
    np.testing.assert_allclose(size.std(axis=0), [2, 5], rtol=0.05)
    assert made.scores.min() >= 0.2
    assert made.scores.max() <= 0.8


def test_false_boxes_lie_in_the_picture() -> None:
    made = simulate(truth(), INFO, Simulation(drop=1, false=0.05))
    assert len(made) == pytest.approx(250, rel=0.25)
    assert made.boxes[:, :2].min() >= 0
    assert (made.boxes[:, 2:].max(axis=0) <= [640, 480]).all()
    assert (np.diff(made.frames) >= 0).all()


def test_the_seed_decides() -> None:
    first, second = (simulate(truth(), INFO, Simulation(seed=s)) for s in (0, 1))
    again = simulate(truth(), INFO, Simulation(seed=0))
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert len(first) != len(second)
