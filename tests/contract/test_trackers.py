"""What every tracker must do; run on each file of edgecount/track."""

from typing import List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import detections, head

from edgecount import discovery
from edgecount.records import Detections, Tracks
from edgecount.track.base import Tracker

PACKAGE = "edgecount.track"
TRACKERS = discovery.names(PACKAGE)
every_tracker = pytest.mark.parametrize("name", TRACKERS)
DT = 0.04


def make(name: str) -> Tracker:
    module = discovery.load(PACKAGE, name, "tracker")
    try:
        tracker: Tracker = module.create(module.Options())
    except Exception as error:  # a tracker for a device that is not here says so
        if type(error).__name__ in ("EngineError", "MissingExtraError"):
            pytest.skip(str(error))
        raise
    return tracker


def crowd(frames: int, people: int, seed: int) -> List[Detections]:
    """People who walk at random, some of them unseen, with noise and false boxes."""
    random = np.random.default_rng(seed)
    at = random.random((people, 2)) * 800
    speed = random.normal(0, 40, (people, 2))
    scene = []
    for _ in range(frames):
        at = at + speed * DT
        seen = at[random.random(people) < 0.9] + random.normal(0, 1.5, 2)
        false = random.random((random.integers(0, 3), 2)) * 800
        boxes = [head(x, y) for x, y in np.vstack((seen, false))]
        scores = np.sort(random.uniform(0.2, 1, len(boxes)))[::-1]
        scene.append(detections(boxes, scores.tolist()))
    return scene


def same(a: Tracks, b: Tracks) -> bool:
    names = ("ids", "boxes", "scores", "classes", "confirmed", "ended")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


@every_tracker
def test_there_is_a_default(name: str) -> None:
    assert "two_stage" in TRACKERS


@every_tracker
@given(seed=st.integers(0, 10_000), people=st.integers(0, 25))
@settings(max_examples=15, deadline=None)
def test_output_keeps_the_contract(name: str, seed: int, people: int) -> None:
    tracker, dead = make(name), set()
    for seen in crowd(25, people, seed):
        out = tracker.update(seen, DT)
        ids = out.ids.tolist()
        assert ids == sorted(set(ids)), "by rising id, each once"
        assert not ids or ids[0] >= 1
        assert (out.scores > 0).sum() <= len(seen), "at most one track per detection"
        assert out.confirmed[out.scores == 0].all(), "only confirmed tracks are given out unseen"
        assert (out.boxes[:, 2:] > out.boxes[:, :2]).all()
        assert np.isfinite(out.boxes).all()
        assert not dead & set(ids), "an ended id never comes back"
        dead |= set(out.ended.tolist())
        assert out.ids.dtype == out.ended.dtype == np.int64
        assert out.boxes.dtype == out.scores.dtype == np.float32
        assert out.classes.dtype == np.int32
        assert out.confirmed.dtype == np.bool_


@every_tracker
def test_two_runs_are_identical(name: str) -> None:
    scene = crowd(60, 20, seed=3)
    first, second = make(name), make(name)
    for seen in scene:
        assert same(first.update(seen, DT), second.update(seen, DT))


@every_tracker
def test_instances_are_independent(name: str) -> None:
    scene = crowd(20, 5, seed=1)
    alone = [make(name).update(scene[0], DT)]
    beside = make(name)
    for seen in scene:
        beside.update(seen, DT)
    assert same(make(name).update(scene[0], DT), alone[0])


@every_tracker
def test_every_id_that_was_given_out_ends(name: str) -> None:
    tracker = make(name)
    given_out, ended = set(), set()
    for seen in [*crowd(40, 15, seed=5), *[Detections.empty()] * 400]:
        out = tracker.update(seen, DT)
        given_out |= set(out.ids.tolist())
        ended |= set(out.ended.tolist())
    assert given_out
    assert given_out <= ended


@every_tracker
def test_a_person_who_walks_keeps_one_id_and_is_confirmed(name: str) -> None:
    tracker = make(name)
    outs = [tracker.update(detections([head(50 + 3 * f, 80)]), DT) for f in range(30)]
    assert {i for out in outs for i in out.ids.tolist()} == {1}
    assert outs[2].confirmed.all()
    assert len(outs[2]) == 1


@every_tracker
def test_an_empty_frame_is_fine(name: str) -> None:
    out = make(name).update(Detections.empty(), DT)
    assert len(out) == 0
    assert out.boxes.shape == (0, 4)


@every_tracker
@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 0, 10, 10),
        (0, 0, np.inf, 10),
        (-np.inf, 0, np.inf, 10),
        (10, 10, 10, 30),
        (30, 10, 10, 30),
        (0, 0, 0, 0),
        (0, 0, 1e-30, 1e-30),
        (0, 0, 1e30, 1e30),
        (-3e38, 0, 3e38, 10),
    ],
)
def test_boxes_that_are_none_are_ignored(name: str, box: List[float]) -> None:
    tracker = make(name)
    for _ in range(5):
        out = tracker.update(detections([head(100, 100), box], [0.9, 0.8]), DT)
    assert out.ids.tolist() == [1]
    assert np.isfinite(out.boxes).all()


@every_tracker
def test_a_score_that_is_no_number_is_ignored(name: str) -> None:
    out = make(name).update(detections([head(100, 100)], [float("nan")]), DT)
    assert len(out) == 0


@every_tracker
@given(dt=st.sampled_from([0.0, -1.0, 1e-6, 0.2, 5.0, 1e6, float("inf"), float("nan")]))
@settings(max_examples=8, deadline=None)
def test_any_time_step_is_survived(name: str, dt: float) -> None:
    tracker = make(name)
    for seen in crowd(6, 5, seed=2):
        out = tracker.update(seen, dt)
        assert np.isfinite(out.boxes).all()


@every_tracker
def test_reset_forgets_tracks_but_uses_no_id_again(name: str) -> None:
    tracker = make(name)
    before = [tracker.update(seen, DT) for seen in crowd(5, 5, seed=0)]
    used = max(i for out in before for i in out.ids.tolist())
    tracker.reset()
    after = tracker.update(detections([head(100, 100)]), DT)
    assert after.ids.tolist() == [used + 1]
    assert not after.confirmed.any()
